"""What every explorer has: charts that live and stay, code that leads back, and no stale work."""

import itertools
import threading
import time
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import pytest
from ipywidgets import FloatSlider, IntSlider
from matplotlib.figure import Figure

from reformer_core import ReformerConfig
from reformer_viz import explore_bucketing, explore_memory, explore_speed, style
from reformer_viz.widgets.call import Call, literal
from reformer_viz.widgets.chart import CONFIG
from reformer_viz.widgets.controls import choice
from reformer_viz.widgets.panel import Panel

MOST_TO_EXPORT = 6e6  # bytes
SIZES = {"vocab_size": 11, "d_model": 16, "n_heads": 2, "chunk_length": 8, "max_length": 64}


class CurveView:
    """A parabola, as a stand-in for a real chart."""

    title = "A parabola"

    def describe(self, data: np.ndarray, place: Mapping) -> str:
        return f"{len(data)} points up to {data.max():.0f}."

    def plotly(self, data: np.ndarray, place: Mapping) -> go.Figure:
        figure = go.Figure(go.Scatter(x=np.arange(len(data)), y=data, name="curve"))
        figure.update_layout(title={"text": f"{len(data)} points"}, xaxis={"range": [-1, 10]})
        if len(data) > 5:
            figure.add_bar(x=[0, 1], y=[2, 3], name="bars")
            figure.data[0].marker.color = "#D55E00"
        return figure

    def plot(self, data: np.ndarray, place: Mapping) -> Figure:
        figure = style.new_figure(3, 2)
        figure.subplots().plot(data)
        return figure


def explore_curve(points: int = 4, *, scale: float = 1.0, place: Mapping | None = None) -> Panel:
    def measure(*, points: int, scale: float) -> np.ndarray:
        if points < 2:
            raise ValueError(f"points must be at least 2, got {points}")
        return scale * np.arange(points) ** 2.0

    controls = {
        "points": IntSlider(description="points", value=points, min=0, max=9),
        "scale": FloatSlider(description="scale", value=scale, min=0, max=9),
    }
    return Panel(CurveView(), measure, controls, dict(place or {}), Call(explore_curve, {}))


def messages_of(live) -> list:
    """Collect what a live figure sends to its page from now on."""
    sent = []
    for name in ("update", "restyle", "relayout", "addTraces", "deleteTraces", "moveTraces"):
        live.observe(lambda change: change["new"] and sent.append(change["new"]), f"_py2js_{name}")
    return sent


# --------------------------------------------------------------------------------------- a chart


def test_a_move_changes_the_same_live_figure_in_one_message():
    panel = explore_curve()
    live = panel.chart
    sent = messages_of(live)
    panel.controls["scale"].value = 3.0
    assert panel.chart is live
    assert list(live.data[0].y) == [0, 3, 12, 27] == panel.data.tolist()
    assert len(sent) == 1
    panel.controls["points"].value = 5
    assert len(sent) == 2
    assert live.layout.title.text == "5 points"
    assert list(live.data[0].x) == [0, 1, 2, 3, 4]


def test_only_what_differs_is_sent():
    panel = explore_curve()
    sent = messages_of(panel.chart)
    panel.controls["scale"].value = 3.0
    [message] = sent
    assert set(message["style_data"]) == {"y"}
    assert not message["layout_data"]


def test_traces_come_and_go_with_the_data_and_so_do_their_properties():
    panel = explore_curve()
    live = panel.chart
    panel.controls["points"].value = 7
    assert [trace.type for trace in live.data] == ["scatter", "bar"]
    assert live.data[0].marker.color == "#D55E00"
    panel.controls["points"].value = 4
    assert [trace.type for trace in live.data] == ["scatter"]
    assert live.data[0].marker.color is None


def test_the_reader_s_zoom_is_not_touched():
    panel = explore_curve()
    panel.chart.layout.xaxis.range = [1, 2]
    panel.controls["scale"].value = 2.0
    panel.controls["points"].value = 7
    assert list(panel.chart.layout.xaxis.range) == [1, 2]
    assert panel.chart.layout.uirevision


def test_the_reader_s_zoom_stays_where_the_figure_itself_says_another_range():
    panel = explore_memory(ReformerConfig(**SIZES), n_layers=1, length=32)
    axis, first = panel.chart.layout.yaxis, list(panel.chart.layout.yaxis.range)
    panel.controls["n_layers"].value = 2
    second = list(axis.range)
    assert second != first
    axis.range = [0.1, 0.2]
    panel.controls["n_layers"].value = 3
    assert list(axis.range) == [0.1, 0.2]
    axis.range = first  # as a double click leads back
    panel.controls["n_layers"].value = 2
    assert list(axis.range) == second


def test_the_live_figure_is_made_when_a_page_asks_and_not_before():
    panel = explore_curve()
    panel._html()
    assert panel._chart._live is None
    panel._link.asked = True
    assert panel._link.chart == panel.chart.model_id


