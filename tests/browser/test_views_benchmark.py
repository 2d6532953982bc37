"""The benchmark of the screen sees a picture move, and sees that a key at its end moves nothing."""

import pytest

from reformer_viz import explore_bucketing
from tests.benchmarks import views_page

pytestmark = pytest.mark.browser


def test_every_control_of_an_exported_page_is_timed(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(views_page, "MOVES", 2)
    found = list(views_page.exported(browser, "bucketing", 24, tmp_path))
    rule = ["rounds used", "chunk length", "window rule", "only its own bucket"]
    named = ["round", "step", *rule, "token", "token, up and down"]
    assert [run["control"] for run in found] == named
    for run in found:
        assert len(run["seconds"]) == 2
        assert min(run["seconds"]) > 0


def test_a_chart_s_page_has_no_control_to_be_timed(browser, tmp_path):
    assert list(views_page.exported(browser, "bucket_load", 24, tmp_path)) == []


def test_a_key_that_leads_nowhere_has_no_time_and_one_that_leads_on_has(watch_alone, tmp_path):
    alone = watch_alone()
    path = explore_bucketing(n_tokens=16, place={"round": 3}).save_html(tmp_path / "page.html")
    alone.page.goto(path.as_uri())
    alone.wait_for_status(" ")
    alone.page.get_by_role("slider", name="round", exact=True).focus()
    assert views_page.press(alone, "ArrowRight", patience=1500) is None
    moved = views_page.press(alone, "ArrowLeft")
    assert 0 < moved["first"] <= moved["last"]
    alone.context.close()
