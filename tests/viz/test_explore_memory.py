"""The explorer's controls lead to the measurement they name, and what it cannot run it says."""

import pytest

from reformer_core import ReformerConfig
from reformer_viz import explore_memory, measure_memory, measure_step_film
from reformer_viz.figures.still import draw_still
from reformer_viz.measure.memory import Memory
from reformer_viz.measure.reconstruction import Reconstruction
from reformer_viz.measure.step_film import StepFilms, film_step
from reformer_viz.measure.step_kinds import KINDS
from reformer_viz.widgets import memory as module
from reformer_viz.widgets.memory import MOST_OPERATIONS, MemoryView, _doubling

SIZES = {"vocab_size": 11, "d_model": 16, "n_heads": 2, "chunk_length": 8}
CONFIG = ReformerConfig(**SIZES, max_length=64)
START = {"n_layers": 1, "length": 32, "n_hashes": 1}


def test_the_film_is_that_of_the_sizes_the_controls_say():
    panel = explore_memory(CONFIG, **START, kind="reversible")
    panel.controls["n_layers"].value = 2
    panel.controls["n_hashes"].value = 3
    config = ReformerConfig(**SIZES, max_length=64, n_layers=2, n_hashes=3)
    wanted = measure_step_film(config, ("reversible",), length=32)
    assert panel.data.describe() == wanted.describe() == repr(panel)
    assert panel.data.films[0].live.tolist() == wanted.films[0].live.tolist()


def test_choosing_a_kind_again_films_nothing_again(monkeypatch):
    filmed = []

    def film(model, tokens, kind):
        filmed.append(kind)
        return film_step(model, tokens, kind)

    monkeypatch.setattr(module, "film_step", film)
    sizes = module._Sizes(CONFIG)
    first, one, again = (sizes.film(kinds, 1, 16, 1) for kinds in (KINDS, ("chunked",), KINDS))
    assert filmed == list(KINDS)
    assert one.films[0] is first.films[-1]
    assert all(a is b for a, b in zip(first.films, again.films, strict=True))


@pytest.mark.parametrize(
    ("show", "values"), [("depths", [1, 2, 3]), ("lengths", [32]), ("n_hashes", [1, 2])]
)
def test_curves_double_up_to_what_the_controls_say(show, values):
    panel = explore_memory(CONFIG, show=show, kind="chunked", n_layers=3, length=32, n_hashes=2)
    assert isinstance(panel.data, Memory)
    assert (panel.data.axis, panel.data.values.tolist()) == (show, values)
    assert list(panel.data.steps) == ["chunked"]
    assert not panel.data.timed


def test_curves_are_those_of_measure_memory():
    panel = explore_memory(CONFIG, show="depths", kind="standard", n_layers=2, length=32)
    wanted = measure_memory(
        ReformerConfig(**SIZES, max_length=64, n_hashes=2),
        (1, 2),
        kinds=("standard",),
        length=32,
        repeats=0,
    )
    assert repr(panel) == f"{wanted.describe()} {wanted.describe_paper()}"


def test_the_papers_lines_lie_over_what_was_measured():
    panel = explore_memory(CONFIG, show="depths", n_layers=2, length=32)
    memory, mib = panel.data, 2**20
    lines = [
        list(trace.y)
        for trace in MemoryView().plotly(memory, {}).data
        if trace.xaxis == "x4" and trace.x[-1] == 2
    ]
    assert len(lines) == len(KINDS) + 5
    terms = [*memory.paper.width.values(), memory.paper.all_pairs, memory.paper.windows]
    for amounts in (*terms, *(step.activations for step in memory.steps.values())):
        assert (amounts / mib).tolist() in lines
    printed = panel.figure.axes[3]
    assert (printed.get_xscale(), printed.get_yscale()) == ("log", "log")
    drawn = [line.get_ydata().tolist() for line in printed.lines]
    assert sorted(drawn) == sorted(lines)
    assert "Checkpointing peaks below plain reversing at" in repr(panel)
    assert "where Table 3 counts" in repr(panel)


