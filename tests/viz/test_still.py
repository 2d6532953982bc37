"""A still chart shows its Plotly figure's numbers where they belong, the same bytes anywhere."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from reformer_viz import style
from reformer_viz.figures.still import HEIGHT, WIDTH, draw_still
from reformer_viz.figures.still_axes import nice_step, write
from reformer_viz.figures.still_marks import MOST_POINTS
from reformer_viz.figures.table import MOST_ROWS, rows_of

SVG = "{http://www.w3.org/2000/svg}"
RED = "#D50000"


def drawn(figure: go.Figure) -> ElementTree.Element:
    return ElementTree.fromstring(draw_still(figure))


def paths(svg, **wanted) -> list[str]:
    """Return the ways of all paths that have such attributes."""
    names = {name.replace("_", "-"): value for name, value in wanted.items()}
    return [
        path.get("d")
        for path in svg.iter(f"{SVG}path")
        if all(path.get(name) == value for name, value in names.items())
    ]


def corners(d: str) -> np.ndarray:
    """Read the places that a way of absolute corners passes."""
    return np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", d), dtype=float)


def words(svg) -> dict[str, tuple[float, float]]:
    """Return every text and where it stands."""
    return {t.text: (float(t.get("x")), float(t.get("y"))) for t in svg.iter(f"{SVG}text")}


def line(x, y, **more) -> go.Scatter:
    return go.Scatter(x=x, y=y, mode="lines", line={"color": RED}, **more)


def assert_affine(values, places):
    """Every place follows from its value by one scale and one shift, to a pixel's tenth."""
    scale, shift = np.polyfit(values, places, 1)
    assert abs(scale) > 1e-9
    np.testing.assert_allclose(scale * np.asarray(values) + shift, places, atol=0.11)


# ---------------------------------------------------------------------------------- the numbers


def test_a_line_passes_where_its_numbers_are():
    x, y = np.array([1.0, 2, 5, 9]), np.array([3.0, -4, 0, 7])
    [d] = paths(drawn(go.Figure(line(x, y))), stroke=RED)
    places = corners(d)
    assert_affine(x, places[:, 0])
    assert_affine(-y, places[:, 1])
    assert places[0, 0] < places[-1, 0]
    assert places[1, 1] > places[3, 1]  # up is up


def test_a_line_on_logarithmic_axes_passes_where_its_logarithms_are():
    x, y = np.array([1.0, 10, 300, 1e5]), np.array([2e-3, 5, 80, 4e6])
    figure = go.Figure(line(x, y)).update_xaxes(type="log").update_yaxes(type="log")
    places = corners(*paths(drawn(figure), stroke=RED))
    assert_affine(np.log10(x), places[:, 0])
    assert_affine(-np.log10(y), places[:, 1])


def test_what_has_no_place_on_a_logarithmic_axis_is_a_gap():
    figure = go.Figure(line([1, 2, 3, 4], [1.0, 0, -3, 10])).update_yaxes(type="log")
    assert len(corners(*paths(drawn(figure), stroke=RED))) == 2


def test_a_gap_breaks_a_line():
    [d] = paths(drawn(go.Figure(line([1, 2, 3, 4, 5], [1, 2, None, 4, np.nan]))), stroke=RED)
    assert d.count("M") == 2
    assert len(corners(d)) == 3


def test_the_ticks_stand_where_their_numbers_are():
    figure = go.Figure(line([0.0, 40], [-2.0, 7]))
    svg = drawn(figure)
    places = corners(*paths(svg, stroke=RED))
    ticks = {float(text): place for text, place in words(svg).items()}
    along = {n: x for n, (x, y) in ticks.items() if y > places[:, 1].max() + 10}
    assert len(along) >= 4
    numbers = [0, 40, *along]
    assert_affine(numbers, [*places[:, 0], *along.values()])


@pytest.mark.parametrize("span", [0.003, 0.7, 1, 9, 10, 12345])
def test_ticks_are_at_one_two_or_five_and_no_more_than_fit(span):
    step = nice_step(span, 6)
    assert span / step <= 6 + 1e-9
    assert f"{step:e}"[0] in "125"
    assert span / nice_step(span, 6) > 2


