"""Cases for the fused kernels, on a GPU or, run as a program, under Triton's interpreter.

Triton reads TRITON_INTERPRET as it is imported, so that the interpreter needs a process of its own.
It prints, for every case, the worst errors and the bounds that they must keep.
"""

import json
import mmap
import os
import sys
from collections.abc import Callable

if __name__ == "__main__":  # shapes are checked here as in the other tests
    os.environ["TRITON_INTERPRET"] = "1"
    from jaxtyping import install_import_hook

    install_import_hook("reformer_core", "beartype.beartype")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_core.attention import chunked, dense_lsh_attention
from reformer_core.attention import triton as fused
from reformer_core.attention.rule import Rule
from reformer_core.bucketing import BucketPlan, plan_chunks
from tests.core.strategies import attention_cases

CASES: dict[str, Callable[["Errors"], None]] = {}
CPU = torch.device("cpu")
EXAMPLES = 60
SMALL_TILES = [(32, 16), (16, 32), (32, 16)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE, which Python names from 3.13 on


def case(function: Callable) -> Callable:
    """List a function among the cases, under its name."""
    CASES[function.__name__] = function
    return function


class Errors:
    """The worst errors so far, as shares of what the dtype and the sizes of the inputs allow."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.worst: dict[str, float] = {}

    def note(self, what: str, share: float) -> None:
        """Keep the larger of an error and the worst so far; what is no number is infinite."""
        share = float("inf") if share != share else share
        self.worst[what] = max(share, self.worst.get(what, 0.0))

    def compare(self, what: str, got: torch.Tensor, truth: torch.Tensor, bound: float) -> None:
        """Note the largest difference, relative where the truth is above 1."""
        got, truth = got.cpu().double(), truth.double()
        if truth.numel():
            error = ((got - truth).abs().max() / truth.abs().max().clamp_min(1)).item()
            self.note(what, error / bound)


def moved(plan: BucketPlan, device: torch.device) -> BucketPlan:
    """Make the same plan on a device."""
    padding = None if plan.padding is None else plan.padding.to(device)
    return plan_chunks(plan.buckets.to(device), **plan.rule() | {"padding": padding})


def allowed(qk: torch.Tensor, values: torch.Tensor) -> float:
    """Bound the error by rounding: weights to the inputs' dtype, scores to float32.

    A score is as large as the longest query, and its rounding moves weights by as much again.
    """
    coarse = max(torch.finfo(part.dtype).eps for part in (qk, values))
    longest = torch.linalg.vector_norm(qk.double(), dim=-1).max().item()
    return 8 * coarse + 2 * torch.finfo(torch.float32).eps * (1 + longest)


def check(errors: Errors, qk, values, d_out, rule: Rule) -> None:
    """Compare the kernels with the definition in float64, and with the chunked way."""
    options = {"count_repeats": rule.count_repeats, "dropout": rule.dropout, "seed": rule.seed}
    leaves = qk.double().requires_grad_(), values.double().requires_grad_()
    truth = dense_lsh_attention(*leaves, rule.plan, **options)
    truths = truth.detach(), *torch.autograd.grad(truth, leaves, d_out.double())

    here = Rule(plan=moved(rule.plan, errors.device), **options)
    inputs = qk.to(errors.device), values.to(errors.device)
    out, log_total = fused.attend(*inputs, here)
    got = out, *fused.gradients(d_out.to(errors.device), *inputs, out, log_total, here)
    assert [part.dtype for part in got] == [torch.float32, qk.dtype, values.dtype]
    assert log_total.dtype == torch.float32

    in_chunks, log_total_in_chunks = chunked.attend(qk.float(), values.float(), rule)
    bound = allowed(qk, values)
    for name, part, true in zip(("out", "d_qk", "d_values"), got, truths, strict=True):
        errors.compare(name, part, true, bound)
    errors.compare("out in chunks", out, in_chunks, bound)
    alone = log_total_in_chunks == -torch.inf
    errors.note("who is alone", float((alone != (log_total.cpu() == -torch.inf)).any()))
    errors.compare(
        "log_total",
        log_total.cpu().masked_fill(alone, 0),
        log_total_in_chunks.masked_fill(alone, 0),
        bound,
    )


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(batch=1, heads=1, length=40, d_head=16, d_value=16, dtype=torch.float32):
    """Draw qk, values and d_out, longer than a tile in the interpreter."""
    shape = batch, heads, length
    widths = d_head, d_value, d_value
    return [random(*shape, w, seed=seed, dtype=dtype) for seed, w in enumerate(widths)]


def planned(qk: torch.Tensor, rounds=2, n_buckets=3, **rule) -> BucketPlan:
    shape = *qk.shape[:2], rounds, qk.shape[2]
    buckets = torch.randint(n_buckets, shape, generator=torch.Generator().manual_seed(9))
    return plan_chunks(buckets, **{"chunk_length": 8, "causal": True} | rule)


def check_rules(errors: Errors, qk, values, d_out, **rule) -> None:
    """Check one case both causal and not, with and without repeats and dropout."""
    for causal, repeats, dropout in ((True, False, 0.3), (False, True, 0.0)):
        plan = planned(qk, causal=causal, **rule)
        told = Rule(plan=plan, count_repeats=repeats, dropout=dropout, seed=3 << 40)
        check(errors, qk, values, d_out, told)


# ---------------------------------------------------------------- the cases


@case
def random_cases(errors):
    """Random sizes, buckets, window rules, padding, repeats, dropout and dtypes."""

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
    @given(attention_cases(max_length=40), st.sampled_from(DTYPES))
    def run(drawn, dtype):
        rule = Rule(
            plan=plan_chunks(drawn.buckets, **drawn.rule),
            count_repeats=drawn.count_repeats,
            dropout=drawn.dropout,
            seed=drawn.seed,
        )
        check(errors, *(part.to(dtype) for part in (drawn.qk, drawn.values, drawn.d_out)), rule)

    run()


@case
def length_one(errors):
    check_rules(errors, *inputs(length=1))


@case
def one_round(errors):
    check_rules(errors, *inputs(), rounds=1)


@case
def five_rounds(errors):
    check_rules(errors, *inputs(), rounds=5)


@case
def several_batches_and_heads(errors):
    check_rules(errors, *inputs(batch=2, heads=3, length=20))


@case
def all_padding(errors):
    check_rules(errors, *inputs(), padding=torch.ones(1, 40, dtype=torch.bool))


@case
def a_row_of_padding_and_a_padded_end(errors):
    padding = torch.arange(20) >= torch.tensor([[0], [13]])
    check_rules(errors, *inputs(batch=2, length=20), padding=padding)


@case
def what_stands_in_padding_is_never_read(errors):
    qk, values, d_out = inputs(batch=2, length=20)
    padding = torch.arange(20) >= torch.tensor([[15], [13]])
    rule = Rule(plan=moved(planned(qk, padding=padding), errors.device))
    results = []
    for number in (0.0, float("nan"), float("inf")):
        stuffed = [
            part.masked_fill(padding[:, None, :, None], number).to(errors.device)
            for part in (qk, values, d_out)
        ]
        out, log_total = fused.attend(*stuffed[:2], rule)
        gradients = fused.gradients(stuffed[2], *stuffed[:2], out, log_total, rule)
        results.append((out, log_total, *gradients))
    for others in results[1:]:
        same = all(torch.equal(*pair) for pair in zip(results[0], others, strict=True))
        errors.note("whatever it is", float(not same))


@case
def no_sequences(errors):
    qk, values, d_out = (part[:0].to(errors.device) for part in inputs())
    rule = Rule(plan=planned(qk))
    out, log_total = fused.attend(qk, values, rule)
    got = out, *fused.gradients(d_out, qk, values, out, log_total, rule)
    same = [part.shape for part in got] == [values.shape, qk.shape, values.shape]
    errors.note("shapes", float(not same))


@case
def zero_rows(errors):
    qk, values, d_out = inputs()
    qk[:, :, ::3] = 0
    check_rules(errors, qk, values, d_out)


@case
def all_vectors_equal(errors):
    qk, values, d_out = inputs()
    check_rules(errors, qk[:, :, :1].expand_as(qk).clone(), values, d_out, n_buckets=1)


@case
def everyone_alone(errors):
    check_rules(errors, *inputs(length=20), n_buckets=10**6)


@case
def huge_vectors(errors):
    qk, values, d_out = inputs()
    check_rules(errors, 1000 * qk, values, d_out)


@case
def across_buckets(errors):
    for window in ("chunks", "sliding"):
        check_rules(errors, *inputs(), within_bucket=False, window=window)


@case
def a_chunk_longer_than_the_sequence(errors):
    check_rules(errors, *inputs(), chunk_length=10**9)


@case
def widths_that_are_no_power_of_two(errors):
    check_rules(errors, *inputs(d_head=24, d_value=5))
    check_rules(errors, *inputs(d_head=48, d_value=96, length=20))


@case
def widths_between_32_and_96_and_beyond(errors):
    for d_head, d_value in ((48, 48), (80, 96), (112, 40)):
        dtype = torch.float16 if d_head == 80 else torch.float32
        check_rules(errors, *inputs(length=20, d_head=d_head, d_value=d_value, dtype=dtype))


@case
def the_widest_heads(errors):
    for dtype in (torch.float32, torch.float16):
        check_rules(errors, *inputs(d_head=128, d_value=100, dtype=dtype))


@case
def one_dtype_for_qk_and_another_for_values(errors):
    qk, values, d_out = inputs()
    check_rules(errors, qk.half(), values, d_out)
    check_rules(errors, qk, values.bfloat16(), d_out.bfloat16())


@case
def d_out_in_float32_for_half_inputs(errors):
    qk, values, d_out = inputs(dtype=torch.float16)
    check_rules(errors, qk, values, d_out.float())


@case
def strided_inputs(errors):
    qk, values, d_out = inputs(batch=2, length=20)
    qk = qk.transpose(1, 2).contiguous().transpose(1, 2)  # as a projection leaves its heads
    values = values.transpose(2, 3).contiguous().transpose(2, 3)  # vectors that lie apart
    d_out = d_out[:, :1, :1].expand_as(d_out)  # as a sum's gradient is
    check_rules(errors, qk, values, d_out)
    padding = torch.arange(20) % torch.tensor([[7], [3]]) == 0
    transposed = padding.T.contiguous().T
    expanded = padding[:1].expand(2, -1)
    for strided in (transposed, expanded):
        assert not strided.is_contiguous()
        check_rules(errors, qk, values, d_out, padding=strided)


@case
def strides_and_addresses_that_16_does_not_divide(errors):
    for width in (16, 19):
        whole = random(40 * (3 * width + 1) + 1)
        parts = [
            whole[1:].view(1, 1, 40, 3 * width + 1)[..., part * width :][..., :width]
            for part in range(3)
        ]
        check_rules(errors, *parts)


@case
def the_coins_are_those_of_the_definition(errors):
    qk, _, _ = inputs(heads=2, length=20)
    identity = torch.eye(20).expand(1, 2, 20, 20)
    for seed in (0, 1, (1 << 62) - 1, 0x89ABCDEF01234567 >> 2):
        options = {"dropout": 0.5, "seed": seed}
        plan = planned(qk, n_buckets=1, chunk_length=20)
        kept = dense_lsh_attention(qk, identity, plan, **options) != 0
        rule = Rule(plan=moved(plan, errors.device), **options)
        weights = fused.attend(qk.to(errors.device), identity.to(errors.device), rule)[0]
        errors.note("coins", float((kept != (weights.cpu() != 0)).any()))


@case
def vectors_that_lie_farther_apart_than_32_bits_count(errors):
    qk, values, d_out = inputs(length=20)
    apart = 1 << 27  # times 20 positions; on a CPU only what is touched takes memory
    far = [spread(part, apart, errors.device) for part in (qk.half(), values.half())]
    plan = moved(planned(qk), errors.device)
    rule = Rule(plan=plan)
    near = [part.contiguous() for part in far]
    d_out = d_out.half().to(errors.device)
    results = []
    for pair in (far, near):
        out, log_total = fused.attend(*pair, rule)
        results.append((out, log_total, *fused.gradients(d_out, *pair, out, log_total, rule)))
    same = all(torch.equal(*pair) for pair in zip(*results, strict=True))
    errors.note("far apart = side by side", float(not same))


def spread(vectors: torch.Tensor, apart: int, device: torch.device) -> torch.Tensor:
    """Lay the vectors of one head far apart in memory that is mostly never touched."""
    span = (vectors.shape[2] - 1) * apart + vectors.shape[3]
    if device.type == "cuda":
        storage = torch.empty(span, dtype=vectors.dtype, device=device)
    else:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        storage = torch.frombuffer(
            mmap.mmap(-1, span * vectors.itemsize, flags=flags), dtype=vectors.dtype
        )
    far = storage.as_strided(vectors.shape, (span, span, apart, 1))
    return far.copy_(vectors)


def errors_of(name: str, device: torch.device = CPU) -> dict[str, float]:
    """Run one case and return its worst errors, as shares of what is allowed."""
    errors = Errors(device)
    CASES[name](errors)
    return errors.worst


def small_tiles(*sizes) -> dict:
    """Choose tiles for the interpreter, which runs any: small ones meet more borders."""
    chosen = _tiling(*sizes)
    for tiles, (queries, keys) in zip(chosen.values(), SMALL_TILES, strict=True):
        tiles.update(BLOCK_M=queries, BLOCK_N=keys)
    return chosen


_tiling = fused.tiling

if __name__ == "__main__":
    fused.tiling = small_tiles
    sys.stdout.write(json.dumps({name: errors_of(name) for name in sys.argv[1:] or CASES}))
