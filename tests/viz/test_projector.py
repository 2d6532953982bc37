"""The scene lists for the projector: every scene shows something of its own, and says so."""

from itertools import pairwise

import pytest

from reformer_viz.lessons.projector import SCENES, scenes


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_of_a_list_differs_from_the_one_before(name):
    shown = scenes(name)
    assert len(set(shown.captions)) == len(shown.captions) >= 3
    states = shown._states
    assert all(before != after for before, after in pairwise(states))
    assert len(repr(shown).splitlines()) == len(states)


def test_a_list_is_saved_as_a_page_of_its_own(tmp_path):
    page = scenes("steps").save_html(tmp_path / "steps.html").read_text("utf-8")
    assert "Sort: bucket-mates stand together" in page
    assert len(page) < 2e6


def test_scenes_that_nobody_wrote_are_refused():
    with pytest.raises(ValueError, match="name must be one of hashing, steps, rounds"):
        scenes("fireworks")
