"""The bytes of a training step are counted, not estimated, and the picture shows those numbers."""

import numpy as np
import pytest
import torch

from reformer_core import ReformerConfig
from reformer_viz import measure_memory, plot_memory
from reformer_viz.measure.memory import LiveBytes, in_units

CONFIG = ReformerConfig(vocab_size=11, d_model=16, n_heads=2, chunk_length=8, max_length=64)
DROPPING = ReformerConfig(
    vocab_size=11, d_model=16, n_heads=2, chunk_length=8, max_length=64, dropout=0.1
)
STREAM = 64 * 16 * 4  # length * d_model floats


@pytest.fixture(scope="module")
def memory():
    return measure_memory(CONFIG, (1, 2, 4))


def test_live_bytes_follow_tensors_as_they_come_and_go():
    with LiveBytes() as live:
        a = torch.zeros(100)
        b = torch.zeros(50, dtype=torch.int64)
        view = a[10:]
        assert (live.floats, live.integers) == (400, 400)
        del a
        assert live.floats == 400
        del view
        assert live.floats == 0
        c = torch.zeros(25) + 1
        assert live.floats == 100
        del b, c
    assert live.integers == 0
    assert live.peak == 800


def test_live_bytes_count_neither_what_was_there_before_nor_changes_in_place():
    before = torch.ones(100)
    with LiveBytes() as live:
        before.add_(1)
        before.view(10, 10).mul_(2)
        assert live.floats == live.peak == 0


def test_a_reversible_stack_keeps_the_same_activations_at_any_depth(memory):
    assert len(set(memory.reversible.floats.tolist())) == 1


def test_a_standard_stack_keeps_at_least_both_streams_more_with_every_layer(memory):
    per_layer = np.diff(memory.standard.floats) / np.diff(memory.depths)
    assert (per_layer > 2 * STREAM).all()
    assert per_layer[0] == per_layer[1]


def test_what_grows_in_a_reversible_stack_are_one_byte_of_bucket_a_position_head_and_round(memory):
    per_layer = np.diff(memory.reversible.integers) / np.diff(memory.depths)
    assert per_layer.tolist() == [64 * 2 * 4] * 2  # length * heads * rounds, 16 buckets


def test_dropout_adds_the_random_state_of_every_sublayer():
    plain, dropping = measure_memory(CONFIG, (1, 3)), measure_memory(DROPPING, (1, 3))
    more = np.diff(dropping.reversible.integers) - np.diff(plain.reversible.integers)
    assert more.tolist() == [2 * 2 * torch.get_rng_state().numel()]


def test_the_count_is_the_same_every_time_and_leaves_the_random_state_alone(memory):
    torch.manual_seed(5)
    again = measure_memory(CONFIG, (1, 2, 4))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    for kind in ("standard", "reversible"):
        for part in ("floats", "integers", "peak"):
            first, second = (getattr(getattr(m, kind), part) for m in (memory, again))
            assert first.tolist() == second.tolist()


def test_the_peak_is_above_what_is_kept_and_above_the_gradients(memory):
    for kind in (memory.standard, memory.reversible):
        assert (kind.peak > kind.floats + kind.integers).all()
        assert (kind.peak > memory.parameters).all()


def test_the_sentence_is_made_from_the_numbers(memory):
    said = memory.describe()
    assert f"{in_units(memory.standard.floats[-1])} against" in said
    assert f"against {in_units(memory.reversible.peak[-1])}" in said
    assert "a reversible one by 0 B" in said


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.07e+03 GiB")],
)
def test_bytes_are_written_in_units(n_bytes, said):
    assert in_units(n_bytes) == said


def test_the_curves_show_the_measured_numbers(memory):
    left, right = plot_memory(memory).axes
    drawn = {line.get_label(): line.get_xydata() for line in left.lines}
    kept = memory.standard.floats + memory.standard.integers
    assert drawn["standard"].tolist() == np.c_[memory.depths, kept / 2**20].tolist()
    peaks = {line.get_label(): line.get_ydata() for line in right.lines}
    assert peaks["reversible"].tolist() == (memory.reversible.peak / 2**20).tolist()
    grown = in_units(memory.reversible.integers[-1])
    assert any(grown in text.get_text() for text in left.get_legend().get_texts())


@pytest.mark.parametrize("depths", [(), (0, 1), (-1,)])
def test_depths_without_layers_are_refused(depths):
    with pytest.raises(ValueError, match=r"depths must be one or more numbers of layers, got \("):
        measure_memory(CONFIG, depths)
