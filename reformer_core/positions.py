"""Where a token stands: one learned vector per position, or axial tables that share them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """One learned vector for every position: max_length * d_model numbers."""

    def __init__(self, max_length: int, d_model: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.table = nn.Parameter(torch.randn(max_length, d_model))

    def forward(self, length: int) -> Float[Tensor, "length d_model"]:
        """Return the vectors of the first `length` positions."""
        _check_length(length, self.max_length)
        return self.table[:length]


class AxialPositions(nn.Module):
    """Positions on a grid: a vector per row and one per column, put end to end.

    Position p of a grid (rows, columns) stands in row p // columns and column p % columns, and its
    vector is that row's followed by that column's: sum of axial_shape * axial_dims numbers instead
    of max_length * d_model. Any number of axes; the last one turns fastest.

    Raises ValueError when shape and dims have different numbers of axes.
    """

    def __init__(self, axial_shape: tuple[int, ...], axial_dims: tuple[int, ...]) -> None:
        super().__init__()
        if len(axial_shape) != len(axial_dims) or not axial_shape:
            raise ValueError(
                f"axial_shape and axial_dims need one entry per axis, got {axial_shape} and "
                f"{axial_dims}"
            )
        if min(*axial_shape, *axial_dims) < 1:
            raise ValueError(f"axes must be at least 1, got {axial_shape} and {axial_dims}")
        self.axial_shape = tuple(axial_shape)
        self.max_length = math.prod(axial_shape)
        self.tables = nn.ParameterList(
            torch.randn(size, width) for size, width in zip(axial_shape, axial_dims, strict=True)
        )

    def forward(self, length: int) -> Float[Tensor, "length d_model"]:
        """Return the vectors of the first `length` positions."""
        _check_length(length, self.max_length)
        position = torch.arange(length, device=self.tables[0].device)
        places = torch.unravel_index(position, self.axial_shape)
        return torch.cat(
            [table[place] for table, place in zip(self.tables, places, strict=True)], dim=-1
        )


def _check_length(length: int, max_length: int) -> None:
    if not 0 < length <= max_length:
        raise ValueError(
            f"length must be 1 to max_length = {max_length}, got {length}: shorten the input or "
            f"build with a larger max_length"
        )
