"""Products with weights, by whoever multiplies faster: on a processor oneDNN where they are large.

torch multiplies float32 by MKL. oneDNN, which comes with torch as well, adds the bias on the way
and is up to a fifth faster where MKL was not made for the processor.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import _get_current_dispatch_mode

_WORTH_IT = 1 << 25
"""Fewer multiplications take about as long by either, and small ones longer by oneDNN."""


class Linear(nn.Linear):
    """`torch.nn.Linear`, computed by `linear`."""

    def forward(self, x: Float[Tensor, "*batch inside"]) -> Float[Tensor, "*batch outside"]:
        """Return x W^T + b."""
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*batch inside"],
    weight: Float[Tensor, "outside inside"],
    bias: Float[Tensor, " outside"] | None = None,
) -> Float[Tensor, "*batch outside"]:
    """Return x W^T + b: what `torch.nn.functional.linear` returns, and its derivatives."""
    if _large(x, weight) and _plain(x, weight, bias):
        return _ByOneDNN.apply(x, weight, bias)
    return functional.linear(x, weight, bias)


def linear_gelu(
    x: Float[Tensor, "*batch inside"],
    weight: Float[Tensor, "outside inside"],
    bias: Float[Tensor, " outside"] | None = None,
) -> Float[Tensor, "*batch outside"]:
    """Return gelu(x W^T + b), without a gradient where oneDNN applies both at once."""
    if not torch.is_grad_enabled() and _large(x, weight) and _plain(x, weight, bias):
        return _multiply(x, weight, bias, "gelu")
    return functional.gelu(linear(x, weight, bias))


def _large(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and weight.dim() == 2 <= x.dim()
        and x.numel() * weight.shape[0] >= _WORTH_IT
    )


def _plain(*tensors: Tensor | None) -> bool:
    """Say whether these are oneDNN's to multiply, and nobody looks at every operation."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None
        and _get_current_dispatch_mode() is None
        and all(
            tensor is None
            or (
                type(tensor) in (Tensor, nn.Parameter)
                and tensor.device.type == "cpu"
                and tensor.dtype == torch.float32
            )
            for tensor in tensors
        )
    )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none") -> Tensor:
    """Return x W^T + b, or what comes of it then, as `torch.compile` computes it on a processor."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none")


class _ByOneDNN(torch.autograd.Function):
    """x W^T + b, any number of times differentiable."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        flat = d_out.flatten(0, -2)
        return (
            linear(d_out, weight.t()) if wants_x else None,
            flat.t() @ x.flatten(0, -2) if wants_weight else None,
            flat.sum(0) if wants_bias else None,
        )

    @staticmethod
    def jvp(ctx, x_dot: Tensor, weight_dot: Tensor | None, bias_dot: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        parts = [
            None if x_dot is None else linear(x_dot, weight),
            None if weight_dot is None else linear(x, weight_dot),
            bias_dot,
        ]
        return sum(part for part in parts if part is not None)
