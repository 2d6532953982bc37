"""Hashing against argmax([xR; -xR]) by hand, and every sentence of its docstrings."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reformer_core import hashing
from reformer_core.hashing import (
    EVALUATION,
    default_n_buckets,
    draw_rotations,
    factors_of,
    hash_generator,
    hash_vectors,
)
from tests import oracles
from tests.core.counting import without_shape_checker


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def product(n_buckets: int | tuple[int, ...]) -> int:
    return n_buckets if isinstance(n_buckets, int) else math.prod(n_buckets)


def random_hash(n_buckets=8, batch=2, heads=3, rounds=4, length=17, d_head=5, seed=0):
    generator = seeded(seed)
    rotations = draw_rotations(rounds, heads, d_head, n_buckets, generator)
    vectors = torch.randn(batch, heads, length, d_head, generator=generator)
    return vectors, rotations


# ---------------------------------------------------------------- the hash itself


@pytest.mark.parametrize("n_buckets", [2, 8, (2, 2), (8, 4), (4, 2, 6)])
def test_a_bucket_is_the_argmax_of_both_directions_of_every_rotation(n_buckets):
    vectors, rotations = random_hash(n_buckets)
    buckets = hash_vectors(vectors, rotations, n_buckets)
    factors = (n_buckets,) if isinstance(n_buckets, int) else n_buckets
    for b, h in oracles.every(*vectors.shape[:2]):
        for r in range(rotations.shape[1]):
            rotation = rotations[h, r].double().numpy()
            expected = [
                oracles.bucket_of(x.double().numpy(), rotation, factors) for x in vectors[b, h]
            ]
            assert buckets[b, h, r].tolist() == expected


@pytest.mark.parametrize("n_buckets", [6, (8, 4)])
def test_scaling_a_vector_never_moves_it(n_buckets):
    vectors, rotations = random_hash(n_buckets)
    scales = torch.rand(vectors.shape[:3], generator=seeded(1))[..., None] * 100 + 1e-3
    buckets = hash_vectors(vectors.double(), rotations, n_buckets)
    assert torch.equal(hash_vectors(vectors.double() * scales, rotations, n_buckets), buckets)


@pytest.mark.parametrize("factors", [(6,), (8, 4), (2, 6, 4)])
def test_negating_a_vector_moves_it_to_the_opposite_bucket_in_every_factor(factors):
    vectors, rotations = random_hash(factors)
    there = hash_vectors(vectors, rotations, factors)
    back = hash_vectors(-vectors, rotations, factors)
    for factor in factors:
        assert torch.equal(back % factor, (there + factor // 2) % factor)
        there, back = there // factor, back // factor


def test_rounds_are_independent_and_each_numbers_its_buckets_from_0():
    vectors, rotations = random_hash(8, rounds=3, length=400)
    buckets = hash_vectors(vectors, rotations)
    for r in range(3):
        assert torch.equal(hash_vectors(vectors, rotations[:, r : r + 1]), buckets[:, :, r : r + 1])
        assert set(buckets[:, :, r].flatten().tolist()) == set(range(8))


def test_heads_and_examples_do_not_know_of_each_other():
    vectors, rotations = random_hash()
    buckets = hash_vectors(vectors, rotations)
    for b, h in oracles.every(*vectors.shape[:2]):
        alone = hash_vectors(vectors[b : b + 1, h : h + 1], rotations[h : h + 1])
        assert torch.equal(alone, buckets[b : b + 1, h : h + 1])


def test_no_gradient_flows_through_a_bucket():
    vectors, rotations = random_hash()
    buckets = hash_vectors(vectors.requires_grad_(), rotations.requires_grad_())
    assert not buckets.requires_grad
    assert not buckets.is_floating_point()


@pytest.mark.parametrize("factors", [(8,), (8, 4), (2, 4, 6)])
def test_every_bucket_below_the_product_of_the_factors_is_reached(factors):
    vectors, rotations = random_hash(factors, 1, 1, 1, length=20_000, d_head=8)
    buckets = hash_vectors(vectors, rotations, factors)
    assert set(buckets.flatten().tolist()) == set(range(math.prod(factors)))


def test_a_factored_bucket_is_one_choice_per_factor_each_hashed_alone():
    vectors, rotations = random_hash((8, 4, 2))
    whole = hash_vectors(vectors, rotations, (8, 4, 2))
    first = hash_vectors(vectors, rotations[..., :4])
    second = hash_vectors(vectors, rotations[..., 4:6])
    third = hash_vectors(vectors, rotations[..., 6:])
    assert torch.equal(whole, first + 8 * second + 8 * 4 * third)


def test_a_long_input_is_cut_into_pieces_that_hash_the_same(monkeypatch):
    vectors, rotations = random_hash((8, 4), length=101)
    whole = hash_vectors(vectors, rotations, (8, 4))
    for at_once in (1, 500, 3000):
        monkeypatch.setattr(hashing, "_NUMBERS_AT_ONCE", {"cpu": at_once})
        assert torch.equal(hash_vectors(vectors, rotations, (8, 4)), whole)


def test_a_zero_vector_an_empty_sequence_and_an_empty_batch_have_buckets_too():
    _, rotations = random_hash(8)
    assert hash_vectors(torch.zeros(1, 3, 2, 5), rotations).tolist() == [[[[0, 0]] * 4] * 3]
    assert hash_vectors(torch.zeros(2, 3, 0, 5), rotations).shape == (2, 3, 4, 0)
    assert hash_vectors(torch.zeros(0, 3, 2, 5), rotations).shape == (0, 3, 4, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_vectors_are_hashed_in_float32(dtype):
    vectors, rotations = random_hash(32, length=200)
    vectors = vectors.to(dtype)
    assert torch.equal(hash_vectors(vectors, rotations), hash_vectors(vectors.float(), rotations))


def test_autocast_does_not_change_a_hash():
    vectors, rotations = random_hash(32, length=200)
    buckets = hash_vectors(vectors, rotations)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hash_vectors(vectors, rotations), buckets)


def test_vectors_that_are_not_contiguous_hash_the_same():
    vectors, rotations = random_hash()
    turned = vectors.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    assert torch.equal(hash_vectors(turned, rotations), hash_vectors(vectors, rotations))


# ---------------------------------------------------------------- what hashing is for


def pairs_at_angle(angle: float, n: int, d_head: int, seed: int) -> torch.Tensor:
    """Draw n pairs of unit vectors with that angle between them: "pairs 1 2 d_head"."""
    numbers = np.random.default_rng(seed)
    x = numbers.standard_normal((n, d_head))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    y = numbers.standard_normal((n, d_head))
    y -= (x * y).sum(-1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    other = math.cos(angle) * x + math.sin(angle) * y
    return torch.from_numpy(np.stack([x, other], 1)[:, None])


def share_of_collisions(angle: float, n_buckets: int | tuple[int, ...], rounds: int = 400) -> float:
    rotations = draw_rotations(rounds, 1, 6, n_buckets, seeded(7))
    buckets = hash_vectors(pairs_at_angle(angle, 50, 6, seed=8), rotations, n_buckets)
    return (buckets[..., 0] == buckets[..., 1]).double().mean().item()


@pytest.mark.parametrize("n_buckets", [4, 16, 64, (8, 8)])
def test_the_smaller_the_angle_the_likelier_two_vectors_share_a_bucket(n_buckets):
    shares = [
        share_of_collisions(math.radians(a), n_buckets) for a in (0, 15, 30, 60, 90, 120, 180)
    ]
    assert shares[0] == 1
    assert shares[-1] == 0
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("degrees", [20, 45, 90, 135])
def test_two_buckets_collide_with_probability_one_minus_angle_over_pi(degrees):
    share = share_of_collisions(math.radians(degrees), 2)
    deviation = 0.5 / math.sqrt(400 * 6)  # rounds are independent, 50 pairs span 6 directions
    assert share == pytest.approx(1 - degrees / 180, abs=4 * deviation)


# ---------------------------------------------------------------- where rotations come from


@pytest.mark.parametrize(("n_buckets", "half"), [(2, 1), (64, 32), ((8, 4), 6), ((2, 4, 6), 6)])
def test_half_buckets_is_half_the_sum_of_the_factors(n_buckets, half):
    assert draw_rotations(3, 2, 5, n_buckets, seeded()).shape == (2, 3, 5, half)


def test_rotations_are_standard_gaussian_and_not_orthonormalised():
    rotations = draw_rotations(10, 4, 16, 64, seeded()).double()
    n = rotations.numel()
    assert abs(rotations.mean()) < 4 / math.sqrt(n)
    assert abs((rotations**2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((rotations**4).mean() - 3) < 4 * math.sqrt(96 / n)
    lengths = rotations.norm(dim=2)
    assert lengths.std() > 0.3


def test_every_head_and_every_round_has_rotations_of_its_own():
    rotations = draw_rotations(3, 2, 5, 8, seeded())
    different = {tuple(part.flatten().tolist()) for part in rotations.flatten(0, 1)}
    assert len(different) == 6


def test_the_same_seed_layer_and_step_give_the_same_rotations():
    first = draw_rotations(3, 2, 5, 8, hash_generator(11, 2, 300))
    assert torch.equal(draw_rotations(3, 2, 5, 8, hash_generator(11, 2, 300)), first)


def test_any_other_seed_layer_or_step_gives_other_rotations():
    seeds = {
        hash_generator(hash_seed, layer, step).initial_seed()
        for hash_seed in range(12)
        for layer in range(12)
        for step in (EVALUATION, *range(60))
    }
    assert len(seeds) == 12 * 12 * 61
    first = draw_rotations(1, 1, 5, 8, hash_generator(0, 0, 0))
    for numbers in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, EVALUATION)):
        assert not torch.equal(draw_rotations(1, 1, 5, 8, hash_generator(*numbers)), first)


def test_seeds_above_32_bits_are_not_folded_onto_small_ones():
    assert hash_generator(2**32 + 5, 0, 0).initial_seed() != hash_generator(5, 0, 0).initial_seed()
    assert hash_generator(0, 0, 2**32).initial_seed() != hash_generator(0, 0, 0).initial_seed()


def test_hashing_neither_reads_nor_moves_the_global_generator():
    def hashed() -> torch.Tensor:
        rotations = draw_rotations(2, 3, 5, 8, hash_generator(1, 2, 3))
        return hash_vectors(vectors, rotations)

    vectors, _ = random_hash()
    before = torch.get_rng_state()
    first = hashed()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert torch.equal(hashed(), first)


# ---------------------------------------------------------------- how many buckets


@given(max_length=st.integers(1, 200_000), chunk_length=st.integers(1, 512))
def test_default_buckets_are_twice_the_chunks_and_factored_above_128(max_length, chunk_length):
    wanted = 2 * math.ceil(max_length / chunk_length)
    n_buckets = default_n_buckets(max_length, chunk_length)
    assert all(factor % 2 == 0 and factor > 0 for factor in factors_of(n_buckets))
    if wanted <= 128:
        assert n_buckets == wanted
    else:
        first, second = n_buckets
        assert wanted <= first * second <= wanted + 2 * first
        assert max(first, second) <= 5 * min(first, second)


def test_default_buckets_are_exact_where_two_similar_even_factors_exist():
    for half in range(65, 3000):
        wanted = 2 * half
        similar = [
            (a, wanted // a)
            for a in range(2, math.isqrt(wanted) + 1, 2)
            if wanted % (2 * a) == 0 and wanted // a <= 3 * a
        ]
        if similar:
            assert product(default_n_buckets(half, 1)) == wanted


def test_default_buckets_of_the_lengths_people_use():
    assert default_n_buckets(1024, 64) == 32
    assert default_n_buckets(4096, 64) == 128
    assert product(default_n_buckets(16_384, 64)) == 512
    assert product(default_n_buckets(65_536, 64)) == 2048
    assert default_n_buckets(10, 64) == 2


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("n_buckets", [7, 0, -2, (8, 3), (0, 8), (8, -8)])
def test_odd_or_empty_bucket_counts_are_refused(n_buckets):
    with pytest.raises(
        ValueError, match="n_buckets must be even and positive, got .*opposite pairs"
    ):
        draw_rotations(1, 1, 4, n_buckets, seeded())
    with pytest.raises(ValueError, match="n_buckets must be even and positive, got"):
        factors_of(n_buckets)


@pytest.mark.parametrize("n_buckets", [8.0, 2.5, (8, 2.0), "8"])
def test_bucket_counts_that_are_no_whole_numbers_are_refused(n_buckets):
    message = (
        f"n_buckets must be a whole number or a tuple of them, got {re.escape(repr(n_buckets))}"
    )
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        factors_of(n_buckets)


@pytest.mark.parametrize("n_buckets", [np.int64(8), (np.int64(4), np.int32(2)), [4, 2]])
def test_whole_numbers_of_any_type_count_buckets(n_buckets):
    with without_shape_checker():
        vectors, rotations = random_hash(n_buckets)
        buckets = hash_vectors(vectors, rotations, n_buckets)
        assert all(type(factor) is int for factor in factors_of(n_buckets))
    like = 8 if rotations.shape[-1] == 4 else (4, 2)
    assert torch.equal(buckets, hash_vectors(vectors, rotations, like))


def test_no_factors_at_all_are_refused():
    with pytest.raises(ValueError, match=r"n_buckets must have at least one factor, got \(\)"):
        factors_of(())


@pytest.mark.parametrize("name", ["n_hashes", "n_heads", "d_head"])
def test_sizes_below_one_are_refused_by_name(name):
    sizes = {"n_hashes": 1, "n_heads": 1, "d_head": 4, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        draw_rotations(**sizes, n_buckets=4, generator=seeded())


@pytest.mark.parametrize("n_buckets", [8, (8, 8), (2, 2)])
def test_rotations_of_other_bucket_counts_are_refused(n_buckets):
    vectors, rotations = random_hash(12)
    with pytest.raises(ValueError, match="rotations must have half of n_buckets' factors .*got 6"):
        hash_vectors(vectors, rotations, n_buckets)


@pytest.mark.parametrize("drawn_for", [{"heads": 1}, {"heads": 6}, {"d_head": 4}])
def test_rotations_of_other_heads_or_another_width_are_refused(drawn_for):
    vectors, _ = random_hash()
    _, rotations = random_hash(**drawn_for)
    message = r"the rotations' \d heads of \d, got \(2, 3, 17, 5\): draw rotations for these heads"
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        hash_vectors(vectors, rotations)


@pytest.mark.gpu
def test_cuda_hashes_as_the_cpu_does():
    vectors, rotations = random_hash((8, 4), length=500)
    expected = hash_vectors(vectors.double(), rotations, (8, 4))
    buckets = hash_vectors(vectors.double().cuda(), rotations.cuda(), (8, 4))
    assert buckets.is_cuda
    assert torch.equal(buckets.cpu(), expected)
