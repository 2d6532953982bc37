"""The site, opened from disk: no request, no error, equations drawn, explorers that move."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "tools" / "build_site.py"), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return folder


@pytest.fixture
def visitor(site, watch_alone):
    visitor = watch_alone()
    visitor.page.on("console", lambda m: visitor.errors.append(m.text) if m.type == "error" else 0)
    yield visitor
    visitor.context.close()


def visit(visitor, page: Path) -> None:
    visitor.page.goto(page.as_uri())
    visitor.page.wait_for_load_state()


def assert_at_peace(visitor, site) -> None:
    assert visitor.errors == []
    assert [url for url in visitor.requests if not url.startswith((site.as_uri(), "data:"))] == []


def test_the_index_leads_to_every_lesson_and_shows_each(visitor, site):
    visit(visitor, site / "index.html")
    links = visitor.page.locator("a.card").evaluate_all("all => all.map(a => a.href)")
    assert [Path(link).stem for link in links] == LESSONS
    sizes = visitor.page.locator(".card img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert len(sizes) == len(LESSONS)
    assert min(sizes) > 50
    assert_at_peace(visitor, site)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_is_whole_and_asks_nobody(visitor, site, lesson):
    visit(visitor, site / f"{lesson}.html")
    visitor.page.wait_for_timeout(500)
    prose = visitor.page.locator(".text_cell").all_inner_texts()
    assert not re.search(r"\$|\\[a-z]{2,}", "\n".join(re.sub(r"\n```.*?```", "", t) for t in prose))
    hrefs = visitor.page.locator("a[href]").evaluate_all("all => all.map(a => a.href)")
    for href in hrefs:
        if href.startswith("file:"):
            assert Path(href.partition("#")[0].removeprefix("file://")).exists(), href
    assert_at_peace(visitor, site)


def test_an_equation_is_drawn(visitor, site):
    visit(visitor, site / "00_tour.html")
    equation = visitor.page.locator('math[display="block"]').first
    assert "argmax" in equation.text_content()
    assert equation.bounding_box()["width"] > 100


def test_an_explorer_moves_on_the_page(visitor, site):
    visit(visitor, site / "00_tour.html")
    root = visitor.page.locator(".rx-root").first
    root.locator("[role=status]", has_text="Round 0").wait_for()
    root.get_by_role("slider", name="round", exact=True).focus()
    visitor.page.keyboard.press("ArrowRight")
    root.locator("[role=status]", has_text="Round 1").wait_for()
    assert_at_peace(visitor, site)


def test_the_reference_says_what_the_code_says(visitor, site):
    visit(visitor, site / "index.html")
    visitor.page.get_by_role("link", name="reference").click()
    visitor.page.wait_for_selector("text=reformer_core")
    visit(visitor, site / "api" / "reformer_core.html")
    assert "plan_chunks" in visitor.page.locator("main").inner_text()
    assert_at_peace(visitor, site)
