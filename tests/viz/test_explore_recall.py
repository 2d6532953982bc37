"""The explorer of recall: a control moves, and what is measured, drawn and said moves with it."""

import numpy as np
import pytest
import torch

from reformer_core import ReformerConfig, ReformerLM
from reformer_viz import explore_recall, measure_recall
from reformer_viz.widgets import recall as recall_module


def vectors(length=24):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(2, 2, length, 6, generator=generator)


@pytest.fixture
def panel():
    qk, values = vectors()
    made = explore_recall(qk, values, n_buckets=4, chunk_length=8, top_k=4, n_hashes=(1, 2, 3))
    yield made
    made.close()


def same(recall, wanted):
    names = ("n_hashes", "found", "same_bucket", "expected", "mass_found", "error", "top_mass")
    return all(np.array_equal(getattr(recall, name), getattr(wanted, name)) for name in names)


def test_what_is_shown_is_what_measure_recall_says(panel):
    qk, values = vectors()
    wanted = measure_recall(
        qk, values, n_buckets=4, chunk_length=8, top_k=4, max_hashes=3, seeds=(0,)
    )
    assert same(panel.data, wanted)
    assert repr(panel) == f"Given vectors: {wanted.describe()}"


@pytest.mark.parametrize(
    ("control", "value", "option"),
    [
        ("n_buckets", 8, {"n_buckets": 8}),
        ("chunk_length", 2, {"chunk_length": 2}),
        ("top_k", 1, {"top_k": 1}),
        ("window", "sliding", {"window": "sliding"}),
        ("rotations", 5, {"seeds": (5,)}),
    ],
)
def test_a_control_moves_measurement_sentence_and_chart(panel, control, value, option):
    qk, values = vectors()
    said = repr(panel)
    panel.controls[control].value = value
    options = {"n_buckets": 4, "chunk_length": 8, "top_k": 4, "seeds": (0,), **option}
    assert same(panel.data, measure_recall(qk, values, max_hashes=3, **options))
    assert repr(panel) != said
    drawn = next(t for t in panel.chart.data if (t.name or "").startswith("a pair counts once"))
    assert list(drawn.y) == panel.data.curve("error").mean.tolist()
    assert panel.state[control] == value
    assert f"{control}={value!r}".replace("'", '"') in panel.code


def test_random_vectors_keep_the_lengths_and_lose_the_directions(panel):
    panel.controls["source"].value = "random"
    assert repr(panel).startswith("Random vectors: 24 tokens")
    turned = recall_module._turned(vectors()[0])
    assert torch.allclose(turned.norm(dim=-1), vectors()[0].norm(dim=-1))
    random = measure_recall(
        turned, vectors()[1], n_buckets=4, chunk_length=8, top_k=4, max_hashes=3, seeds=(0,)
    )
    assert same(panel.data, random)


def test_padding_is_kept_as_it_was_and_left_out_of_everything():
    qk, values = vectors()
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[1, 18:] = True
    qk, values = qk.expand(2, 2, 24, 6), values.expand(2, 2, 24, 6)
    panel = explore_recall(qk, values, padding=padding, n_buckets=4, chunk_length=8, n_hashes=(1,))
    options = {"n_buckets": 4, "chunk_length": 8, "seeds": (0,), "max_hashes": 1}
    wanted = measure_recall(qk, values, padding=padding.clone(), **options)
    padding.zero_()
    panel.controls["source"].value = "random"
    panel.controls["source"].value = "given"
    assert same(panel.data, wanted)
    assert "24 tokens (6 of the batch are padding)" in repr(panel)
    panel.close()


def test_without_vectors_some_are_made_up():
    panel = explore_recall(n_hashes=(1,))
    assert repr(panel).startswith("Made-up vectors: 512 tokens; heads: 4")
    assert "made up" in dict(panel.controls["source"].options)
    panel.controls["source"].value = "random"
    assert repr(panel).startswith("Random vectors: ")
    panel.close()


def traced(attention=("local", "lsh", "lsh")):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_heads": 2, "n_buckets": 4, "chunk_length": 8, "max_length": 64}
    config = ReformerConfig(vocab_size=9, n_layers=3, attention=attention, n_hashes=2, **sizes)
    return ReformerLM(config).eval().trace(torch.arange(24)[None] % 9)