def test_the_live_figure_uploads_nothing_and_shows_no_logo():
    assert CONFIG["showSendToCloud"] is False
    live = explore_curve().chart
    if live.has_trait("_config"):
        assert live._config["showSendToCloud"] is live._config["displaylogo"] is False


def test_a_page_that_shows_the_live_figure_gets_no_picture_but_its_words_and_rows():
    panel = explore_curve()
    assert "picture" in panel._link.data
    panel._link.shown = True
    panel.controls["scale"].value = 2.0
    assert "picture" not in panel._link.data
    assert panel._link.data["sentence"] == repr(panel) == "4 points up to 18."
    assert panel._link.data["rows"][-1] == ["curve", "3", "18"]
    assert "<svg" in panel._chart.picture()
    assert "4 points up to 18." in panel._html()


def test_without_live_figures_the_picture_follows_the_controls(monkeypatch):
    def missing(*_, **__):
        raise ImportError("no anywidget")

    panel = explore_curve()
    monkeypatch.setattr(go, "FigureWidget", missing)
    panel._link.asked = True
    assert panel.chart is None
    assert panel._link.chart == ""
    before = panel._link.data["picture"]
    panel.controls["scale"].value = 2.0
    assert panel._link.data["picture"] != before


def test_a_problem_takes_the_chart_s_place_until_its_cause_is_gone():
    panel = explore_curve(points=1)
    panel._link.asked = True
    assert panel.chart is None
    assert panel._link.data == {"problem": "points must be at least 2, got 1"}
    assert "points must be at least 2, got 1" in panel._html()
    panel.controls["points"].value = 3
    assert panel._link.chart == panel.chart.model_id
    panel.controls["points"].value = 0
    assert panel.problem
    with pytest.raises(ValueError, match="points must be at least 2, got 0"):
        _ = panel.figure


def test_the_chart_follows_the_page_s_theme():
    panel = explore_curve()
    live = panel.chart
    assert live.layout.template.layout.font.color == style.INK
    sent = messages_of(live)
    panel._link.dark = True
    assert style.contrast(live.layout.template.layout.font.color, "#111111") > 4.5
    assert len(sent) == 1
    panel.controls["scale"].value = 2.0
    assert style.contrast(live.layout.template.layout.font.color, "#111111") > 4.5
    assert len(sent) == 2


def test_moving_the_place_redraws_a_chart(monkeypatch):
    monkeypatch.setattr(CurveView, "place", {"mark": None}, raising=False)
    panel = explore_curve()
    panel.place = {"mark": 3}
    assert panel.place == {"mark": 3}
    assert panel._link.data["sentence"] == repr(panel)


# ------------------------------------------------------------------------------- what is stored


def test_the_stored_chart_is_one_plain_output_the_same_every_time():
    first, second = explore_curve(), explore_curve()
    _ = second.chart
    pages = [panel._html().replace(panel._key, "KEY") for panel in (first, second)]
    assert pages[0] == pages[1]
    assert pages[0].count("data:image/svg+xml,%3Csvg") == 1
    assert 'alt="4 points up to 9."' in pages[0]
    assert "run the cell" in pages[0]
    assert len(pages[0]) < 30_000


def test_an_exported_chart_is_whole_below_six_megabytes_and_in_both_themes(tmp_path):
    text = explore_curve().save_html(tmp_path / "page.html").read_text("utf-8")
    assert len(text) < MOST_TO_EXPORT
    assert "<title>A parabola</title>" in text
    assert not any(f'{name}="http' in text.split("<main>")[1] for name in ("src", "href"))
    exported = text.split("<main>")[1]
    assert '"showSendToCloud":false' in exported
    assert style.INK in exported
    assert style.plotly_template(dark=True).layout.font.color in exported


def test_a_script_s_page_is_exported_without_plotly(tmp_path):
    text = explore_bucketing().save_html(tmp_path / "page.html").read_text("utf-8")
    assert len(text) < 100_000