def test_titles_fit_their_panels_and_no_two_lines_of_one_look_alike():
    panel = explore_memory(CONFIG, show="depths", n_layers=2, length=32)
    figure = MemoryView().plotly(panel.data, {})
    axes = [f"xaxis{number}" for number in ("", 2, 3, 4)]
    room, letter = 800, 8  # pixels of a page, and of a letter of a title, rather too many
    for title, axis in zip(figure.layout.annotations, axes, strict=True):
        left, right = figure.layout[axis].domain
        assert len(title.text) * letter <= (right - left + 0.08) * room, title.text
    looks = [
        (trace.line.color, trace.line.dash, trace.mode)
        for trace in figure.data
        if trace.xaxis == "x4"
    ]
    assert len(looks) == len(set(looks)) == len(KINDS) + 5


def test_times_are_taken_on_demand_and_said():
    panel = explore_memory(CONFIG, show="depths", n_layers=2, length=32, repeats=1)
    assert panel.data.timed
    assert panel.data.describe_times() in repr(panel)
    assert "Checkpointing is faster than reversing at" in repr(panel)
    assert [note.text for note in MemoryView().plotly(panel.data, {}).layout.annotations][3:] == [
        "Time of one training step",
        "At once, over Tables 1, 3",
    ]
    assert panel.code.endswith("n_hashes=2)")
    assert "repeats=1" in panel.code


def test_a_kind_that_the_table_has_no_row_for_is_shown_over_the_attention_terms():
    panel = explore_memory(CONFIG, show="depths", kind="checkpointed", n_layers=2, length=32)
    assert "Table 3 counts" not in repr(panel)
    assert "The attention term of Tables 1 and 3 as printed would be" in repr(panel)
    assert len(panel.figure.axes) == 4


def test_the_error_of_computing_again_is_shown_for_the_layers_chosen():
    panel = explore_memory(CONFIG, show="reconstruction", n_layers=3, length=32, n_hashes=1)
    assert isinstance(panel.data, Reconstruction)
    assert panel.data.undone.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("start", "end", "values"),
    [(1, 1, (1,)), (1, 4, (1, 2, 4)), (1, 5, (1, 2, 4, 5)), (3, 2, (3,))],
)
def test_doubling_ends_where_it_shall(start, end, values):
    assert _doubling(start, end) == values


def test_what_is_too_much_to_look_at_is_a_sentence_until_less_is_asked():
    config = ReformerConfig(**SIZES, max_length=2048)
    panel = explore_memory(config, kind="chunked", n_layers=12, length=2048, n_hashes=1)
    assert panel.problem.startswith(
        f"layers times tokens must be at most {MOST_OPERATIONS:,} here, got 12 x 2,048"
    )
    panel.controls["length"].value = 32
    panel.controls["n_layers"].value = 1
    assert panel.problem is None
    assert isinstance(panel.data, StepFilms)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "lazy"}, "kinds must be one or more of"),
        ({"length": 65}, "max_length = 64"),
        ({"n_layers": 0}, "n_layers must be at least 1, got 0"),
        ({"show": "weights"}, "show must be one of"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence_in_the_pictures_place(wrong, message):
    panel = explore_memory(CONFIG, **{**START, "kind": "chunked", **wrong})
    assert message in panel.problem
    assert message in repr(panel)


@pytest.mark.parametrize("show", ["film", "depths", "reconstruction"])
def test_every_view_is_drawn_live_still_and_in_print(show):
    panel = explore_memory(CONFIG, show=show, **START)
    view = MemoryView()
    assert draw_still(view.plotly(panel.data, {})).startswith("<svg")
    assert panel.figure.axes
    assert view.describe(panel.data, {}).startswith(panel.data.describe())


def test_the_exported_film_of_all_kinds_stays_below_six_megabytes(tmp_path):
    path = explore_memory(kind="all").save_html(tmp_path / "film.html")
    assert path.stat().st_size < 6_000_000 - 500_000


def test_the_code_leads_back_to_the_state():
    panel = explore_memory(CONFIG, **START, show="depths", kind="chunked")
    again = eval(panel.code, {"explore_memory": explore_memory, "config": CONFIG})
    assert again.state == panel.state
    assert repr(again) == repr(panel)
