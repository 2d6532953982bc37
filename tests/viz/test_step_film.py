"""The film shows what was alive after every operation, where it was, and which part of it grows."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from reformer_core import ReformerConfig
from reformer_viz import measure_step_film, plot_step_film, plotly_step_film
from reformer_viz.figures.step_film import layer_spans, thinned
from reformer_viz.measure.live_bytes import LiveBytes, in_units
from reformer_viz.measure.step_film import EMBEDDING, HEAD, Camera
from reformer_viz.measure.step_kinds import KINDS, LABELS, model_of_kind, new_model, new_tokens

SIZES = {
    "vocab_size": 11,
    "d_model": 16,
    "n_heads": 2,
    "n_hashes": 2,
    "chunk_length": 8,
    "max_length": 64,
}
CONFIG = ReformerConfig(**SIZES, n_layers=3, attention=("lsh", "local"))
STREAM = 64 * 16 * 4  # length * d_model floats


@pytest.fixture(scope="module")
def films():
    return measure_step_film(CONFIG)


@pytest.fixture(params=KINDS)
def film(request, films):
    return films.films[KINDS.index(request.param)]


# ------------------------------------------------------------------- a film whose frames are known


def test_the_camera_sees_a_chain_of_operations_as_one_counts_it_by_hand():
    with Camera() as camera:
        a = torch.zeros(100)  # 400 bytes of floats
        b = a * 2  # and 400
        i = torch.arange(10)  # and 80 of integers
        del a
        c = b.exp()  # 400 gone, 400 come
        b.add_(1)  # nothing new
        view = c.view(10, 10)
        del b, c  # the view keeps 400
        d = view.sum()  # and 4
        del view, i
        camera.shoot("end")
        del d
    assert camera.live == [
        (400, 0),
        (800, 0),
        (800, 80),
        (800, 80),
        (800, 80),
        (800, 80),
        (404, 80),
        (4, 0),
    ]
    names = ["zeros", "mul", "arange", "exp", "add_", "view", "sum", "end"]
    assert [name.partition(".")[0] for name in camera.operations] == names


def test_the_camera_tells_gradients_apart_from_the_operation_that_made_each_on():
    first, second = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))
    with Camera() as camera:
        hidden = first * 3  # frame 0: 32 bytes, kept by the product below
        loss = (hidden * second).sum()  # frames 1 and 2
        del hidden
        camera.shoot("forward")
        loss.backward()
    grown = camera.bytes_of([first.grad, second.grad])
    assert set(grown[:4]) == {0}
    assert sorted(set(grown)) == [0, 32, 64]
    assert (np.diff(grown) >= 0).all()
    made = [camera.operations[at].partition(".")[0] for at in np.flatnonzero(np.diff(grown)) + 1]
    assert made == ["mul", "mul"]


def test_two_names_of_one_gradient_count_once():
    weight = nn.Parameter(torch.ones(8))
    with Camera() as camera:
        (weight * 2).sum().backward()
    assert camera.bytes_of([weight.grad, weight.grad[:4]])[-1] == 32


def test_where_an_allocator_counts_floats_are_what_it_gave_out_besides_integers():
    given_out = iter([512, 1024])
    with Camera(lambda: next(given_out)) as camera:
        a = torch.zeros(3)
        i = torch.arange(10)
        del a, i
    assert camera.live == [(512, 0), (1024 - 80, 80)]


@pytest.mark.gpu
def test_on_cuda_the_allocator_is_asked_and_gives_what_the_tensors_need_in_whole_blocks():
    model = new_model(CONFIG).cuda()
    on_gpu = measure_step_film(model, ("reversible",)).films[0]
    assert on_gpu.live[-1] >= on_gpu.parameters
    assert (on_gpu.live % 512 == 0).all()
    assert not on_gpu.gradients[: on_gpu.n_forward].any()


# --------------------------------------------------------------------------------- whole steps


def test_filming_changes_nothing_of_what_a_plain_count_of_the_step_finds(film):
    tokens = new_tokens(CONFIG, 1, 64)
    model = model_of_kind(new_model(CONFIG), film.kind)
    with LiveBytes() as live:
        loss = model.loss(tokens)
        kept = live.floats + live.integers
        loss.backward()
    assert (film.kept, film.peak) == (kept, live.peak)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_numbers_are_the_same_every_time_and_with_any_number_of_threads(films, n_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        again = measure_step_film(CONFIG, ("standard", "chunked"))
    finally:
        torch.set_num_threads(before)
    for other in again.films:
        one = films.films[KINDS.index(other.kind)]
        for part in ("activations", "integers", "gradients", "place"):
            assert np.array_equal(getattr(one, part), getattr(other, part))
        assert (one.operations, one.n_forward) == (other.operations, other.n_forward)


def test_layers_come_upwards_in_the_forward_and_downwards_in_the_backward(film):
    spans = [(layer, start < film.n_forward) for layer, start, _ in layer_spans(film)]
    layers = [layer for layer, _ in spans]
    assert layers == [0, 1, 2, 2, 1, 0]
    assert [forward for _, forward in spans] == [True] * 3 + [False] * 3
    visited = [film.places[place] for place, _ in itertools.groupby(film.place)]
    assert visited[0] == visited[-1] == EMBEDDING
    middle = [film.places[film.place[at]] for at in (film.n_forward - 1, film.n_forward)]
    assert middle == [HEAD, HEAD]


def test_the_parts_are_everything_and_only_gradients_are_left_at_the_end(film):
    total = film.activations + film.integers + film.gradients
    assert np.array_equal(film.live, total)
    for part in (film.activations, film.integers, film.gradients):
        assert (part >= 0).all()
        assert len(part) == len(film.place) == len(film.operations)
    assert film.live[-1] == film.gradients[-1] == film.parameters
    assert not film.gradients[: film.n_forward].any()
    assert (film.live[film.peak_at], film.live[film.n_forward - 1]) == (film.peak, film.kept)


def test_parameters_and_what_adamw_remembers_are_those_of_the_model(film):
    weights = list(new_model(CONFIG).parameters())
    numbers = sum(weight.numel() for weight in weights)
    assert film.parameters == 4 * numbers
    assert film.optimizer == 2 * 4 * numbers + 4 * len(weights)  # two moments, and a step for each


def kept_after_layers(film) -> list[int]:
    """Return the activations at the end of every layer's forward."""
    ends = [stop for _, start, stop in layer_spans(film) if start < film.n_forward]
    return film.activations[np.array(ends) - 1].tolist()


