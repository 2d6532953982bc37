"""Angular locality-sensitive hashing: vectors that point the same way share a bucket (Sec. 2)."""

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from jaxtyping import Float, Int
from torch import Tensor

Buckets = int | tuple[int, ...]
"""How many buckets a round has: an even number, or even factors whose product it is."""

FACTOR_ABOVE = 128
"""More buckets than this are written as a product: 2 * 16 directions tell 16 * 16 buckets apart."""

EVALUATION = -1
"""The `step` whose rotations are used outside training, so that a metric repeats."""

# How many projected numbers exist at once, so that hashing is linear in memory whatever n_buckets
# is: on a processor few enough for its cache.
_NUMBERS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}


def default_n_buckets(max_length: int, chunk_length: int) -> Buckets:
    """Choose 2 * ceil(max_length / chunk_length) buckets, so that a bucket fills half a chunk.

    Depends on the longest length only, never on the present one: hashes must not change when a
    sequence grows by a token. Above 128 the number is factored into two even factors of similar
    size, exactly where such factors exist and otherwise the next larger product.
    """
    n_buckets = 2 * math.ceil(max_length / chunk_length)
    if n_buckets <= FACTOR_ABOVE:
        return n_buckets
    root = math.isqrt(n_buckets) // 2 * 2
    for factor in range(root, root // 2, -2):
        if n_buckets % (2 * factor) == 0:
            return factor, n_buckets // factor
    return root, 2 * math.ceil(n_buckets / (2 * root))


def factors_of(n_buckets: Buckets) -> tuple[int, ...]:
    """Return the factors of a bucket count, each checked to be even and positive."""
    factors = tuple(n_buckets) if isinstance(n_buckets, Sequence) else (n_buckets,)
    if not factors:
        raise ValueError("n_buckets must have at least one factor, got (): say 64 or (8, 8)")
    for factor in factors:
        if not isinstance(factor, Integral):
            raise ValueError(
                f"n_buckets must be a whole number or a tuple of them, got {n_buckets!r}: say 64 "
                "or (8, 8)"
            )
        if factor < 2 or factor % 2:
            raise ValueError(
                f"n_buckets must be even and positive, got {factor}: buckets come in opposite pairs"
            )
    return tuple(map(int, factors))  # torch's operations take no other whole numbers


def hash_generator(hash_seed: int, layer: int, step: int) -> torch.Generator:
    """Make the generator of one layer's rotations at one training step (or at EVALUATION).

    The same three numbers give the same rotations on any machine, and the global generator is
    neither read nor moved: the reversible backward replays dropout from it.
    """
    word = (1 << 64) - 1
    mixed = 0
    for number in (hash_seed, layer, step):
        mixed = ((mixed ^ (number & word)) * 0x9E3779B97F4A7C15 + 1) & word
        mixed ^= mixed >> 29
    return torch.Generator().manual_seed(mixed >> 1)


def draw_rotations(
    n_hashes: int,
    n_heads: int,
    d_head: int,
    n_buckets: Buckets,
    generator: torch.Generator,
) -> Float[Tensor, "heads rounds d_head half_buckets"]:
    """Draw Gaussian directions R for every head and round; half_buckets is half the factors' sum.

    Gaussian entries, not orthonormalised, as the authors' code has them: argmax asks only for
    directions spread evenly over the sphere.
    """
    for name, number in (("n_hashes", n_hashes), ("n_heads", n_heads), ("d_head", d_head)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    half = sum(factors_of(n_buckets)) // 2
    shape = n_heads, n_hashes, d_head, half
    return torch.randn(shape, generator=generator, device=generator.device)


def rotations_at(
    step: Int[Tensor, ""],
    hash_seed: int,
    layer: int,
    n_hashes: int,
    n_heads: int,
    d_head: int,
    n_buckets: Buckets,
) -> Float[Tensor, "heads rounds d_head half_buckets"]:
    """Draw the rotations of a step that only a tensor knows, as one operation.

    They are those of `draw_rotations` with `hash_generator(hash_seed, layer, step)`, on the step's
    device; neither a generator nor reading the number can be part of a graph.
    """
    sizes = n_hashes, n_heads, d_head
    return _rotations_at(step, hash_seed, layer, *sizes, factors_of(n_buckets))


@torch.library.custom_op(
    "reformer::rotations_at",
    mutates_args=(),
    schema="(Tensor step, int hash_seed, int layer, int n_hashes, int n_heads, int d_head,"
    " int[] factors) -> Tensor",
)
def _rotations_at(
    step: Tensor,
    hash_seed: int,
    layer: int,
    n_hashes: int,
    n_heads: int,
    d_head: int,
    factors: Sequence[int],
) -> Tensor:
    generator = hash_generator(hash_seed, layer, int(step))
    drawn = draw_rotations(n_hashes, n_heads, d_head, tuple(factors), generator)
    return drawn.to(step.device)


@_rotations_at.register_fake
def _(
    step: Tensor,
    hash_seed: int,
    layer: int,
    n_hashes: int,
    n_heads: int,
    d_head: int,
    factors: Sequence[int],
) -> Tensor:
    shape = n_heads, n_hashes, d_head, sum(factors) // 2
    return step.new_empty(shape, dtype=torch.float32)


def hash_vectors(
    vectors: Float[Tensor, "batch heads length d_head"],
    rotations: Float[Tensor, "heads rounds d_head half_buckets"],
    n_buckets: Buckets | None = None,
) -> Int[Tensor, "batch heads rounds length"]:
    """Number the bucket of every vector in every round: argmax([xR; -xR]), Sec. 2 of the paper.

    Only direction matters: scaling a vector never moves it, negating it moves it to the opposite
    bucket. Rounds are independent, each numbering its buckets from 0. No gradient flows: a bucket
    is a choice, not a quantity. With factored `n_buckets` a bucket is one choice per factor, and
    its number sum_k choice_k * (product of the earlier factors).

    Raises ValueError when `n_buckets`, the vectors and the rotations disagree.
    """
    heads, _, d_head, half = rotations.shape
    if vectors.dim() != 4 or vectors.shape[1] != heads or vectors.shape[3] != d_head:
        raise ValueError(
            f"vectors must be (batch, heads, length, d_head) with the rotations' {heads} heads of "
            f"{d_head}, got {tuple(vectors.shape)}: draw rotations for these heads"
        )
    factors = factors_of(2 * half if n_buckets is None else n_buckets)
    if sum(factors) != 2 * half:
        raise ValueError(
            f"rotations must have half of n_buckets' factors as directions: {n_buckets} needs "
            f"{sum(factors) // 2}, got {half}; draw them with the same n_buckets"
        )
    return _hash_vectors(vectors.detach(), rotations.detach(), factors)


@torch.library.custom_op(
    "reformer::hash_vectors",
    mutates_args=(),
    schema="(Tensor vectors, Tensor rotations, int[] factors) -> Tensor",
)
def _hash_vectors(vectors: Tensor, rotations: Tensor, factors: Sequence[int]) -> Tensor:
    """Number buckets part by part; one operation, so that a graph has no parts to count."""
    batch, heads, length, _ = vectors.shape
    rounds, half = rotations.shape[1], rotations.shape[-1]
    buckets = vectors.new_empty((batch * heads, rounds, length), dtype=torch.int64)
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.flatten(0, 1).to(torch.promote_types(vectors.dtype, torch.float32))
        directions = rotations.to(vectors).mT.flatten(1, 2).repeat(batch, 1, 1)

        for rows, positions in _parts(vectors, rounds * half):
            projected = torch.bmm(directions[rows], vectors[rows, positions].mT)
            buckets[rows, :, positions] = _choices(projected.unflatten(1, (rounds, half)), factors)
    return buckets.unflatten(0, (batch, heads))


@_hash_vectors.register_fake
def _(vectors: Tensor, rotations: Tensor, factors: Sequence[int]) -> Tensor:
    batch, heads, length, _ = vectors.shape
    return vectors.new_empty((batch, heads, rotations.shape[1], length), dtype=torch.int64)


def _parts(vectors: Float[Tensor, "rows length d_head"], width: int) -> list[tuple[slice, slice]]:
    """Cut rows, and where one is too long its positions, into parts of limited projections."""
    rows, length, _ = vectors.shape
    device = vectors.device.type
    room = _NUMBERS_AT_ONCE["cpu" if device == "cpu" else "cuda"] // width
    at_once = max(1, room // max(1, length))
    piece = max(1, room // at_once)
    return [
        (slice(row, row + at_once), slice(start, start + piece))
        for row in range(0, rows, at_once)
        for start in range(0, length, piece)
    ]


def _choices(
    projected: Float[Tensor, "rows rounds half_buckets length"], factors: Sequence[int]
) -> Int[Tensor, "rows rounds length"]:
    """Choose, in every factor, the direction +-R that a vector points along most."""
    bucket, place = 0, 1
    for part, factor in zip(
        projected.split([factor // 2 for factor in factors], dim=-2), factors, strict=True
    ):
        # argmax([y; -y]) without building it: the first of the largest y or of the smallest.
        high, low = part.amax(-2, keepdim=True), part.amin(-2, keepdim=True)
        opposite = high < -low
        choice = _first_equal(part, torch.where(opposite, low, high))
        bucket = bucket + place * (choice + opposite * (factor // 2)).squeeze(-2)
        place *= factor
    return bucket


def _first_equal(
    numbers: Float[Tensor, "rows rounds half_buckets length"],
    one: Float[Tensor, "rows rounds 1 length"],
) -> Int[Tensor, "rows rounds 1 length"]:
    """Say which of half_buckets is the first to equal one of them.

    With the largest this is argmax, and torch's own takes eight times as long as these passes.
    """
    last = numbers.shape[-2] - 1
    countdown = torch.arange(last, -1, -1, device=numbers.device, dtype=numbers.dtype)
    equal = torch.eq(numbers, one, out=torch.empty_like(numbers))  # floats: bools are slow
    return last - equal.mul_(countdown.unsqueeze(-1)).amax(-2, keepdim=True).long()
