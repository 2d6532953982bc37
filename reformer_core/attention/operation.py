"""LSH attention as one operation that torch knows by name: nothing looks inside, nothing breaks.

`reformer::lsh_attention` and its backward, `reformer::lsh_attention_gradients`, are what eager
autograd, `torch.compile` and `torch.export` all see. Their arguments are plain tensors and numbers:
a `Rule` is taken apart before the call and put together again inside.
"""

from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from reformer_core.attention import chunked, triton
from reformer_core.attention.rule import Rule, accumulated_in
from reformer_core.autograd import differentiable_once
from reformer_core.bucketing import BucketPlan

_TENSORS = {
    "buckets": "Tensor",
    "order": "Tensor",
    "slot": "Tensor",
    "first": "Tensor",
    "last": "Tensor",
    "padding": "Tensor?",
    "seed": "Tensor?",
}
_NUMBERS = {
    "n_buckets": "int",
    "chunk_length": "int",
    "chunks_before": "int",
    "chunks_after": "int",
    "window": "str",
    "within_bucket": "bool",
    "causal": "bool",
    "count_repeats": "bool",
    "dropout": "float",
}
# The second: how a result lies in memory follows from the arguments, so a graph must not move them.
_TAGS = torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order
_OF_RULE = ("count_repeats", "dropout", "seed")
_OF_PLAN = tuple(name for name in (*_TENSORS, *_NUMBERS) if name not in _OF_RULE)


def fused_lsh_attention(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    rule: Rule,
) -> Float[Tensor, "batch heads length d_value"]:
    """Attend over the union of a plan's rounds, without ever holding length x length.

    Equals `dense_lsh_attention`, values and gradients. Differentiable once.
    """
    out, _ = torch.ops.reformer.lsh_attention(qk, values, *_taken_apart(rule))
    return out.to(values.dtype)


def fused_log_totals(
    qk: Float[Tensor, "batch heads length d_head"], rule: Rule
) -> Float[Tensor, "batch heads length"]:
    """Return log sum_j exp(q_i . k_j) over the pairs that a plan shows, -inf where there is none.

    With it one may weigh any pair alone: exp(q_i . k_j - log_total_i), times its count.
    """
    with torch.no_grad():
        _, log_total = torch.ops.reformer.lsh_attention(qk, qk[..., :1], *_taken_apart(rule))
    return log_total


def implementation(qk: Tensor, values: Tensor) -> ModuleType:
    """Choose who computes: a module with `attend` and `gradients`, by device."""
    if triton.available(qk.device) and triton.objection(qk, values) is None:
        return triton
    return chunked


def _attend(qk: Tensor, values: Tensor, *parts) -> tuple[Tensor, Tensor]:
    """Compute `reformer::lsh_attention`."""
    with torch.autocast(qk.device.type, enabled=False):
        results = implementation(qk, values).attend(qk, values, _put_together(*parts))
    return tuple(map(_as_announced, results))


def _gradients(
    d_out: Tensor, qk: Tensor, values: Tensor, out: Tensor, log_total: Tensor, *parts
) -> tuple[Tensor, Tensor]:
    """Compute `reformer::lsh_attention_gradients`."""
    rule = _put_together(*parts)
    with torch.autocast(qk.device.type, enabled=False):
        results = implementation(qk, values).gradients(d_out, qk, values, out, log_total, rule)
    return tuple(map(_as_announced, results))


def _attend_fake(qk: Tensor, values: Tensor, *parts) -> tuple[Tensor, Tensor]:
    """Say what `_attend` returns, without numbers."""
    dtype = accumulated_in(qk, values)
    return _like(values, dtype), qk.new_empty(qk.shape[:3], dtype=dtype)


def _gradients_fake(d_out: Tensor, qk: Tensor, values: Tensor, *rest) -> tuple[Tensor, Tensor]:
    """Say what `_gradients` returns, without numbers."""
    return _like(qk), _like(values)


def _like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Say how a result lies in memory: on a processor as x does, which saves copies of heads."""
    if x.device.type == "cpu":
        return torch.empty_like(x, dtype=dtype)
    return x.new_empty(x.shape, dtype=dtype)


def _as_announced(result: Tensor) -> Tensor:
    """Lay a result out as `_like` says."""
    return result if result.device.type == "cpu" else result.contiguous()


class _UnionSoftmax(torch.autograd.Function):
    """One softmax over the pairs seen in any round; nothing is kept per round but the plan."""

    @staticmethod
    def forward(ctx, qk: Tensor, values: Tensor, *parts) -> tuple[Tensor, Tensor]:
        # As `torch.library.register_autograd` does, which looks up every argument of the schema
        # anew in every call: with these that alone takes longer than all else here.
        with torch._C._AutoDispatchBelowAutograd():
            out, log_total = torch.ops.reformer.lsh_attention(qk, values, *parts)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(log_total)
        ctx.save_for_backward(qk, values, out, log_total, *parts[: len(_TENSORS)])
        ctx.numbers = parts[len(_TENSORS) :]
        return out, log_total

    @staticmethod
    @differentiable_once
    def backward(ctx, d_out: Tensor | None, _: None):
        nothing = (None,) * (len(_TENSORS) + len(_NUMBERS))
        if d_out is None:
            return None, None, *nothing
        saved = ctx.saved_tensors
        gradients = torch.ops.reformer.lsh_attention_gradients(d_out, *saved, *ctx.numbers)
        return *gradients, *nothing


def _taken_apart(rule: Rule) -> tuple:
    """Return a rule's tensors, then its numbers, in the order of the operation's arguments."""
    seed = torch.as_tensor(rule.seed) if rule.dropout else None
    of_rule = {"count_repeats": rule.count_repeats, "dropout": rule.dropout, "seed": seed}
    return tuple(
        of_rule[name] if name in of_rule else getattr(rule.plan, name)
        for name in (*_TENSORS, *_NUMBERS)
    )


def _put_together(*parts) -> Rule:
    """Return the rule that was taken apart."""
    named = dict(zip((*_TENSORS, *_NUMBERS), parts, strict=True))
    seed = 0 if named["seed"] is None else int(named["seed"])
    return Rule(
        plan=BucketPlan(**{name: named[name] for name in _OF_PLAN}),
        count_repeats=named["count_repeats"],
        dropout=named["dropout"],
        seed=seed,
    )


def _registered() -> torch.library.Library:
    """Make both operations known to torch, for as long as what is returned lives."""
    library = torch.library.Library("reformer", "FRAGMENT")
    rule = ", ".join(f"{kind} {name}" for name, kind in (_TENSORS | _NUMBERS).items())
    kept = "Tensor qk, Tensor values"
    signatures = {
        "lsh_attention": f"({kept}, {rule}) -> (Tensor, Tensor)",
        "lsh_attention_gradients": f"(Tensor d_out, {kept}, Tensor out, Tensor log_total, {rule})"
        " -> (Tensor, Tensor)",
    }
    real = {"lsh_attention": _attend, "lsh_attention_gradients": _gradients}
    fake = {"lsh_attention": _attend_fake, "lsh_attention_gradients": _gradients_fake}
    for name, signature in signatures.items():
        library.define(name + signature, tags=_TAGS)
        library.impl(name, real[name], "CompositeExplicitAutograd")
        torch.library.register_fake(f"reformer::{name}", fake[name], lib=library)
    library.impl("lsh_attention", _UnionSoftmax.apply, "Autograd")
    return library


_LIBRARY = _registered()