def test_standard_piles_up_checkpointing_keeps_two_streams_a_layer_reversible_none(films):
    standard, checkpointed, reversible, chunked = map(kept_after_layers, films.films)
    assert (np.diff(standard) > 4 * STREAM).all()
    assert np.diff(checkpointed)[1:].tolist() == [2 * STREAM]
    for flat in (reversible, chunked):
        assert np.diff(flat)[1:].tolist() == [0]


def test_the_reversible_backward_needs_no_more_for_more_layers():
    highest = [
        measure_step_film(ReformerConfig(**SIZES, n_layers=depth), ("reversible",))
        .films[0]
        .activations.max()
        for depth in (2, 6)
    ]
    # Working memory of attention depends a little on how tokens fall into buckets.
    assert abs(highest[1] - highest[0]) < STREAM / 4


def test_checkpointing_saws_each_layer_is_piled_up_again_and_gone(films):
    film = films.films[KINDS.index("checkpointed")]
    backward = [
        film.activations[start:stop]
        for _, start, stop in layer_spans(film)
        if start >= film.n_forward
    ]
    for tooth in backward:
        assert tooth.max() > max(tooth[0], tooth[-1]) + 4 * STREAM
    assert (np.diff([tooth[-1] for tooth in backward]) < 0).all()


def test_a_model_of_ones_own_is_copied_with_its_weights_and_left_alone():
    model = new_model(CONFIG).double().eval()
    before = torch.get_rng_state()
    films = measure_step_film(model, ("standard",), batch_size=2, length=40)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training
    assert model.hash_step == 0
    assert all(p.grad is None for p in model.parameters())
    assert films.films[0].parameters == 8 * sum(p.numel() for p in model.parameters())
    assert (films.batch_size, films.length, films.n_layers) == (2, 40, 3)


def test_filming_leaves_gradient_mode_and_hooks_as_they_were():
    from torch.nn.modules import module

    with torch.no_grad():
        measure_step_film(CONFIG, ("reversible",))
        assert not torch.is_grad_enabled()
    assert not module._global_forward_hooks
    assert not module._global_forward_pre_hooks


def test_the_sentence_is_made_from_the_numbers(films):
    said = films.describe()
    for film in films.films:
        assert f"{in_units(film.kept)} wait for the backward" in said
        assert f"the peak, {in_units(film.peak)}, is in the backward at " in said
    lowest = min(films.films, key=lambda film: film.peak)
    assert f"The lowest peak is that of: {LABELS[lowest.kind]}." in said
    assert "of 3 layers at 1 x 64 tokens" in said
    assert in_units(lowest.optimizer) in said


def test_one_kind_alone_is_compared_with_none():
    said = measure_step_film(ReformerConfig(**SIZES, n_layers=1), ("chunked",)).describe()
    assert "lowest" not in said
    assert "of 1 layer at" in said


