"""What our own autograd functions share: they are differentiable once, and say so."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


def differentiable_once(backward: Callable[..., tuple]) -> Callable[..., tuple]:
    """Let a backward that computes numbers, and no graph, refuse to be asked for a graph.

    Like torch's `once_differentiable`, but it refuses at the first backward: where the gradient
    that arrives is a constant, torch's would silently leave this function's part out of the second.
    """

    @wraps(backward)
    def checked(ctx, *gradients: Tensor | None) -> tuple:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "LSH attention and the reversible stack can be differentiated once, got "
                "create_graph=True: for second derivatives build the model with reversible=False "
                "and attention=('full',), or use dense_lsh_attention"
            )
        return backward(ctx, *gradients)

    return checked
