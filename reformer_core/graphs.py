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
    return (length + piece - 1) // piece + tracing()


def settled(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return the tensor itself, and in a graph a copy whose layout follows from its shape."""
    return x.clone(memory_format=torch.contiguous_format) if tracing() else x


def rows_of(
    x: Shaped[Tensor, "batch heads ..."],
) -> Shaped[Tensor, "heads*batch ..."]:
    """Return the heads one below the other: a view where there is one, and in a graph a copy."""
    return torch.cat(x.unbind(1)) if tracing() else x.transpose(0, 1).flatten(0, 1)


def cut(x: Shaped[Tensor, "rows filled ..."], length: int) -> Shaped[Tensor, "rows length ..."]:
    """Return the first `length` places of the second axis: a view, and in a graph a copy."""
    if tracing():
        return x.index_select(1, torch.arange(length, device=x.device))
    return x[:, :length]
