"""Feed-forward in pieces along the length: its wide middle never exists as a whole (Sec. 3)."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.checkpoint import checkpoint

from reformer_core.graphs import filled, n_pieces, tracing
from reformer_core.linear import Linear, linear_gelu

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


def in_pieces(
    position_wise: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch length d_model"],
    n_chunks: int,
) -> Float[Tensor, "batch length d_out"]:
    """Apply a function of single positions piece by piece, forward and backward.

    The result does not depend on `n_chunks` (only dropout's masks do: each piece draws its own).
    Where a gradient will be asked for, a piece keeps its input only and is computed again when its
    turn comes in the backward.
    """
    if n_chunks == 1:
        return position_wise(x)
    pieces = _equal_pieces(x, n_chunks) if tracing() else x.chunk(n_chunks, dim=1)
    if torch.is_grad_enabled():
        done = [checkpoint(position_wise, piece, use_reentrant=False) for piece in pieces]
    else:
        done = [position_wise(piece) for piece in pieces]
    done = torch.cat(done, dim=1)
    return filled(done, 0, x.shape[1]) if tracing() else done


def _equal_pieces(
    x: Float[Tensor, "batch length d_model"], n_chunks: int
) -> tuple[Float[Tensor, "batch piece d_model"], ...]:
    """Cut a sequence into exactly `n_chunks` pieces of one size, the last ones filled up.

    `Tensor.chunk` may return fewer, and a graph of any length must know how many there are.
    """
    size = n_pieces(x.shape[1], n_chunks)
    return tuple(filled(x, i * size, (i + 1) * size) for i in range(n_chunks))


class _Piece(nn.Sequential):
    """What is done to a piece of the sequence, its middle by one operation where nobody looks."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not self._middle_is_gelu():
            return super().forward(x)
        middle = linear_gelu(self.norm(x), self.w_in.weight, self.w_in.bias)
        return self.dropout_out(self.w_out(middle))

    def _middle_is_gelu(self) -> bool:
        """Say whether between w_in and w_out there is GELU, no dropout, and nobody else's code."""
        dropout, activation = self.dropout_in, self.activation
        return (
            type(self.w_in) is Linear
            and type(activation) is nn.GELU
            and activation.approximate == "none"
            and not (dropout.training and dropout.p)
            and not _has_any_global_hook()
            and not any(
                module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
                for module in (self.w_in, dropout, activation)
            )
        )


class FeedForward(nn.Module):
    """Two linear layers over every position by itself, after layer normalisation.

    `piece` is the function of one piece of the sequence; `n_chunks` says how many pieces are taken
    in turn. A replay (`reversible.py`) runs the same pieces forward and backward one by one.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: str = "gelu",
        n_chunks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {tuple(ACTIVATIONS)}, got {activation!r}")
        if n_chunks < 1:
            raise ValueError(f"n_chunks must be at least 1, got {n_chunks}")
        self.n_chunks = n_chunks
        self.piece = _Piece(
            OrderedDict(
                norm=nn.LayerNorm(d_model),
                w_in=Linear(d_model, d_ff),
                dropout_in=nn.Dropout(dropout),
                activation=ACTIVATIONS[activation](),
                w_out=Linear(d_ff, d_model),
                dropout_out=nn.Dropout(dropout),
            )
        )

    def forward(
        self, x: Float[Tensor, "batch length d_model"]
    ) -> Float[Tensor, "batch length d_model"]:
        """Return the change that feed-forward makes to every position."""
        return in_pieces(self.piece, x, self.n_chunks)