@pytest.mark.parametrize(
    ("value", "form", "written"),
    [
        (0.25, ".0%", "25%"),
        (12000, None, "12k"),
        (4e6, None, "4M"),
        (1024, None, "1024"),
        (0.125, ".2f", "0.12"),
        (1234.0, ",d", "1,234"),
        (2.5e-5, None, "2.5e-05"),
    ],
)
def test_numbers_are_written_as_plotly_would(value, form, written):
    assert write(value, form) == written


def boxes(svg, colour) -> np.ndarray:
    """Return x, y, width and height of the bars of a colour."""
    names = ("x", "y", "width", "height")
    bars = [r for r in svg.iter(f"{SVG}rect") if r.get("fill") == colour]
    return np.array([[float(bar.get(name)) for name in names] for bar in bars])


def test_bars_are_as_long_as_their_numbers_and_stand_side_by_side():
    figure = go.Figure(layout={"showlegend": False})
    figure.add_bar(x=["a", "b"], y=[2, 6], marker_color=RED)
    figure.add_bar(x=["a", "b"], y=[3, 1], marker_color="#000055")
    svg = drawn(figure)
    one, other = boxes(svg, RED), boxes(svg, "#000055")
    assert_affine([0, 2, 6, 3, 1], [0, *one[:, 3], *other[:, 3]])
    assert (one[:, 0] + one[:, 2] <= other[:, 0] + 0.1).all()
    foot = one[:, 1] + one[:, 3]
    np.testing.assert_allclose(foot, foot[0], atol=0.05)


def test_stacked_bars_stand_on_each_other():
    figure = go.Figure(layout={"showlegend": False, "barmode": "stack"})
    figure.add_bar(x=[1, 2], y=[2, 6], marker_color=RED)
    figure.add_bar(x=[1, 2], y=[3, 1], marker_color="#000055")
    svg = drawn(figure)
    one, other = boxes(svg, RED), boxes(svg, "#000055")
    np.testing.assert_allclose(other[:, 1] + other[:, 3], one[:, 1], atol=0.05)
    np.testing.assert_allclose(one[:, 0], other[:, 0])


def test_lying_bars_are_as_long_as_their_numbers():
    figure = go.Figure(go.Bar(y=["a", "b"], x=[2, 6], orientation="h", marker_color=RED))
    bars = boxes(drawn(figure), RED)
    assert_affine([0, 2, 6], [0, *bars[:, 2]])


def test_a_heat_map_gives_every_cell_its_number_s_colour():
    z = np.array([[0.0, 0, 1, 1, 1], [1, 0, 0, np.nan, 0], [0, 0, 0, 0, 1]])
    scale = [[0, "#000000"], [1, "#ff0000"]]
    figure = go.Figure(go.Heatmap(z=z, colorscale=scale, showscale=False))
    svg = drawn(figure)
    area = {}
    for path in svg.iter(f"{SVG}path"):
        if path.get("shape-rendering"):
            runs = re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)", path.get("d"))
            sides = np.array(runs, dtype=float)
            area[path.get("fill")] = np.abs(
                (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])
            ).sum()
    assert set(area) == {"#000000", "#ff0000"}
    ones, zeros = (z == 1).sum(), (z == 0).sum()
    assert area["#ff0000"] / area["#000000"] == pytest.approx(ones / zeros, rel=0.01)


def test_a_large_heat_map_is_binned_to_its_mean():
    z = np.kron(np.eye(2), np.ones((300, 300)))
    svg = draw_still(go.Figure(go.Heatmap(z=z)))
    assert len(svg) < 20_000


def test_a_band_lies_between_its_lines():
    x = [0.0, 1, 2]
    figure = go.Figure(
        [line(x, [1.0, 2, 3]), line(x, [3.0, 5, 4], fill="tonexty", fillcolor="#00f")]
    )
    svg = drawn(figure)
    low, high = (corners(d) for d in paths(svg, stroke=RED))
    [band] = paths(svg, fill="#00f")
    np.testing.assert_allclose(corners(band), np.concatenate([high, low[::-1]]))


