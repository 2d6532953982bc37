"""Whether the peers are used as they are meant to be: each equals a dense oracle of its own rules.

`python -m tests.benchmarks --check`, in the environment that has the peers.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reformer_core import dense_lsh_attention, plan_chunks
from tests.benchmarks.attention import ATTENTION, hugging_face, lucidrains, prepare_products
from tests.benchmarks.case import Case, NotHereError
from tests.benchmarks.training import hugging_face_model, our_model

CASE = Case(length=64, n_hashes=3, n_heads=2, d_head=8, chunk_length=8, dtype="float64")
_TOLERANCE = 1e-6  # lucidrains counts repeats as a logarithm with 1e-9 inside


def worst(got: Tensor, wanted: Tensor, leaves: tuple[Tensor, ...]) -> float:
    """Return how far two outputs, or their gradients by the leaves, are apart."""
    d_out = torch.randn_like(wanted)
    gradients = (torch.autograd.grad(out, leaves, d_out) for out in (got, wanted))
    pairs = [(got, wanted), *zip(*gradients, strict=True)]
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def lucidrains_error(**how: bool) -> float:
    """Compare lucidrains with ours over its own buckets: its look-back never leaves a round."""
    qk, values = CASE.qk_and_values(CASE.n_heads, CASE.length, CASE.d_head)
    got, _, numbered = lucidrains(CASE, **how)(qk, values)
    n_buckets = CASE.length // CASE.chunk_length * (1 if how.get("own_buckets") else 2)
    buckets = numbered.view(1, CASE.n_heads, CASE.n_hashes, CASE.length) % n_buckets
    assert int(buckets.max()) >= n_buckets // 2, "all of the buckets are used"
    plan = plan_chunks(buckets, chunk_length=CASE.chunk_length, causal=True, n_buckets=n_buckets)
    scaled = qk[None] / CASE.d_head**0.5  # the keys are of unit length all the same
    wanted = dense_lsh_attention(
        scaled, values[None], plan, count_repeats=not how.get("once", False)
    )
    return worst(got, wanted[0], (qk, values))


def hugging_face_error() -> float:
    """Compare Hugging Face with a softmax over its windows, which wrap around."""
    qk, values = CASE.qk_and_values(1, CASE.length, CASE.n_heads * CASE.d_head)
    attention = hugging_face(CASE, values)
    attention.hash_seed = 5
    got = attention(qk).hidden_states
    per_head = [
        part.view(CASE.length, CASE.n_heads, CASE.d_head).transpose(0, 1) for part in (qk, values)
    ]
    buckets = attention._hash_vectors(per_head[0][None], CASE.n_hashes, None)[0]
    heads = [_in_windows(*parts) for parts in zip(*per_head, buckets, strict=True)]
    return worst(got, torch.stack(heads, 1).reshape(got.shape), (qk, values))


def _in_windows(qk: Tensor, values: Tensor, buckets: Tensor) -> Tensor:
    """Attend as Hugging Face's rules say, one head, dense."""
    chunks = (buckets.argsort(stable=True) % CASE.length).view(-1, CASE.chunk_length)
    seen = torch.zeros(CASE.length, CASE.length, dtype=qk.dtype)
    for before, own in zip(chunks.roll(1, 0), chunks, strict=True):
        for key in torch.cat([before, own]):
            seen[own, key] += 1
    seen = seen.tril(-1)
    keys = qk / (qk.square().mean(-1, keepdim=True) + 1e-6).sqrt() / CASE.d_head**0.5
    alone = (seen == 0).all(-1, keepdim=True)
    weights = torch.softmax((qk @ keys.T + seen.log()).masked_fill(alone, 0), -1)
    return torch.where(alone, values, weights @ values)


def model_difference() -> float:
    """Compare the numbers of parameters of both language models."""
    case = Case(part="training", length=1024, n_heads=4)
    ours, theirs = (
        sum(parameter.numel() for parameter in make(case).parameters())
        for make in (our_model, hugging_face_model)
    )
    return abs(ours - theirs)


def products_difference() -> float:
    """Compare the operations of the bound with seven products of every tile."""
    with FlopCounterMode(display=False) as counted:
        prepare_products(CASE).step()
    tiles = CASE.n_heads * CASE.n_hashes * CASE.length // CASE.chunk_length
    each = 2 * CASE.chunk_length * 2 * CASE.chunk_length * CASE.d_head
    return abs(counted.get_total_flops() - 7 * each * tiles)


def unable_in_bfloat16() -> float:
    """Count who fails at a step in bfloat16, which on CUDA everybody computes in."""
    unable = 0
    for contestant in ATTENTION:
        with suppress(NotHereError):
            try:
                contestant.prepare(Case(length=256, n_hashes=2, dtype="bfloat16")).step()
            except RuntimeError:
                unable += 1
    return unable


CHECKS: dict[str, Callable[[], float]] = {
    "lucidrains, each pair once": lambda: lucidrains_error(once=True),
    "lucidrains, repeats counted": lucidrains_error,
    "lucidrains, its own buckets": lambda: lucidrains_error(own_buckets=True),
    "Hugging Face": hugging_face_error,
    "who fails in bfloat16": unable_in_bfloat16,
    "parameters of the models": model_difference,
    "operations of the bound": products_difference,
}


def errors() -> Iterator[tuple[str, float]]:
    """Yield every check with what it found."""
    for name, measure in CHECKS.items():
        torch.manual_seed(0)
        yield name, measure()


def check() -> int:
    """Print what every check found; return 1 if one is off."""
    found = dict(errors())
    for name, error in found.items():
        print(f"{'ok ' if error <= _TOLERANCE else 'OFF'} {name}: {error:.3g}")
    return int(max(found.values()) > _TOLERANCE)