def test_every_picture_is_written_as_png_and_as_the_same_svg_every_time(tmp_path):
    panel = explore_curve()
    assert panel.save_png(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    one, other = (panel.save_svg(tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == other
    assert b"<svg" in one


# ------------------------------------------------------------------------------------- the code


def state_of_data(panel):
    return panel.state, repr(panel)


def test_the_code_leads_back_to_the_state():
    panel = explore_bucketing(n_tokens=20, chunk_length=4, within_bucket=False, labels=None)
    panel.controls["n_buckets"].value = 4
    panel.controls["noise"].value = 0.35
    panel.controls["new_rotations"].click()
    panel.place = {"round": 2, "token": 3}
    assert panel.code.startswith(
        "explore_bucketing(n_tokens=20, within_bucket=False, chunk_length=4"
    )
    again = eval(panel.code, {"explore_bucketing": explore_bucketing})
    assert state_of_data(again) == state_of_data(panel)
    assert np.array_equal(again.data.buckets, panel.data.buckets)
    assert again.code == panel.code


def test_what_was_given_under_a_name_keeps_it():
    vectors = np.random.default_rng(0).normal(size=(2, 12, 8))
    panel = explore_bucketing(vectors, chunk_length=4, labels=list("abcdefghijkl"))
    panel.controls["head"].value = 1
    assert panel.code.startswith('explore_bucketing(vectors, labels=["a", "b"')
    again = eval(panel.code, {"explore_bucketing": explore_bucketing, "vectors": vectors})
    assert state_of_data(again) == state_of_data(panel)


def test_every_explorer_takes_back_what_it_says():
    path = "tests/benchmarks/results/cpu.json"
    panel = explore_speed(path)
    panel.controls["what"].value = "bytes"
    panel.controls["n_hashes"].value = 2
    assert panel.code == f'explore_speed("{path}", n_hashes=2, what="bytes", backward=True)'
    again = eval(panel.code, {"explore_speed": explore_speed})
    assert state_of_data(again) == state_of_data(panel)


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -3, 0.1 + 0.2, 1e-7, 1e300, "a\"'\n\\é", (), (1,), [1, (2, None)], {"a": [1]}],
    ids=repr,
)
def test_a_value_is_written_as_python_reads_it(value):
    read = eval(literal(value))
    assert read == (pytest.approx(value) if isinstance(value, float) else value)
    assert type(read) is type(value)


# ------------------------------------------------------------------------------------ stale work


def test_while_one_state_is_measured_only_the_newest_of_the_waiting_is_measured_next():
    measured, entered, may_go_on = [], threading.Event(), threading.Event()

    def measure(*, points: int) -> np.ndarray:
        measured.append(points)
        if points == 3:
            entered.set()
            assert may_go_on.wait(60)
        return np.arange(float(points))

    control = IntSlider(value=2, min=0, max=99)
    panel = Panel(CurveView(), measure, {"points": control}, {}, Call(explore_curve, {}))
    threads = [threading.Thread(target=setattr, args=(control, "value", v)) for v in (3, 4, 5, 6)]
    threads[0].start()
    assert entered.wait(60)
    tickets = panel._newest
    for count, thread in enumerate(threads[1:], start=1):
        thread.start()
        while panel._newest < tickets + count:
            time.sleep(0.001)
    may_go_on.set()
    for thread in threads:
        thread.join()
    assert measured == [2, 3, 6]
    assert len(panel.data) == 6
    assert panel._link.data["sentence"] == repr(panel)


def test_every_state_is_measured_while_nobody_waits():
    panel = explore_curve()
    for points, scale in itertools.product((3, 4), (1.0, 2.0)):
        panel.controls["points"].value, panel.controls["scale"].value = points, scale
        assert panel.data.tolist() == (scale * np.arange(points) ** 2).tolist()


# --------------------------------------------------------------------------------------- a place


def test_a_place_that_is_none_is_refused_and_moves_nothing():
    panel = explore_bucketing(n_tokens=16)
    said, state = repr(panel), panel.state
    for wrong, problem in (({"rund": 1}, "got rund"), ({"round": "a"}, "whole number, got 'a'")):
        with pytest.raises(ValueError, match=problem):
            panel.place = wrong
        with pytest.raises(ValueError, match="got"):
            panel.state = {"n_buckets": 4, **wrong}
        assert (repr(panel), panel.state) == (said, state)
    panel.close()


def test_a_place_may_be_a_number_of_numpy_s():
    panel = explore_bucketing(n_tokens=16, place={"token": np.int64(3)})
    panel.place = {"round": np.argmax([0, 1])}
    assert type(panel.place["token"]) is type(panel.place["round"]) is int
    assert "Round 1: token 3" in repr(panel)
    panel.close()


def test_a_panel_that_was_made_with_a_wrong_place_shows_the_next_one():
    panel = explore_bucketing(n_tokens=16, place={"round": "a"})
    assert panel.problem == "a place's round must be a whole number, got 'a'"
    panel.place = {"round": 1}
    assert panel.problem is None
    assert "Round 1" in repr(panel)
    panel.close()


def test_an_option_without_a_value_is_shown_as_chosen_at_first_and_again():
    control = choice("guess", None, [("no guess", None), ("a", "a"), ("b", "b")])
    seen = []
    control.observe(lambda change: seen.append(change["new"]), "value")
    assert (control.label, control.value) == ("no guess", None)
    for value, label in (("b", "b"), (None, "no guess"), ("a", "a")):
        control.value = value
        assert (control.label, control.value) == (label, value)
    assert seen == ["b", None, "a"]
    assert choice("layer", 1, [0, 1]).label == "1"
