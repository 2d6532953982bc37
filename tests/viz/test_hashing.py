"""Bring your own hash: what a function may return, and what it is told when it returns another."""

import numpy as np
import pytest
import torch

from reformer_core import draw_rotations, hash_vectors
from reformer_viz import explore_bucketing
from reformer_viz.measure.hashing import MOST_BUCKETS, apply_hash


def signs(vectors):
    """Number the orthant of the first three numbers."""
    return ((vectors[..., :3] > 0) * torch.tensor([1, 2, 4])).sum(-1)


def constant(vectors):
    return np.zeros(vectors.shape[:-1], dtype=np.int16)


def vectors_of(batch=2, heads=3, length=10, d_head=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, heads, length, d_head, generator=generator)


def test_one_round_and_several_are_both_understood():
    vectors = vectors_of()
    buckets, n_buckets = apply_hash(signs, vectors)
    assert torch.equal(buckets, signs(vectors)[:, :, None])
    assert n_buckets == int(buckets.max()) + 1
    rotations = draw_rotations(5, 3, 4, 8, torch.Generator().manual_seed(1))
    buckets, n_buckets = apply_hash(lambda x: hash_vectors(x, rotations), vectors, 8)
    assert torch.equal(buckets, hash_vectors(vectors, rotations))
    assert n_buckets == 8


def test_four_axes_are_rounds_even_where_sizes_coincide():
    vectors = vectors_of(batch=1, heads=1, length=2, d_head=2)
    buckets, _ = apply_hash(lambda x: torch.tensor([[[[0, 1], [1, 1]]]]), vectors)
    assert buckets.tolist() == [[[[0, 1], [1, 1]]]]


def test_arrays_and_small_integers_count_as_whole_numbers():
    for kind in (np.uint8, np.int16, np.int64):
        buckets, n_buckets = apply_hash(
            lambda x, kind=kind: np.full(x.shape[:3], 3, kind), vectors_of()
        )
        assert buckets.dtype == torch.int64
        assert n_buckets == 4


def test_a_hash_gets_a_copy_without_a_graph_and_cannot_change_the_vectors():
    vectors = vectors_of().requires_grad_()
    before = vectors.detach().clone()

    def spoil(given):
        assert not given.requires_grad
        assert given.dtype == torch.float32
        return given.zero_().long().sum(-1)

    apply_hash(spoil, vectors)
    assert torch.equal(vectors, before)


@pytest.mark.parametrize(
    ("hash", "message"),
    [
        (
            lambda x: x.sum(-1),
            "whole numbers, got float32: a bucket is a choice, so end with .argmax",
        ),
        (lambda x: np.zeros(x.shape[:3]), "whole numbers, got float64"),
        (lambda x: x.sum(-1) > 0, "whole numbers, got bool"),
        (lambda x: [0] * x.shape[2], "a tensor or an array of whole numbers, got list"),
        (lambda x: x.argmax(-1) - 1, "number buckets from 0, got -1: add what is missing"),
        (
            lambda x: x.argmax(-1)[0],
            r"vectors \(2, 3, 'rounds', 10\) or \(2, 3, 10\), got \(3, 10\)",
        ),
        (lambda x: x.long(), r"got \(2, 3, 10, 4\): return one bucket for every vector"),
        (lambda x: x[:, :, :0, 0].long(), r"got \(2, 3, 0\)"),
        (lambda x: x[:, :, None, :, 0].long()[:, :, :0], r"got \(2, 3, 0, 10\)"),
        (
            lambda x: torch.full(x.shape[:3], MOST_BUCKETS),
            "fewer than 65,536 buckets, got 65,536: number them without gaps",
        ),
    ],
)
def test_what_is_no_hash_is_refused(hash, message):
    with pytest.raises(ValueError, match=f"hash must .*{message}"):
        apply_hash(hash, vectors_of())


def test_more_buckets_than_said_are_refused():
    with pytest.raises(ValueError, match=r"in 0\.\.2, got 7: .* or say n_buckets=8"):
        apply_hash(lambda x: torch.full(x.shape[:3], 7), vectors_of(), 3)


# ------------------------------------------------------------------------------ in the explorer


def test_the_explorer_shows_the_buckets_of_one_s_own_hash():
    vectors = vectors_of(batch=1)[0]
    panel = explore_bucketing(vectors, hash=signs, chunk_length=4)
    assert panel.data.buckets.tolist() == [signs(vectors[0]).tolist()]
    assert set(panel.controls) == {"noise", "head"}
    panel.controls["head"].value = 2
    assert panel.data.buckets.tolist() == [signs(vectors[2]).tolist()]
    assert panel._link.data["caption"].endswith("heads: 3. Hashed by signs.")
    panel.controls["noise"].value = 1.0
    assert panel.data.buckets.tolist() != [signs(vectors[2]).tolist()]


def test_the_explorer_counts_the_buckets_unless_told():
    assert explore_bucketing(hash=constant).data.n_buckets == 1
    panel = explore_bucketing(hash=lambda x: constant(x), n_buckets=5)
    assert panel.data.n_buckets == 5
    assert panel._link.data["caption"].endswith("Hashed by your function.")
    assert "of 2,016 pairs" in repr(panel)


def test_a_hash_that_returns_floats_is_a_sentence_in_the_picture_s_place():
    panel = explore_bucketing(hash=lambda x: x.sum(-1))
    assert panel.problem.startswith("hash must return whole numbers, got float32")
    assert panel.problem in panel._html()
    with pytest.raises(ValueError, match="hash must return whole numbers"):
        _ = panel.figure
