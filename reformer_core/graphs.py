"""What a traced graph needs that is to be right for any length: nothing in it may ask how long.

Eager code may choose by the length: whether a sequence fits one tile, whether a cut tensor can be
seen in another shape without a copy. While `torch.compile` or `torch.export` traces, the length is
a symbol, and every such question would pin the graph to the lengths with the same answer.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor


def tracing() -> bool:
    """Say whether this code is becoming part of a graph."""
    return torch.compiler.is_compiling()


def n_pieces(length: int, piece: int) -> int:
    """Return how many pieces hold a sequence; in a graph one more, as one or more is a question."""
    return (length + piece - 1) // piece + int(tracing())


def filled(
    x: Shaped[Tensor, "rows length width"], start: int, stop: int
) -> Shaped[Tensor, "rows filled width"]:
    """Return the places from `start` to `stop` of the second axis, which may lie beyond its ends.

    What stands there is finite and nobody's: zeros, and in a graph the nearest place again.
    """
    length = x.shape[1]
    if tracing():
        return x.index_select(1, torch.arange(start, stop, device=x.device).clamp(0, length - 1))
    if start == 0 and stop == length:
        return x
    edges = (x.new_zeros(x.shape[0], more, x.shape[2]) for more in (-start, stop - length))
    return torch.cat([next(edges), x, *edges], 1)  # `pad` would write twice what it copies


def rows_of(
    x: Shaped[Tensor, "batch heads length width"],
) -> Shaped[Tensor, "heads*batch length width"]:
    """Return the heads one below the other: a view where there is one, and in a graph a copy."""
    return torch.cat(x.unbind(1)) if tracing() else x.transpose(0, 1).flatten(0, 1)


def untiled(
    x: Shaped[Tensor, "rows tiles tile width"], length: int
) -> Shaped[Tensor, "rows length width"]:
    """Return the first `length` places of all tiles, one tile after the other."""
    if tracing():
        place = torch.arange(length, device=x.device)
        return x[:, place // x.shape[2], place % x.shape[2]]
    return x.flatten(1, 2)[:, :length]