@pytest.mark.parametrize("kinds", [(), ("fast",), ("standard", "standard")])
def test_unknown_kinds_are_refused(kinds):
    with pytest.raises(ValueError, match=r"kinds must be one or more of \('standard', .*each once"):
        measure_step_film(CONFIG, kinds)


@pytest.mark.parametrize("length", [1, 65])
def test_a_length_that_no_step_can_have_is_refused_by_the_model(length):
    with pytest.raises(ValueError, match=r"at least 2 tokens, got 1|1 to max_length = 64 tokens"):
        measure_step_film(CONFIG, length=length)


# --------------------------------------------------------------------------------- pictures


def test_every_panel_shows_the_bytes_of_its_film_and_names_kept_and_peak(films):
    figure = plot_step_film(films)
    assert len(figure.axes) == 4
    for axes, film in zip(figure.axes, films.films, strict=True):
        assert axes.get_title(loc="left") == LABELS[film.kind].capitalize()
        outline = max(axes.lines, key=lambda line: len(line.get_xdata()))
        assert np.array_equal(outline.get_ydata() * 2**20, film.live)
        words = {text.get_text() for text in axes.texts}
        assert {f"kept {in_units(film.kept)}", f"peak {in_units(film.peak)}"} <= words
        turn = next(line for line in axes.lines if list(line.get_xdata()) == [film.n_forward] * 2)
        assert turn.get_ydata() == [0, 1]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def test_the_areas_are_the_parts_from_the_bottom(films):
    axes, film = plot_step_film(films).axes[0], films.films[0]
    tops = [area.get_paths()[0].vertices[:, 1].max() * 2**20 for area in axes.collections]
    parts = (film.gradients, film.gradients + film.integers, film.live)
    np.testing.assert_allclose(tops, [part.max() for part in parts], rtol=1e-9)


@pytest.mark.parametrize("n_kinds", [1, 2, 3])
def test_any_number_of_kinds_is_drawn(films, n_kinds):
    some = replace(films, films=films.films[:n_kinds])
    assert sum(axes.axison for axes in plot_step_film(some).axes) == n_kinds
    assert len(plotly_step_film(some).data) == 4 * n_kinds


def test_the_live_film_stacks_the_same_parts_and_says_where_every_operation_is(films):
    figure = plotly_step_film(films)
    assert len(figure.data) == 4 * 4
    for film, traces in zip(films.films, zip(*[iter(figure.data)] * 4, strict=True), strict=True):
        tops = np.array([trace.y for trace in traces[:3]]) * 2**20
        shown = np.array(traces[0].x)
        np.testing.assert_allclose(tops[2], film.live[shown])
        np.testing.assert_allclose(tops[1] - tops[0], film.integers[shown], atol=1e-6)
        assert list(traces[3].y * 2**20) == [film.kept, film.peak]
        assert list(traces[3].customdata) == [
            f"kept {in_units(film.kept)}",
            f"peak {in_units(film.peak)}",
        ]
        assert list(traces[3].text) == ["", f"peak {in_units(film.peak)}"]
        assert film.peak_at in shown
        at = list(shown).index(film.peak_at)
        place = film.places[film.place[film.peak_at]]
        assert traces[2].customdata[at].startswith(f"backward, {place}<br>")
        assert traces[2].customdata[at].endswith(f": {in_units(film.peak)}")


def test_the_live_film_names_both_passes_and_what_waits_between_them_and_shades_layers(films):
    figure = plotly_step_film(films)
    for film, number in zip(films.films, ("", 2, 3, 4), strict=True):
        notes = {n.text: n for n in figure.layout.annotations if n.xref == f"x{number}"}
        kept = notes[f"forward, keeps<br>{in_units(film.kept)}"]
        assert (kept.x, kept.xanchor) == (film.n_forward, "right")
        assert (notes["backward"].x, notes["backward"].xanchor) == (film.n_forward, "left")
        for note in notes.values():  # above the highest point
            assert note.y * figure.layout.yaxis.range[1] > film.peak / 2**20
        shapes = [shape for shape in figure.layout.shapes if shape.xref == f"x{number}"]
        bands = [(s.x0, s.x1) for s in shapes if s.type == "rect"]
        assert bands == [tuple(span) for layer, *span in layer_spans(film) if layer % 2]
        assert [s.x0 for s in shapes if s.type == "line"] == [film.n_forward]


def test_a_thinned_film_keeps_its_turn_its_ends_and_the_extremes_of_every_stretch(films):
    film = films.films[1]
    few = thinned(film, 40)
    assert len(few) <= 40 + 4
    assert {0, film.n_forward - 1, film.peak_at, len(film.live) - 1} <= set(few.tolist())
    assert film.live[few].min() == film.live.min()
    assert thinned(film, 10**6).tolist() == list(range(len(film.live)))
