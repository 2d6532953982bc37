"""A scene list shows every state as the panel would, and leads the controls there."""

import json
import re

import pytest

from reformer_viz import SceneList, explore_bucketing, explore_speed

SCENES = [
    ({"n_buckets": 4}, "Few buckets"),
    ({"n_buckets": 4, "round": 1, "token": 5}, "Another round"),
    ({"noise": 1.0}, "Noise"),
]
RESULTS = "tests/benchmarks/results/cpu.json"


def shipped(page: str) -> dict:
    """Return what the script in a page is given."""
    return json.loads(re.search(r"^mount\(root,(.*)\);$|mount\(root,(.*)\);\n", page).group(2))


def test_every_scene_is_stored_as_a_panel_of_its_state_ships_it():
    scenes = SceneList(explore_bucketing(noise=0.2), SCENES)
    stored = shipped(scenes._panel._html({"scenes": scenes._shipped}))["scenes"]
    assert [scene["caption"] for scene in stored] == ["Few buckets", "Another round", "Noise"]
    for scene, (state, _) in zip(stored, SCENES, strict=True):
        wanted = explore_bucketing(noise=0.2)
        wanted.state = state
        assert scene["data"]["buckets"] == wanted._link.data["buckets"]
        assert scene["data"]["place"] == wanted.place


def test_what_a_scene_does_not_say_is_as_it_was_when_the_list_was_made():
    panel = explore_bucketing(noise=0.2)
    SceneList(panel, SCENES)
    assert panel.state["n_buckets"] == 4
    panel._link.scene = 2
    assert (panel.state["noise"], panel.state["n_buckets"], panel.place["token"]) == (1, 8, None)
    panel._link.scene = 1
    assert (panel.state["noise"], panel.state["n_buckets"], panel.place["token"]) == (0.2, 4, 5)
    assert panel._link.settled == 1


def test_a_list_says_its_captions_and_what_every_scene_shows():
    scenes = SceneList(explore_bucketing(), SCENES)
    lines = repr(scenes).splitlines()
    assert lines[0].startswith("1. Few buckets: 64 tokens, 4 buckets, 4 rounds")
    assert lines[1].startswith("2. Another round: Round 1: token 5")
    assert len(lines) == 3


def test_a_state_is_moved_to_as_one():
    measured = []
    panel = explore_bucketing()
    panel._link.observe(lambda change: measured.append(change["new"]), "data")
    panel.state = {"n_buckets": 4, "rounds": 2, "chunk_length": 16, "round": 1}
    assert len(measured) == 1
    assert repr(panel).startswith("64 tokens, 4 buckets, 2 rounds, chunks of 16. Round 1")


def test_the_scenes_of_a_chart_hold_a_picture_each_and_exported_a_chart_each(tmp_path):
    panel = explore_speed(RESULTS)
    scenes = SceneList(panel, [({"n_hashes": n}, f"{n} rounds") for n in (1, 2, 4)])
    _ = panel.chart
    panel._link.shown = True
    page = panel._html({"scenes": scenes._shipped})
    stored = shipped(page)["scenes"]
    assert len({scene["data"]["picture"] for scene in stored}) == 3
    exported = scenes.save_html(tmp_path / "talk.html").read_text("utf-8")
    assert len(exported) < 6e6
    charts = [json.loads(scene["data"]["chart"]) for scene in shipped(exported)["scenes"]]
    titles = [chart["layout"]["annotations"][0]["text"] for chart in charts]
    assert titles == ["Everybody, 1 round", "Everybody, 2 rounds", "Everybody, 4 rounds"]


def test_a_list_is_stored_as_one_output_the_same_every_time(monkeypatch):
    shown = []
    monkeypatch.setattr("reformer_viz.widgets.scenes.display", lambda what, **_: shown.append(what))
    for _ in range(2):
        scenes = SceneList(explore_bucketing(), SCENES)
        scenes._ipython_display_()
        shown[-1]["text/html"] = shown[-1]["text/html"].replace(scenes._panel._key, "KEY")
    assert shown[0] == shown[1]
    assert set(shown[0]) == {"text/html", "text/plain"}


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([], "scenes must hold at least one .*, got none"),
        ([({"buckets": 4}, "")], "a scene's state has n_buckets, .*, got buckets"),
        ([({}, ""), ({"n_buckets": 3}, "")], "scene 2 cannot be shown: n_buckets must be even"),
    ],
)
def test_a_scene_that_cannot_be_shown_is_refused(scenes, message):
    with pytest.raises(ValueError, match=message):
        SceneList(explore_bucketing(), scenes)


def test_a_state_with_an_unknown_name_is_refused_before_anything_moves():
    panel = explore_bucketing()
    with pytest.raises(ValueError, match="a state has n_buckets, .* got hashes"):
        panel.state = {"n_buckets": 4, "hashes": 2}
    assert panel.state["n_buckets"] == 8