def test_a_traced_model_is_looked_at_with_its_own_values_and_rule():
    trace = traced()
    panel = explore_recall(trace, n_hashes=(1, 2))
    for layer in (1, 2):
        panel.controls["layer"].value = layer
        used = trace.layers[layer]
        wanted = measure_recall(
            used.qk, used.values, n_buckets=4, chunk_length=8, max_hashes=2, seeds=(0,)
        )
        assert same(panel.data, wanted)
        assert repr(panel) == f"Layer {layer}'s vectors: {wanted.describe()}"
    assert panel.code.startswith("explore_recall(qk, n_hashes=(1, 2)")
    assert "layer=2" in panel.code
    panel.close()


def test_lists_are_vectors_as_well():
    qk = vectors()[0]
    lists, tensor = (explore_recall(x, n_buckets=4, n_hashes=2) for x in (qk.tolist(), qk))
    assert repr(lists) == repr(tensor)
    assert lists.data.n_hashes.tolist() == [2]


def test_vectors_are_those_of_the_moment_when_it_was_made():
    qk, values = vectors()
    panel = explore_recall(qk, values, n_buckets=4, n_hashes=(1, 2))
    before = panel.data
    qk.zero_()
    values.zero_()
    panel.controls["n_buckets"].value = 8
    panel.controls["n_buckets"].value = 4
    assert same(panel.data, before)
    panel.controls["source"].value = "random"  # looked at only now
    qk, values = vectors()
    turned = explore_recall(qk, values, n_buckets=4, n_hashes=(1, 2), source="random")
    assert same(panel.data, turned.data)
    for made in (panel, turned):
        made.close()


def test_the_printed_picture_is_of_what_is_shown(panel):
    panel.controls["chunk_length"].value = 2
    lines = {line.get_label(): line for line in panel.figure.axes[0].lines}
    assert lines["found"].get_ydata().tolist() == panel.data.curve("found").mean.tolist()


def test_a_control_does_not_look_at_everybody_again(panel, monkeypatch):
    def never(*_, **__):
        raise AssertionError("full attention was computed again")

    monkeypatch.setattr(recall_module, "look_at_all", never)
    for control, value in (("top_k", 2), ("n_buckets", 8), ("chunk_length", 4)):
        panel.controls[control].value = value
        assert panel.problem is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"qk": torch.zeros(1, 1, 4)}, "recall needs at least 2 tokens, got 1"),
        ({"qk": torch.full((1, 8, 4), torch.nan)}, "qk must be finite, got NaN or infinity"),
        ({"qk": torch.zeros(8, 4)}, '"heads length d" and not empty'),
        ({"qk": torch.zeros(1, 4097, 1)}, "at most 4,096 tokens to be explored, got 4,097"),
        ({"n_buckets": 7}, "n_buckets must be even and positive, got 7"),
        ({"top_k": 100}, "top_k must be at most 64, got 100"),
        ({"rotations": 1, "chunks_before": 0, "window": "sliding"}, "sliding window of no slots"),
        ({"source": "x"}, "source must be 'given' or 'random', got 'x'"),
        ({"qk": [[[1.0, 2.0], [3.0]]]}, "qk must be rows of equal length"),
        ({"qk": "text"}, "qk must be numbers, got str"),
        ({"qk": traced(("local", "full"))}, "the model must have an LSH layer"),
        ({"qk": traced(), "layer": 0}, "layer must be one with LSH attention, 1, 2, got 0"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence_in_its_place(arguments, problem):
    panel = explore_recall(**{"qk": vectors()[0], "n_hashes": (1,), **arguments})
    assert problem in panel.problem
    assert repr(panel) == panel.problem
    with pytest.raises(ValueError, match="must|needs|of no slots"):
        _ = panel.figure
    panel.close()


def test_after_a_problem_the_next_setting_is_shown():
    panel = explore_recall(vectors()[0], n_buckets=7, n_hashes=(1,))
    panel.controls["n_buckets"].value = 8
    assert panel.problem is None
    assert "With 8 buckets" in repr(panel)
    panel.close()
