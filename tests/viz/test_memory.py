"""The bytes of a training step are counted, not estimated, and the picture shows those numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reformer_core import ReformerConfig
from reformer_viz import measure_memory, plot_memory, plot_memory_of_paper, plotly_memory
from reformer_viz.measure import memory as module
from reformer_viz.measure.live_bytes import in_units
from reformer_viz.measure.paper_memory import count_as_paper
from reformer_viz.measure.step_film import measure_step_film
from reformer_viz.measure.step_kinds import KINDS, LABELS

CONFIG = ReformerConfig(
    vocab_size=11, d_model=16, n_heads=2, n_hashes=2, chunk_length=8, max_length=64
)
DROPPING = replace(CONFIG, dropout=0.1)
STREAM = 64 * 16 * 4  # length * d_model floats


@pytest.fixture(scope="module")
def memory():
    return measure_memory(CONFIG, (1, 2, 3), repeats=1)


@pytest.fixture(scope="module")
def by_length():
    return measure_memory(replace(CONFIG, n_layers=1), lengths=(16, 32, 64), repeats=0)


@pytest.fixture(scope="module")
def by_rounds():
    return measure_memory(replace(CONFIG, n_layers=2), n_hashes=(1, 3), length=32, repeats=0)


# ------------------------------------------------------------------------------ what is counted


def test_a_reversible_stack_keeps_the_same_activations_at_any_depth(memory):
    for flat in (memory.reversible, memory.chunked):
        assert len(set(flat.floats.tolist())) == 1
    assert memory.chunked.floats[0] < memory.reversible.floats[0]


def test_a_standard_stack_keeps_at_least_both_streams_more_with_every_layer(memory):
    per_layer = np.diff(memory.standard.floats) / np.diff(memory.depths)
    assert (per_layer > 2 * STREAM).all()
    assert per_layer[0] == per_layer[1] == memory.growth("standard")


def test_a_checkpointed_stack_keeps_both_streams_of_every_layer_and_nothing_else(memory):
    assert (np.diff(memory.checkpointed.floats) / np.diff(memory.depths)).tolist() == [
        2 * STREAM,
        2 * STREAM,
    ]
    assert memory.growth("checkpointed") == 2 * STREAM
    assert len(set(memory.checkpointed.integers.tolist())) == 1


def test_what_grows_in_a_reversible_stack_are_one_byte_of_bucket_a_position_head_and_round(memory):
    per_layer = np.diff(memory.reversible.integers) / np.diff(memory.depths)
    assert per_layer.tolist() == [64 * 2 * 2] * 2  # length * heads * rounds, 16 buckets


def test_dropout_adds_the_random_state_of_every_sublayer():
    plain, dropping = (
        measure_memory(config, (1, 3), kinds=("reversible",), repeats=0)
        for config in (CONFIG, DROPPING)
    )
    more = np.diff(dropping.reversible.integers) - np.diff(plain.reversible.integers)
    assert more.tolist() == [2 * 2 * torch.get_rng_state().numel()]


def test_what_is_kept_is_proportional_to_the_length(by_length):
    for step in by_length.steps.values():
        per_token = np.diff(step.floats) / np.diff(by_length.lengths)
        assert per_token[0] == pytest.approx(per_token[1], rel=0.01)
    assert by_length.parameters.tolist() == [by_length.parameters[0]] * 3


def test_rounds_add_buckets_to_every_kind_and_activations_to_none(by_rounds):
    for step in by_rounds.steps.values():
        assert np.diff(step.floats).tolist() == [0]
    more = np.diff(by_rounds.reversible.integers)
    assert more.tolist() == [32 * 2 * 2 * 2]  # tokens * heads * layers * rounds more
    assert np.diff(by_rounds.standard.integers) > more


def test_the_count_is_the_same_every_time_and_leaves_the_random_state_alone(memory):
    torch.manual_seed(5)
    again = measure_memory(CONFIG, (1, 2), repeats=0)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    for kind in KINDS:
        for part in ("floats", "integers", "peak", "activations"):
            first, second = (getattr(m.steps[kind], part)[:2] for m in (memory, again))
            assert first.tolist() == second.tolist()


def test_a_points_numbers_are_those_of_its_film(by_length):
    films = measure_step_film(replace(CONFIG, n_layers=1), length=32)
    for film in films.films:
        step = by_length.steps[film.kind]
        assert (step.kept[1], step.peak[1]) == (film.kept, film.peak)
        assert step.activations[1] == film.activations.max()
        assert (by_length.parameters[1], by_length.optimizer[1]) == (
            film.parameters,
            film.optimizer,
        )


def test_the_peak_is_above_what_is_kept_and_above_the_gradients(memory):
    for step in memory.steps.values():
        assert (step.peak > step.floats + step.integers).all()
        assert (step.peak > memory.parameters).all()
        assert (step.peak >= step.activations).all()


def test_what_is_no_axis_is_the_same_at_every_point(memory, by_length, by_rounds):
    assert (memory.axis, by_length.axis, by_rounds.axis) == ("depths", "lengths", "n_hashes")
    points = [
        [m.depths.tolist(), m.lengths.tolist(), m.n_hashes.tolist()]
        for m in (memory, by_length, by_rounds)
    ]
    assert points == [
        [[1, 2, 3], [64] * 3, [2] * 3],
        [[1] * 3, [16, 32, 64], [2] * 3],
        [[2, 2], [32, 32], [1, 3]],
    ]


# -------------------------------------------------------------------------------------- times


def test_kinds_are_timed_in_turn_and_the_first_time_of_each_is_not_counted(monkeypatch):
    taken = []

    def seconds(step):
        step()
        taken.append(len(taken))
        return float(10 + len(taken) % 7)

    monkeypatch.setattr(module, "_seconds", seconds)
    got = measure_memory(CONFIG, (1,), kinds=("standard", "chunked"), repeats=2)
    assert len(taken) == 2 * (1 + 2)
    assert got.standard.seconds.tolist() == [min(13, 15)]
    assert got.chunked.seconds.tolist() == [min(14, 16)]
    assert got.relative_seconds("chunked").tolist() == [14 / 13]


def test_a_timed_step_repeats_itself_and_holds_one_steps_gradients():
    model = module.new_model(CONFIG)
    step = module._step_of(model, module.new_tokens(CONFIG, 1, 64))
    step()
    first = [p.grad.clone() for p in model.parameters()]
    step()
    assert all(torch.equal(one, p.grad) for one, p in zip(first, model.parameters(), strict=True))
    assert model.hash_step == 1


def test_times_are_told_apart_from_what_is_exact(memory, by_length):
    assert memory.timed
    assert not by_length.timed
    assert by_length.describe_times() == "No step was timed: ask for repeats=3."
    said = memory.describe_times()
    for kind in KINDS[1:]:
        assert f"{memory.relative_seconds(kind)[-1]:.2f} ({LABELS[kind]})" in said
    assert "Checkpointing is faster than reversing at" in said
    assert all(digits not in memory.describe() for digits in (" s,", "faster"))


# --------------------------------------------------------------------------------- sentences


def test_the_sentence_is_made_from_the_numbers(memory):
    said = memory.describe()
    assert f"{in_units(memory.standard.floats[-1])} against" in said
    assert f"against {in_units(memory.checkpointed.peak[-1])}, " in said
    assert "a reversible one by 0 B" in said
    assert f"a checkpointed one by {in_units(2 * STREAM)}" in said
    assert "from 1 to 3 layers a standard stack grows by" in said
    assert f"AdamW's memory from {in_units(memory.optimizer[0])}" in said


def test_the_sentence_says_where_checkpointing_wins(memory):
    peaks = {
        "checkpointed": np.array([5, 5, 9]),
        "reversible": np.array([6, 7, 8]),
        "standard": np.array([4, 9, 20]),
        "chunked": np.array([6, 5, 7]),
    }
    steps = {kind: replace(memory.steps[kind], peak=peaks[kind]) for kind in KINDS}
    said = replace(memory, steps=steps).describe()
    assert (
        "The lowest peak has: standard at 1 layer; checkpointed at 2 layers; "
        "reversible, chunked at 3 layers." in said
    )
    assert "Checkpointing peaks below plain reversing at 1 and 2 layers." in said
    high = replace(steps["checkpointed"], peak=peaks["standard"] + 9)
    never = replace(memory, steps=steps | {"checkpointed": high})
    assert "Checkpointing peaks below plain reversing at no number of layers." in never.describe()


def test_the_sentence_speaks_of_the_axis_that_grew(by_length, by_rounds):
    assert "at 1 layer of 2 rounds, batch 1: from 16 to 64 tokens" in by_length.describe()
    assert "of activations a token" in by_length.describe()
    assert "at 2 layers, 1 x 32 tokens: from 1 to 3 rounds" in by_rounds.describe()


def test_one_point_and_one_kind_make_sentences_and_a_picture_too():
    alone = measure_memory(CONFIG, (2,), kinds=("reversible",), repeats=1)
    seconds = alone.reversible.seconds[0]
    assert alone.describe_times() == f"At 2 layers a reversible step takes {seconds:.3g} s."
    parts = plot_memory(alone).axes[2].collections
    assert [len(set(part.get_paths()[0].vertices[:, 0].round(9))) for part in parts] == [2] * 5
    assert "Nothing else grows in a reversible stack." in alone.describe()
    assert "from 2 to 2 layers a reversible stack grows by 0 B" in alone.describe()


# --------------------------------------------------------------------------------- the paper


def test_the_papers_terms_are_those_of_its_tables_in_bytes_of_float32():
    config = replace(CONFIG, d_model=8, d_ff=24, n_heads=2, chunk_length=32)
    depths, lengths, rounds = np.array([3, 3]), np.array([64, 128]), np.array([4, 5])
    paper = count_as_paper(config, depths, lengths, rounds, batch_size=2)
    float32 = 4
    for at, (length, n_rounds) in enumerate([(64, 4), (128, 5)]):
        assert paper.width["standard"][at] == 2 * length * 24 * 3 * float32
        assert paper.width["reversible"][at] == 2 * length * 24 * float32
        assert paper.width["chunked"][at] == 2 * length * 8 * float32
        assert paper.all_pairs[at] == 2 * 2 * length**2 * float32
        assert paper.windows[at] == 2 * 2 * length * n_rounds * 128**2 * float32
    assert "checkpointed" not in paper.width


def test_measured_slopes_are_the_papers_within_a_constant(memory, by_length):
    for got, kind in ((memory, "standard"), (by_length, "reversible"), (by_length, "chunked")):
        counted = got.paper.width[kind]
        assert (got.steps[kind].activations > counted).all()
        ratio = got.steps[kind].activations / counted
        assert ratio.max() < 3 * ratio.min()


def test_the_papers_sentence_is_made_from_the_numbers(memory):
    said = memory.describe_paper()
    measured, counted = memory.standard.activations[-1], memory.paper.width["standard"][-1]
    assert f"{in_units(measured)} (standard) where Table 3 counts {in_units(counted)}" in said
    assert in_units(memory.paper.windows[-1]) in said


# --------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("depths", [(), (0, 1), (-1,)])
def test_depths_without_layers_are_refused(depths):
    with pytest.raises(ValueError, match=r"depths must be one or more numbers of layers, got \("):
        measure_memory(CONFIG, depths)


def test_two_axes_at_once_are_refused():
    with pytest.raises(ValueError, match="one axis grows at a time, got depths and n_hashes"):
        measure_memory(CONFIG, (1, 2), n_hashes=(1, 2))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"lengths": ()}, "lengths must be one or more numbers of tokens"),
        ({"n_hashes": (0,)}, "n_hashes must be one or more numbers of rounds"),
        ({"kinds": ("lazy",)}, "kinds must be one or more of"),
        ({"repeats": -1}, "repeats must be at least 0, got -1"),
        ({"lengths": (32, 65)}, "max_length = 64"),
        ({"lengths": (1,)}, "at least 2 tokens, got 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        measure_memory(replace(CONFIG, n_layers=1), **{"kinds": ("chunked",), "repeats": 0, **how})


# --------------------------------------------------------------------------------- pictures


def drawn(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_the_curves_show_the_measured_numbers(memory):
    kept, peak, _, time = plot_memory(memory).axes
    for kind, step in memory.steps.items():
        for axes, amounts in (
            (kept, (step.floats + step.integers) / 2**20),
            (peak, step.peak / 2**20),
            (time, step.seconds / memory.standard.seconds),
        ):
            shown = drawn(axes)[LABELS[kind]]
            assert shown.tolist() == np.c_[memory.depths, amounts].tolist()
    assert [axes.get_ylabel() for axes in (kept, peak)] == ["MiB", "MiB"]
    assert time.get_ylabel() == "times the standard step"


def test_the_parts_stand_on_each_other_and_end_at_their_sum(memory):
    axes = plot_memory(memory).axes[2]
    tops = [area.get_paths()[0].vertices[:, 1].max() * 2**20 for area in axes.collections]
    parts = [
        memory.parameters,
        memory.optimizer,
        memory.parameters,
        memory.chunked.integers,
        memory.chunked.activations,
    ]
    np.testing.assert_allclose(tops, np.cumsum([part[-1] for part in parts]))
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[1] == f"buckets, random states, {in_units(memory.chunked.integers[-1])}"


def test_without_times_there_is_no_panel_of_times(by_length):
    figure = plot_memory(by_length)
    assert [axes.get_xlabel() for axes in figure.axes] == ["tokens"] * 3
    assert figure.legends[0].get_title().get_text() == by_length.fixed()


def test_the_papers_lines_stand_beside_what_was_measured(memory):
    axes = plot_memory_of_paper(memory).axes[0]
    lines = [line.get_xydata().tolist() for line in axes.lines]
    terms = [*memory.paper.width.values(), memory.paper.all_pairs, memory.paper.windows]
    measured = [step.activations for step in memory.steps.values()]
    for amounts in (*terms, *measured):
        assert np.c_[memory.depths, amounts / 2**20].tolist() in lines
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_formulas_at_the_ends_of_lines_do_not_run_into_each_other(memory, by_length):
    for measured in (memory, by_length):
        axes = plot_memory_of_paper(measured).axes[0]
        heights = sorted(text.xy[1] for text in axes.texts)
        assert len(heights) == 5
        assert min(np.diff(heights)) > 0.05


def test_values_too_close_for_their_names_are_left_out_of_the_ticks(by_length):
    many = replace(by_length, lengths=np.array([16, 17, 64]))
    assert plot_memory(many).axes[0].get_xticks().tolist() == [64, 17]


def test_the_live_curves_show_the_measured_numbers(memory, by_length):
    figure = plotly_memory(memory)
    live = {(trace.name, trace.xaxis): list(trace.y) for trace in figure.data}
    for kind, step in memory.steps.items():
        assert live[LABELS[kind], "x"] == (step.kept / 2**20).tolist()
        assert live[LABELS[kind], "x2"] == (step.peak / 2**20).tolist()
        assert live[LABELS[kind], "x4"] == memory.relative_seconds(kind).tolist()
    assert live["gradients of the parameters", "x2"] == (memory.parameters / 2**20).tolist()
    assert any(str(t.customdata[-1]).endswith(" times the first kind's") for t in figure.data)
    assert {trace.xaxis for trace in plotly_memory(by_length).data} == {"x", "x2", "x3"}


def test_the_live_parts_are_bars_that_end_at_their_sum_as_in_print(memory):
    bars = [trace for trace in plotly_memory(memory).data if trace.type == "bar"]
    assert {bar.xaxis for bar in bars} == {"x3"}
    assert [list(bar.x) for bar in bars] == [[f"{depth}" for depth in memory.depths]] * 5
    tops = np.cumsum([np.array(bar.y)[-1] * 2**20 for bar in bars])
    areas = plot_memory(memory).axes[2].collections
    printed = [area.get_paths()[0].vertices[:, 1].max() * 2**20 for area in areas]
    np.testing.assert_allclose(tops, printed)
    assert bars[3].name == "buckets, random states"
    assert bars[3].customdata[-1] == in_units(memory.chunked.integers[-1])


def test_a_line_that_lies_exactly_under_another_one_is_seen(memory):
    assert memory.reversible.peak.tolist() == memory.chunked.peak.tolist()
    lines = {line.get_label(): line for line in plot_memory(memory).axes[1].lines}
    live = {trace.name: trace for trace in plotly_memory(memory).data if trace.xaxis == "x2"}
    below, above = LABELS["reversible"], LABELS["chunked"]
    assert lines[below].get_zorder() < lines[above].get_zorder()
    assert list(live).index(below) < list(live).index(above)
    assert lines[below].get_linewidth() > 2 * lines[above].get_linewidth()
    assert live[below].line.width > 2 * live[above].line.width
    assert live[below].marker.size > live[above].marker.size