def test_points_have_their_own_colours_and_sizes():
    marker = {"color": ["#010101", RED], "size": [4, 10], "symbol": "circle"}
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], mode="markers", marker=marker))
    svg = drawn(figure)
    widths = {p.get("stroke"): p.get("stroke-width") for p in svg.iter(f"{SVG}path")}
    assert (widths["#010101"], widths[RED]) == ("4", "10")


def test_bars_of_error_have_their_points_colour_unless_they_name_one():
    look, error = {"mode": "markers", "marker": {"color": RED}}, {"array": [1.0, 1.0]}
    figure = go.Figure([line([1, 2], [1.0, 2]), go.Scatter(y=[3.0, 4], error_y=error, **look)])
    assert any("V" in d for d in paths(drawn(figure), stroke=RED, fill="none"))
    figure.data[1].error_y.color = "#123456"
    assert paths(drawn(figure), stroke="#123456")


def test_texts_have_their_own_colours_and_sizes():
    font = {"color": ["#010101", RED], "size": [9, 14]}
    figure = go.Figure(go.Scatter(y=[3, 4], mode="text", text=["one", "two"], textfont=font))
    written = {t.text: t for t in drawn(figure).iter(f"{SVG}text")}
    looks = {name: written[name].get("fill") for name in ("one", "two")}
    assert looks == {"one": "#010101", "two": RED}
    assert [written[name].get("font-size") for name in ("one", "two")] == ["9", "14"]


def test_matching_axes_have_one_range():
    figure = make_subplots(1, 2, shared_yaxes=True)
    figure.add_trace(line([0, 1], [0.0, 1]), 1, 1)
    figure.add_trace(line([0, 1], [0.0, 10]), 1, 2)
    one, other = (corners(d)[:, 1] for d in paths(drawn(figure), stroke=RED))
    assert one[0] == other[0]
    assert (other[0] - other[1]) == pytest.approx(10 * (one[0] - one[1]), abs=1)


def test_a_second_axis_on_the_right_has_a_range_of_its_own():
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.add_trace(line([0, 1], [0.0, 1]))
    figure.add_trace(line([0, 1], [0.0, 500]), secondary_y=True)
    svg = drawn(figure)
    one, other = (corners(d) for d in paths(svg, stroke=RED))
    np.testing.assert_allclose(one, other, atol=0.11)
    assert words(svg)["500"][0] > one[:, 0].max()


def test_a_scene_is_seen_from_its_camera_and_its_rear_is_faint():
    marker = {"color": [RED, "#000055"], "size": 8}
    figure = go.Figure(go.Scatter3d(x=[1, -1], y=[0, 0], z=[0, 0], mode="markers", marker=marker))
    figure.update_layout(scene={"camera": {"eye": {"x": 2, "y": 0, "z": 0}}})
    svg = drawn(figure)
    rear, front = (g for g in svg.iter(f"{SVG}g"))
    assert float(rear.get("opacity")) < 1
    assert rear.find(f"{SVG}path").get("stroke") == "#000055"
    assert front.find(f"{SVG}path").get("stroke") == RED


# ------------------------------------------------------------------------------------- the words


def test_titles_legend_notes_and_marks_are_there():
    figure = go.Figure([line([1, 2], [1.0, 2], name="one"), line([1, 2], [2.0, 1], name="two")])
    figure.add_trace(line([1, 2], [2.0, 2], name="unlisted", showlegend=False))
    figure.update_layout(title={"text": "A <b>title</b>"}, xaxis_title="tokens", yaxis_title="s")
    figure.add_annotation(x=1.5, y=1.5, text="two<br>lines")
    figure.add_hline(y=1.25, line_color="#123456")
    svg = drawn(figure)
    said = words(svg)
    assert {"A title", "one", "two", "tokens", "s", "lines"} <= set(said)
    assert "unlisted" not in said
    ends = next(corners(d) for d in paths(svg, stroke=RED))
    [mark] = paths(svg, stroke="#123456")
    y = corners(mark)[:, 1]
    assert y[0] == y[1] == pytest.approx(ends[0, 1] + (ends[1, 1] - ends[0, 1]) / 4, abs=0.11)


