"""Random cases that the tests of the core share: sizes, buckets, rules and padding."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st


@st.composite
def rules(draw: st.DrawFn, max_chunk_length: int = 50) -> dict:
    """Draw keywords of `plan_chunks`, every combination that is allowed and no other."""
    causal = draw(st.booleans())
    window = draw(st.sampled_from(["chunks", "sliding"]))
    before = draw(st.integers(0, 3))
    after = 0 if causal else draw(st.integers(0, 2))
    if window == "sliding" and before + after == 0:
        before = 1
    return {
        "chunk_length": draw(st.integers(1, max_chunk_length)),
        "causal": causal,
        "chunks_before": before,
        "chunks_after": after,
        "window": window,
        "within_bucket": draw(st.booleans()),
    }


@st.composite
def paddings(draw: st.DrawFn, batch: int, length: int) -> torch.Tensor | None:
    """Draw no padding, padding at the end, anywhere, or over whole rows."""
    kind = draw(st.sampled_from(["none", "end", "anywhere", "a whole row"]))
    if kind == "none":
        return None
    if kind == "end":
        real = torch.tensor([draw(st.integers(0, length)) for _ in range(batch)])
        return torch.arange(length) >= real[:, None]
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    padding = torch.from_numpy(numbers.random((batch, length)) < numbers.random())
    if kind == "a whole row":
        padding[draw(st.integers(0, batch - 1))] = True
    return padding


@st.composite
def bucketed(
    draw: st.DrawFn, max_length: int = 40, max_batch: int = 2, max_rounds: int = 3
) -> torch.Tensor:
    """Draw bucket numbers "batch heads rounds length": many buckets, few, or one."""
    batch, heads = draw(st.integers(1, max_batch)), draw(st.integers(1, 2))
    rounds, length = draw(st.integers(1, max_rounds)), draw(st.integers(1, max_length))
    n_buckets = draw(st.sampled_from([1, 2, 3, 6, 16]))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return torch.from_numpy(numbers.integers(0, n_buckets, (batch, heads, rounds, length)))


@st.composite
def planned(draw: st.DrawFn, **sizes: int) -> tuple[torch.Tensor, dict]:
    """Draw buckets and the keywords of `plan_chunks`, padding included."""
    buckets = draw(bucketed(**sizes))
    rule = draw(rules())
    rule["padding"] = draw(paddings(buckets.shape[0], buckets.shape[-1]))
    return buckets, rule


@dataclass(frozen=True)
class AttentionCase:
    """Inputs, plan, options and output gradient of one attention, in float64."""

    qk: torch.Tensor
    values: torch.Tensor
    d_out: torch.Tensor
    buckets: torch.Tensor
    rule: dict
    count_repeats: bool
    dropout: float
    seed: int


@st.composite
def attention_cases(draw: st.DrawFn, max_length: int = 24) -> AttentionCase:
    """Draw everything that LSH attention may be given, awkward vectors included."""
    buckets, rule = draw(planned(max_length=max_length, max_rounds=5))
    batch, heads, _, length = buckets.shape
    d_head, d_value = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    qk = numbers.standard_normal((batch, heads, length, d_head))
    qk *= draw(st.sampled_from([0.01, 1.0, 1.0, 30.0]))
    kind = draw(st.sampled_from(["any", "any", "equal", "zero rows"]))
    if kind == "equal":
        qk[:] = qk[:, :, :1]
    if kind == "zero rows":
        qk[numbers.random((batch, heads, length)) < 0.3] = 0
    values, d_out = numbers.standard_normal((2, batch, heads, length, d_value))
    return AttentionCase(
        qk=torch.from_numpy(qk),
        values=torch.from_numpy(values),
        d_out=torch.from_numpy(d_out),
        buckets=buckets,
        rule=rule,
        count_repeats=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.0, 0.3, 0.8])),
        seed=draw(st.integers(0, 2**62 - 1)),
    )
