"""Positions: a row of the table, or the concatenated rows of the axes' tables."""

import math

import numpy as np
import pytest
import torch

from reformer_core.positions import AxialPositions, LearnedPositions
from tests import oracles

AXES = [((6,), (4,)), ((3, 4), (2, 5)), ((4, 3), (5, 2)), ((2, 3, 4), (1, 2, 3)), ((1, 7), (3, 3))]


def build(axial_shape, axial_dims) -> AxialPositions:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AxialPositions(axial_shape, axial_dims)


@pytest.mark.parametrize(("shape", "dims"), AXES)
def test_a_position_is_its_coordinates_vectors_put_end_to_end_row_by_row(shape, dims):
    positions = build(shape, dims)
    tables = [table.detach().numpy() for table in positions.tables]
    length = math.prod(shape)
    expected = np.stack([oracles.axial_position(p, tables) for p in range(length)])
    np.testing.assert_array_equal(positions(length).detach().numpy(), expected)


@pytest.mark.parametrize(("shape", "dims"), AXES)
def test_a_shorter_length_is_the_beginning_of_a_longer_one(shape, dims):
    positions = build(shape, dims)
    whole = positions(math.prod(shape))
    for length in range(1, len(whole) + 1):
        assert torch.equal(positions(length), whole[:length])


@pytest.mark.parametrize(("shape", "dims"), AXES)
def test_an_axial_table_holds_the_sum_of_shape_times_dims_numbers(shape, dims):
    n_numbers = sum(parameter.numel() for parameter in build(shape, dims).parameters())
    assert n_numbers == sum(size * width for size, width in zip(shape, dims, strict=True))
    assert build(shape, dims)(1).shape == (1, sum(dims))


def test_no_two_positions_are_alike():
    vectors = build((5, 4, 3), (2, 2, 2))(60)
    assert len({tuple(vector.tolist()) for vector in vectors}) == 60


def test_gradients_gather_in_every_row_that_was_used():
    positions = build((3, 4), (2, 5))
    positions(6).sum().backward()
    rows, columns = (table.grad[:, 0].tolist() for table in positions.tables)
    assert rows == [4, 2, 0]
    assert columns == [2, 2, 1, 1]


def test_learned_positions_are_one_vector_each():
    positions = LearnedPositions(7, 3)
    (table,) = positions.parameters()
    assert table.shape == (7, 3)
    for length in range(1, 8):
        assert torch.equal(positions(length), table[:length])


@pytest.mark.parametrize("positions", [LearnedPositions(12, 3), build((3, 4), (2, 5))])
@pytest.mark.parametrize("length", [0, -1, 13])
def test_a_length_outside_the_table_is_refused(positions, length):
    with pytest.raises(ValueError, match=f"length must be 1 to max_length = 12, got {length}: "):
        positions(length)


@pytest.mark.parametrize(
    ("shape", "dims", "message"),
    [
        ((3, 4), (5,), "need one entry per axis"),
        ((), (), "need one entry per axis"),
        ((3, 0), (2, 2), "axes must be at least 1"),
        ((3, 4), (2, -1), "axes must be at least 1"),
    ],
)
def test_axes_that_do_not_match_are_refused(shape, dims, message):
    with pytest.raises(ValueError, match=message):
        AxialPositions(shape, dims)


@pytest.mark.gpu
def test_cuda_places_positions_as_the_cpu_does():
    positions = build((3, 4), (2, 5))
    expected = positions(11)
    assert torch.equal(positions.cuda()(11).cpu(), expected)