def test_a_note_on_a_logarithmic_axis_is_placed_by_its_logarithm_as_in_plotly():
    figure = go.Figure(line([10.0, 1000], [1.0, 2])).update_xaxes(type="log")
    figure.add_annotation(x=2, y=1.5, text="here", showarrow=False)
    svg = drawn(figure)
    places = corners(*paths(svg, stroke=RED))
    assert words(svg)["here"][0] == pytest.approx(places[:, 0].mean(), abs=0.11)


def test_what_is_hidden_is_not_drawn():
    figure = go.Figure([line([1, 2], [1.0, 2], visible=False), line([1, 2], [5.0, 6])])
    assert len(paths(drawn(figure), stroke=RED)) == 1


def test_text_stays_text():
    evil = '</svg><script>alert(1)</script>"&\x00'
    figure = go.Figure([line([1, 2], [1.0, 2], name=evil), line([1, 2], [1.0, 3], name="b")])
    figure.update_layout(title={"text": evil})
    svg = draw_still(figure)
    assert "<script" not in svg
    ElementTree.fromstring(svg)


def test_another_kind_of_trace_is_refused():
    with pytest.raises(ValueError, match="a trace must be one of scatter, .* got pie"):
        draw_still(go.Figure(go.Pie(values=[1, 2])))


def test_nothing_at_all_is_an_empty_card():
    assert drawn(go.Figure()).get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    drawn(go.Figure(go.Scatter(x=[], y=[])))
    drawn(go.Figure(go.Scatter(x=[1], y=[0])))
    drawn(go.Figure(go.Bar(x=["a"], y=[0])))


# ------------------------------------------------------------------------------------- the bytes


def test_lists_arrays_and_typed_arrays_are_drawn_alike():
    x, y = np.arange(30.0), np.arange(30.0) ** 2
    figure = go.Figure(line(x, y))
    again = go.Figure(json.loads(figure.to_json()))
    assert draw_still(figure) == draw_still(again)
    assert draw_still(figure) == draw_still(go.Figure(line(x.tolist(), y.tolist())))
    assert draw_still(figure) == draw_still(go.Figure(line(x.astype(int), y.astype(np.int32))))


def test_many_points_are_thinned():
    x = np.arange(200_000.0)
    [d] = paths(drawn(go.Figure(line(x, np.sin(x / 1e4)))), stroke=RED)
    assert len(corners(d)) <= MOST_POINTS + 1
    assert len(draw_still(go.Figure(go.Scatter(x=x, y=x % 7, mode="markers")))) < 60_000


def test_the_card_is_white_and_asks_nobody_for_anything():
    svg = draw_still(go.Figure(line([1, 2], [3.0, 4])))
    assert f'fill="{style.PAPER}"' in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


# ------------------------------------------------------------------------------------- the table


def test_the_table_holds_every_point_with_its_series_and_its_axes_names():
    figure = go.Figure([line([1, 2], [0.5, None], name="a"), line([3], [12345], name="<b>b</b>")])
    figure.update_layout(xaxis_title="rounds", yaxis_title="share")
    assert rows_of(figure) == [
        ["series", "rounds", "share"],
        ["a", "1", "0.5"],
        ["b", "3", "12,345"],
    ]


def test_the_table_names_the_chart_where_there_are_several():
    figure = make_subplots(1, 2, subplot_titles=["left", "right"])
    figure.add_trace(line([1], [2], name="a"), 1, 1)
    figure.add_trace(line([3], [4], name="b"), 1, 2)
    assert rows_of(figure)[1:] == [["left", "a", "1", "2"], ["right", "b", "3", "4"]]


def test_a_long_table_is_cut_and_says_so():
    figure = go.Figure(line(np.arange(5000), np.arange(5000)))
    rows = rows_of(figure)
    assert len(rows) == MOST_ROWS + 2
    assert rows[-1][:2] == ["…", "5,000 rows in all"]


def test_cells_and_places_in_space_have_three_numbers():
    figure = go.Figure(go.Heatmap(z=[[1, 2], [3, 4]], x=["k0", "k1"], y=["q0", "q1"]))
    assert rows_of(figure)[1:3] == [["", "k0", "q0", "1"], ["", "k1", "q0", "2"]]
    figure = go.Figure(go.Scatter3d(x=[1], y=[2], z=[3], name="v"))
    assert rows_of(figure)[1:] == [["v", "1", "2", "3"]]
