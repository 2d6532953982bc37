"""What the backward computes again is compared with the forward's own streams."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reformer_core import ReformerConfig
from reformer_viz import measure_reconstruction, plot_reconstruction, plotly_reconstruction
from reformer_viz.measure.reconstruction import (
    LABELS,
    PRECISIONS,
    _inputs,
    _power_above,
    _relative,
)
from reformer_viz.measure.step_kinds import model_of_kind, new_model, new_tokens

SIZES = {"vocab_size": 11, "d_model": 16, "n_heads": 2, "n_hashes": 2, "chunk_length": 8}
CONFIG = ReformerConfig(**SIZES, n_layers=6, max_length=48)


@pytest.fixture(scope="module")
def measured():
    return measure_reconstruction(CONFIG, batch_size=2)


@torch.no_grad()
def inverted_by_hand(model, tokens) -> list[float]:
    """Run the layers forwards and, by Eq. 9 alone, backwards; return x2's errors, last first."""
    context = model._context(tokens, None)
    x1 = x2 = model.embed(tokens)
    streams, memos = [], []
    for block in model.layers:
        streams.append(x2)
        change, memo = block.f(x2, context)
        x1 = x1 + change
        memos.append(memo)
        x2 = x2 + block.g(x1, context)[0]
    errors = []
    for block, memo, once in zip(
        reversed(model.layers), reversed(memos), reversed(streams), strict=True
    ):
        x2 = x2 - block.g(x1, context)[0]
        errors.append(float((x2 - once).double().norm() / once.double().norm()))
        x1 = x1 - block.f(x2, context, memo)[0]
    return errors


def test_errors_are_those_of_inverting_the_layers_by_hand():
    got = measure_reconstruction(CONFIG, ("float32",), batch_size=2).errors["float32"]
    model, tokens = model_of_kind(new_model(CONFIG), "reversible"), new_tokens(CONFIG, 2, 48)
    model.hash_step += 1
    np.testing.assert_allclose(got, inverted_by_hand(model, tokens), rtol=0.2)


def test_what_is_looked_at_are_the_attentions_inputs_forwards_and_then_backwards():
    model = model_of_kind(new_model(CONFIG), "reversible")
    with _inputs(model) as given:
        model.loss(new_tokens(CONFIG, 1, 48)).backward()
    assert len(given) == 2 * 6
    assert not torch.equal(given[5], given[6])  # even the last is computed again
    for once, again in zip(given[:6], reversed(given[6:]), strict=True):
        torch.testing.assert_close(once, again, rtol=0, atol=1e-5)
    assert not torch.allclose(given[0], given[5], atol=1e-2)


def test_the_coarser_the_numbers_the_larger_the_errors_and_they_grow_with_depth(measured):
    fine, coarse = measured.errors["float32"], measured.errors["bfloat16"]
    assert (coarse > 1000 * fine).all()
    for errors in (fine, coarse):
        assert errors[-1] > errors[0] > 0
    assert measured.undone.tolist() == [1, 2, 3, 4, 5, 6]
    assert fine[-1] < 1e-5
    assert measured.errors["autocast"][0] < 1e-6


def test_gradients_are_off_by_about_as_much_and_only_because_of_inverting(measured):
    assert 0 < measured.gradients["float32"] < 1e-5
    assert measured.gradients["float32"] < measured.gradients["bfloat16"] < 0.1


def test_one_rounding_is_half_the_distance_of_two_neighbours(measured):
    assert measured.rounding == {"float32": 2.0**-24, "autocast": 2.0**-24, "bfloat16": 2.0**-8}


def test_the_relative_error_is_that_of_all_numbers_together():
    wanted = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    got = [torch.tensor([3.0, 0.3]), torch.tensor([[4.4]])]
    assert _relative(got, wanted) == pytest.approx(0.1)


def test_a_model_of_ones_own_is_left_alone_and_so_is_the_random_state():
    model = new_model(CONFIG).eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        measure_reconstruction(model, ("bfloat16",), length=16)
        assert not torch.is_grad_enabled()
    assert torch.equal(before, torch.get_rng_state())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize(
    ("number", "written"), [(3e-7, "1e-6"), (0.02, "1e-1"), (1e-3, "1e-2"), (0.0, "1e-16")]
)
def test_a_number_is_written_as_the_power_of_ten_above_it(number, written):
    assert _power_above(number) == written


def test_the_sentence_is_made_from_the_numbers(measured):
    said = measured.describe()
    for precision in PRECISIONS:
        bound = _power_above(measured.errors[precision][-1])
        assert f"{LABELS[precision].capitalize()}: below {bound} of the stream" in said
    assert "through 6 layers" in said


@pytest.mark.parametrize("precisions", [(), ("float8",), ("float32", "half")])
def test_unknown_precisions_are_refused(precisions):
    with pytest.raises(ValueError, match=r"precisions must be some of \('float32', .* got \("):
        measure_reconstruction(CONFIG, precisions)


def test_a_length_that_the_model_cannot_read_is_refused():
    with pytest.raises(ValueError, match="max_length = 48"):
        measure_reconstruction(CONFIG, length=49)


def test_both_pictures_show_the_errors(measured):
    axes = plot_reconstruction(measured).axes[0]
    print_lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    live = {trace.name: list(trace.y) for trace in plotly_reconstruction(measured).data}
    for precision, errors in measured.errors.items():
        assert print_lines[LABELS[precision]] == live[LABELS[precision]] == errors.tolist()
    assert live["one rounding, 3.9e-03"] == [2.0**-8] * 6
    assert axes.get_yscale() == "log"


def test_no_line_strikes_through_what_one_rounding_is_called(measured):
    figure = plot_reconstruction(measured)
    figure.draw_without_rendering()
    [axes] = figure.axes
    names = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert list(names) == ["one rounding,\n6.0e-08", "one rounding,\n3.9e-03"]
    for box in names.values():
        assert box.x0 > axes.bbox.x1
        assert box.x1 <= figure.bbox.x1


def test_a_precision_that_was_not_measured_is_not_drawn(measured):
    only = replace(measured, errors={"float32": measured.errors["float32"]})
    labels = [line.get_label() for line in plot_reconstruction(only).axes[0].lines]
    assert sum(label in LABELS.values() for label in labels) == 1
