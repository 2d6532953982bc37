"""Bytes are counted while tensors live: not before, not after, and a shared storage once."""

import pytest
import torch

from reformer_viz.measure.live_bytes import LiveBytes, in_units


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
        torch.add(before, 1, out=before)
        assert live.floats == live.peak == 0


def test_tensors_in_lists_given_and_made_are_found():
    before = torch.ones(100)
    with LiveBytes() as live:
        parts = torch.split(before, 10)
        assert live.floats == 0
        joined = torch.cat(parts)
        assert live.floats == 400
        made = torch.ops.aten._foreach_add(list(joined.split(50)), 1.0)
        assert (len(made), live.floats) == (2, 800)


def test_a_storage_counts_whole_even_where_a_tensor_shows_a_part_of_it():
    with LiveBytes() as live:
        part = torch.zeros(1000)[:1]
        assert (live.floats, part.numel()) == (4000, 1)


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.07e+03 GiB")],
)
def test_bytes_are_written_in_units(n_bytes, said):
    assert in_units(n_bytes) == said
