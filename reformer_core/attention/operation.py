"""LSH attention as one differentiable operation: forward and backward are ours, nothing between."""

import torch
from jaxtyping import Float
from torch import Tensor

from reformer_core.attention import chunked
from reformer_core.attention.rule import Rule
from reformer_core.autograd import differentiable_once


def fused_lsh_attention(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    rule: Rule,
) -> Float[Tensor, "batch heads length d_value"]:
    """Attend over the union of a plan's rounds, without ever holding length x length.

    Equals `dense_lsh_attention`, values and gradients. Differentiable once.
    """
    with torch.autocast(qk.device.type, enabled=False):
        return _UnionSoftmax.apply(qk, values, rule)


class _UnionSoftmax(torch.autograd.Function):
    """One softmax over the pairs seen in any round; nothing is kept per round."""

    @staticmethod
    def forward(ctx, qk: Tensor, values: Tensor, rule: Rule) -> Tensor:
        out, log_total = chunked.attend(qk, values, rule)
        ctx.rule = rule
        ctx.save_for_backward(qk, values, out, log_total)
        return out.to(values.dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx, d_out: Tensor):
        qk, values, out, log_total = ctx.saved_tensors
        with torch.autocast(qk.device.type, enabled=False):
            return *chunked.gradients(d_out, qk, values, out, log_total, ctx.rule), None
