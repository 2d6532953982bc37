"""One attention alone is counted beside the paper's Table 1, LSH's and full."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reformer_core import ReformerConfig
from reformer_viz import measure_attention_memory, plot_attention_memory
from reformer_viz.measure.attention_memory import _peak
from reformer_viz.measure.live_bytes import in_units

CONFIG = ReformerConfig(vocab_size=11, d_model=16, n_heads=2, n_hashes=2, chunk_length=8)
FLOAT32 = 4


@pytest.fixture(scope="module")
def memory():
    return measure_attention_memory(CONFIG, (16, 64, 256))


def test_the_peak_of_a_known_function_is_what_one_counts_by_hand():
    def attend(qk, values):
        return (qk * 2) * values  # doubled and product, 96 bytes each

    qk, values, d_out = torch.randn(3, 1, 1, 6, 4)
    # In the backward their gradients join them, and then that of qk takes the place of doubled.
    assert _peak(attend, qk, values, d_out) == 4 * FLOAT32 * 6 * 4


def test_full_attention_needs_several_times_all_scores_and_lsh_attention_a_length_of_them(memory):
    ratio = memory.full / memory.all_pairs
    assert (ratio[1:] > 2).all()
    assert ratio[2] == pytest.approx(ratio[1], rel=0.5)
    per_token = memory.lsh / memory.lengths
    assert per_token[2] < 2 * per_token[1]
    assert memory.lsh[2] < memory.full[2]


def test_the_terms_are_those_of_table_1(memory):
    lengths = np.array([16, 64, 256])
    assert memory.heads.tolist() == (FLOAT32 * 2 * lengths * 8).tolist()
    assert memory.all_pairs.tolist() == (FLOAT32 * 2 * lengths**2).tolist()
    assert memory.windows.tolist() == (FLOAT32 * 2 * lengths * 2 * 32**2).tolist()


def test_the_counts_repeat_and_no_random_number_is_taken(memory):
    torch.manual_seed(2)
    with torch.no_grad():
        again = measure_attention_memory(CONFIG, (16, 64))
        assert not torch.is_grad_enabled()
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(drawn, torch.rand(1))
    assert again.lsh.tolist() == memory.lsh[:2].tolist()
    assert again.full.tolist() == memory.full[:2].tolist()


def test_the_sentence_says_from_where_on_lsh_attention_needs_less(memory):
    said = memory.describe()
    assert f"{in_units(memory.lsh[-1])} against {in_units(memory.full[-1])}" in said
    assert "from 16 to 256 tokens, 16 times as many" in said
    first = memory.lengths[memory.lsh < memory.full][0]
    assert f"LSH attention needs less from {first} tokens on." in said
    never = replace(memory, lsh=memory.full + 1)
    assert never.describe().endswith("LSH attention needs nowhere less.")


@pytest.mark.parametrize("lengths", [(), (0,), (8, -1)])
def test_no_length_is_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths must be one or more numbers of tokens, got \("):
        measure_attention_memory(CONFIG, lengths)


def test_the_lines_are_the_numbers_and_the_terms(memory):
    axes = plot_attention_memory(memory).axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines]
    for part in ("lsh", "full", "heads", "all_pairs", "windows"):
        assert (getattr(memory, part) / 2**20).tolist() in drawn
    assert len(drawn) == len({tuple(line) for line in drawn}) == 5
    assert {text.get_text().rpartition(", ")[2] for text in axes.texts} == {
        "what goes in",
        "full attention",
        "LSH as printed",
    }
