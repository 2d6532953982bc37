"""LSH attention: chunked == dense == loops over pairs, and every promise beside that."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_core.attention import (
    chunked,
    dense_lsh_attention,
    full_attention,
    islands,
    keys_from,
    lsh_attention,
)
from reformer_core.attention.bands import Bands
from reformer_core.attention.dropout import draw_seed, kept, kept_share, pair_keys
from reformer_core.attention.islands import layouts
from reformer_core.attention.rule import Rule
from reformer_core.bucketing import plan_chunks
from reformer_core.hashing import draw_rotations, hash_vectors
from tests import oracles
from tests.core.counting import LiveBytes, Worst, say, without_shape_checker
from tests.core.strategies import attention_cases, planned

EXACT = 1e-10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_inputs(batch=2, heads=2, length=20, d_head=4, d_value=3, seed=0, dtype=torch.float64):
    generator = seeded(seed)
    qk = torch.randn(batch, heads, length, d_head, generator=generator, dtype=torch.float64)
    values = torch.randn(batch, heads, length, d_value, generator=generator, dtype=torch.float64)
    return qk.to(dtype), values.to(dtype)


def hashed_plan(qk, n_hashes=3, n_buckets=4, chunk_length=5, causal=True, seed=1, **rule):
    rotations = draw_rotations(n_hashes, qk.shape[1], qk.shape[-1], n_buckets, seeded(seed))
    buckets = hash_vectors(qk.detach(), rotations)
    return plan_chunks(buckets, chunk_length=chunk_length, causal=causal, **rule)


def coins(seed, batch, heads, length, dropout) -> torch.Tensor:
    """Read the keep mask of every pair: "batch heads length length"."""
    keys = pair_keys(seed, batch, heads, length, torch.device("cpu"))
    return kept(*keys, dropout).unflatten(0, (batch, heads))


def with_gradients(attend, qk, values, d_out, *args, **kwargs):
    """Return output, gradient of qk and gradient of values."""
    qk, values = (part.detach().clone().requires_grad_() for part in (qk, values))
    out = attend(qk, values, *args, **kwargs)
    return out.detach(), *torch.autograd.grad(out, (qk, values), d_out)


def by_loops(qk, values, d_out, buckets, rule, count_repeats=False, dropout=0.0, keep=None):
    """Return output and gradients by loops over pairs."""
    results = torch.empty_like(values), torch.empty_like(qk), torch.empty_like(values)
    for b, h in oracles.every(*qk.shape[:2]):
        padding = None if rule["padding"] is None else rule["padding"][b].tolist()
        rounds = [
            oracles.seen_in_round(one.tolist(), **rule | {"padding": padding})
            for one in buckets[b, h]
        ]
        inputs = qk[b, h].numpy(), values[b, h].numpy(), rounds
        options = {
            "padding": padding,
            "count_repeats": count_repeats,
            "keep": None if keep is None else keep[b, h].numpy(),
            "dropout": dropout,
        }
        out = oracles.lsh_attention(*inputs, **options)
        gradients = oracles.lsh_attention_gradient(*inputs, d_out[b, h].numpy(), **options)
        for result, part in zip(results, (out, *gradients), strict=True):
            result[b, h] = torch.from_numpy(part)
    return results


# ---------------------------------------------------------------- the oracles themselves


@settings(max_examples=30)
@given(planned(max_length=12, max_batch=1))
def test_the_rounds_joined_as_the_paper_does_are_one_softmax_over_the_union(case):
    buckets, rule = case
    numbers = np.random.default_rng(buckets.numel())
    qk, values = numbers.standard_normal((2, buckets.shape[-1], 3))
    padding = None if rule["padding"] is None else rule["padding"][0].tolist()
    rounds = [
        oracles.seen_in_round(one.tolist(), **rule | {"padding": padding}) for one in buckets[0, 0]
    ]
    union = oracles.lsh_attention(qk, values, rounds, padding=padding)
    joined = oracles.lsh_attention_round_by_round(qk, values, rounds, padding=padding)
    np.testing.assert_allclose(union, joined, atol=1e-13)


@pytest.mark.parametrize("count_repeats", [False, True])
def test_the_gradient_by_hand_is_the_slope_of_the_loops(count_repeats):
    numbers = np.random.default_rng(0)
    qk, values, d_out = numbers.standard_normal((3, 7, 3))
    qk[2] = 0
    buckets = numbers.integers(0, 2, (3, 7))
    rounds = [oracles.seen_in_round(b, chunk_length=3, causal=False) for b in buckets]
    keep = numbers.random((7, 7)) < 0.7
    options = {"count_repeats": count_repeats, "keep": keep, "dropout": 0.3}
    gradients = oracles.lsh_attention_gradient(qk, values, rounds, d_out, **options)

    def loss(qk, values):
        return (oracles.lsh_attention(qk, values, rounds, **options) * d_out).sum()

    step = 1e-6
    for which, gradient in enumerate(gradients):
        for index in np.ndindex(7, 3):
            if which == 0 and index[0] == 2:
                continue  # the key of a zero row jumps
            ends = []
            for sign in (1, -1):
                moved = [qk.copy(), values.copy()]
                moved[which][index] += sign * step
                ends.append(loss(*moved))
            assert gradient[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


# ---------------------------------------------------------------- equality


def test_lsh_attention_is_exact_attention_over_the_pairs_its_plan_shows():
    worst = {
        name: Worst(name, EXACT)
        for name in ("chunked = dense", "chunked = loops", "gradients = dense", "gradients = loops")
    }

    @settings(max_examples=250)
    @given(attention_cases())
    def check(case):
        plan = plan_chunks(case.buckets, **case.rule)
        options = {"count_repeats": case.count_repeats, "dropout": case.dropout, "seed": case.seed}
        inputs = case.qk, case.values, case.d_out
        fast = with_gradients(lsh_attention, *inputs, plan, **options)
        dense = with_gradients(dense_lsh_attention, *inputs, plan, **options)
        keep = None
        if case.dropout:
            keep = coins(case.seed, *case.qk.shape[:3], case.dropout)
        loops = by_loops(*inputs, case.buckets, case.rule, case.count_repeats, case.dropout, keep)
        worst["chunked = dense"].check(fast[0], dense[0])
        worst["chunked = loops"].check(fast[0], loops[0])
        for which in (1, 2):
            worst["gradients = dense"].check(fast[which], dense[which])
            worst["gradients = loops"].check(fast[which], loops[which])

    check()
    say(*worst.values())


def check_against_dense(worst: Worst, examples: int) -> None:
    """Compare output and gradients with the dense definition's on random cases."""

    @settings(max_examples=examples)
    @given(attention_cases())
    def check(case):
        plan = plan_chunks(case.buckets, **case.rule)
        options = {"count_repeats": case.count_repeats, "dropout": case.dropout, "seed": case.seed}
        inputs = case.qk, case.values, case.d_out, plan
        fast = with_gradients(lsh_attention, *inputs, **options)
        for got, truth in zip(
            fast, with_gradients(dense_lsh_attention, *inputs, **options), strict=True
        ):
            worst.check(got, truth)

    check()


@pytest.mark.parametrize("budget", [1, 40, 300])
def test_it_stays_exact_however_the_work_is_cut(budget, monkeypatch):
    monkeypatch.setattr(chunked, "_PAIRS_AT_ONCE", {"cpu": budget})
    monkeypatch.setattr(chunked, "_SLOTS_IN_LINE", {"cpu": budget})
    worst = Worst("cut", EXACT)

    check_against_dense(worst, 25)


@pytest.mark.parametrize("longest", [1, 3, 8, 100])
@pytest.mark.parametrize("budget", [30, 1 << 18])
def test_it_stays_exact_where_islands_are_squares(longest, budget, monkeypatch):
    found = []

    def noting(*args):
        found.extend(layouts(*args))
        return layouts(*args)

    monkeypatch.setattr(chunked, "layouts", noting)
    monkeypatch.setattr(chunked, "_PAIRS_AT_ONCE", {"cpu": budget})
    for name, number in (("_WORTH_IT", 1), ("_STEP", 2), ("_LONGEST", longest)):
        monkeypatch.setattr(islands, name, number)
    worst = Worst("squares", EXACT)

    check_against_dense(worst, 60)
    squares = [layout for layout in found if isinstance(layout, islands.Islands)]
    assert any(isinstance(layout, Bands) for layout in found)
    assert bool(squares) == (longest > 1)
    for seen_whole in (True, False):
        assert longest == 1 or any((each.filler is not None) == seen_whole for each in squares)


@pytest.mark.parametrize("count_repeats", [False, True])
def test_at_real_sizes_squares_give_what_bands_give(count_repeats, monkeypatch):
    length, n_buckets = 8192, (16, 16)
    qk, values = random_inputs(batch=1, heads=2, length=length, d_head=16, d_value=16)
    qk[0, 0, 10] = 0  # and one whose key has no direction
    rotations = draw_rotations(4, 2, 16, n_buckets, seeded())
    buckets = hash_vectors(qk, rotations, n_buckets)
    plan = plan_chunks(buckets, chunk_length=64, causal=True, n_buckets=n_buckets)
    d_out = torch.randn(values.shape, generator=seeded(5), dtype=values.dtype)
    by_squares = with_gradients(lsh_attention, qk, values, d_out, plan, count_repeats=count_repeats)
    assert plan.order[0, 0].numel() >= islands._WORTH_IT, "too short to be squares"
    monkeypatch.setattr(islands, "_WORTH_IT", math.inf)
    by_bands = with_gradients(lsh_attention, qk, values, d_out, plan, count_repeats=count_repeats)
    worst = Worst("squares = bands", EXACT)
    for got, truth in zip(by_squares, by_bands, strict=True):
        worst.check(got, truth)


def test_it_stays_exact_where_no_band_is_looked_at(monkeypatch):
    # as on a GPU, where to look would be to wait
    monkeypatch.setattr(Bands, "_near_and_far", lambda self, slots, limit: (limit, {}))
    worst = Worst("every reach", EXACT)

    check_against_dense(worst, 50)


@pytest.mark.parametrize("window", ["chunks", "sliding"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_buckets", [2, 12, 60])
def test_what_few_bands_reach_is_added_for_those(n_buckets, causal, window):
    # Longer than the random cases: many bands, some far from the keys that they see.
    qk, values = random_inputs(batch=1, heads=2, length=300)
    buckets = torch.randint(0, n_buckets, (1, 2, 3, 300), generator=seeded(4))
    buckets[..., 40:140] = 0  # one bucket is much longer than the others
    plan = plan_chunks(
        buckets, chunk_length=64, causal=causal, window=window, chunks_after=0 if causal else 1
    )
    of_round = (part[0, :, 0] for part in (plan.order, plan.first, plan.last))
    pieces = Bands(*of_round, [0, 0], plan, 32).pieces(1 << 18)
    picked = [piece for piece in pieces if not isinstance(piece.blocks, slice)]
    assert n_buckets == 2 or picked, "nothing was picked: the case does not test it"
    d_out = torch.randn(values.shape, generator=seeded(5), dtype=values.dtype)
    worst = Worst("picked", EXACT)
    for count_repeats in (False, True):
        fast, dense = (
            with_gradients(attend, qk, values, d_out, plan, count_repeats=count_repeats)
            for attend in (lsh_attention, dense_lsh_attention)
        )
        for got, truth in zip(fast, dense, strict=True):
            worst.check(got, truth)


def check_edge(qk, values, buckets, **rule):
    """Compare chunked, dense and loops, with and without repeats and dropout, on one case."""
    rule = {"padding": None, "chunk_length": 4, "causal": True} | rule
    plan = plan_chunks(buckets, **rule)
    d_out = torch.randn(values.shape, generator=seeded(5), dtype=values.dtype)
    worst = Worst("edge", EXACT)
    for count_repeats in (False, True):
        for dropout in (0.0, 0.4):
            keep = coins(3, *qk.shape[:3], dropout) if dropout else None
            loops = by_loops(qk, values, d_out, buckets, rule, count_repeats, dropout, keep)
            options = {"count_repeats": count_repeats, "dropout": dropout, "seed": 3}
            for attend in (lsh_attention, dense_lsh_attention):
                results = with_gradients(attend, qk, values, d_out, plan, **options)
                for got, truth in zip(results, loops, strict=True):
                    worst.check(got, truth)


def random_buckets(qk, rounds=3, n_buckets=3, seed=2):
    shape = *qk.shape[:2], rounds, qk.shape[2]
    return torch.randint(0, n_buckets, shape, generator=seeded(seed))


@pytest.fixture(params=["bands", "squares"])
def cut(request, monkeypatch):
    monkeypatch.setattr(islands, "_WORTH_IT", math.inf if request.param == "bands" else 1)
    monkeypatch.setattr(islands, "_STEP", 3)  # so that some are filled up, among whole ones


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", ["chunks", "sliding"])
class TestEdges:
    def test_one_chunk(self, causal, window):
        qk, values = random_inputs(length=9)
        check_edge(qk, values, random_buckets(qk), chunk_length=9, causal=causal, window=window)

    def test_a_chunk_longer_than_the_sequence(self, causal, window):
        qk, values = random_inputs(length=9)
        check_edge(qk, values, random_buckets(qk), chunk_length=50, causal=causal, window=window)

    def test_one_round(self, causal, window):
        qk, values = random_inputs()
        check_edge(qk, values, random_buckets(qk, rounds=1), causal=causal, window=window)

    def test_nine_rounds(self, causal, window):
        qk, values = random_inputs(batch=1)
        check_edge(qk, values, random_buckets(qk, rounds=9), causal=causal, window=window)

    def test_all_vectors_equal(self, causal, window):
        qk, values = random_inputs()
        qk = qk[:, :, :1].expand_as(qk).clone()
        buckets = torch.zeros_like(random_buckets(qk))
        check_edge(qk, values, buckets, causal=causal, window=window)

    def test_length_one(self, causal, window):
        qk, values = random_inputs(length=1)
        check_edge(qk, values, random_buckets(qk), causal=causal, window=window)

    def test_all_padding(self, causal, window):
        qk, values = random_inputs()
        padding = torch.ones(2, 20, dtype=torch.bool)
        check_edge(qk, values, random_buckets(qk), causal=causal, window=window, padding=padding)

    def test_a_row_of_padding_alone(self, causal, window):
        qk, values = random_inputs()
        padding = torch.tensor([[True], [False]]).expand(2, 20).clone()
        check_edge(qk, values, random_buckets(qk), causal=causal, window=window, padding=padding)

    def test_zero_rows(self, causal, window):
        qk, values = random_inputs()
        qk[:, :, ::3] = 0
        check_edge(qk, values, random_buckets(qk), causal=causal, window=window)

    def test_huge_vectors(self, causal, window):
        qk, values = random_inputs()
        check_edge(1e4 * qk, values, random_buckets(qk), causal=causal, window=window)

    def test_everyone_alone(self, causal, window):
        qk, values = random_inputs()
        buckets = torch.arange(20).expand_as(random_buckets(qk))
        check_edge(qk, values, buckets, causal=causal, window=window)

    def test_across_buckets(self, causal, window):
        qk, values = random_inputs()
        rule = {"causal": causal, "window": window, "within_bucket": False}
        check_edge(qk, values, random_buckets(qk), **rule)

    def test_widths_of_one(self, causal, window):
        qk, values = random_inputs(d_head=1, d_value=1)
        check_edge(qk, values, random_buckets(qk), causal=causal, window=window)


@pytest.mark.parametrize("count_repeats", [False, True])
@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
def test_numerical_derivatives_agree(attend, count_repeats):
    qk, values = random_inputs(batch=1, heads=1, length=7, d_head=3, d_value=2)
    inputs = qk.clone().requires_grad_(), values.clone().requires_grad_()
    for causal in (True, False):
        plan = hashed_plan(qk, chunk_length=3, causal=causal)
        for dropout in (0.0, 0.3):
            options = {"count_repeats": count_repeats, "dropout": dropout, "seed": 4}
            function = functools.partial(attend, plan=plan, **options)
            torch.autograd.gradcheck(function, inputs)


# ---------------------------------------------------------------- what the softmax is over


def test_weights_are_those_of_the_pairs_seen_and_add_up_to_one():
    qk, _ = random_inputs()
    plan = hashed_plan(qk)
    identity = torch.eye(20, dtype=qk.dtype).expand(2, 2, 20, 20)
    weights = lsh_attention(qk, identity, plan)
    seen = plan.visible().any(2)
    alone = ~seen.any(-1, keepdim=True) & torch.eye(20, dtype=torch.bool)
    assert torch.equal(weights > 0, seen | alone)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_a_position_attends_to_itself_only_when_it_sees_nobody_in_any_round():
    qk, values = random_inputs(length=30)
    plan = hashed_plan(qk, n_buckets=16)
    alone = ~plan.visible().any(2).any(-1)
    assert alone.any()
    out = lsh_attention(qk, values, plan)
    assert torch.equal(out[alone], values[alone])
    moved = lsh_attention(qk, values + alone[..., None], plan)
    others = lsh_attention(qk, values, plan)
    assert torch.equal((moved != others).any(-1) & alone, alone)


def test_scaling_the_values_alone_or_the_keys_alone_is_what_the_equation_says():
    qk, values = random_inputs()
    plan = hashed_plan(qk)
    torch.testing.assert_close(
        lsh_attention(qk, 3 * values, plan), 3 * lsh_attention(qk, values, plan)
    )
    # Keys are of unit length: making every vector longer sharpens q.k by just that factor.
    identity = torch.eye(20, dtype=qk.dtype).expand(2, 2, 20, 20)
    log = {scale: lsh_attention(scale * qk, identity, plan).log() for scale in (1, 2)}
    i, j = plan.visible().any(2)[0, 0].nonzero()[-2:].T
    assert i[0] == i[1]
    gaps = {scale: log[scale][0, 0, i[0], j[0]] - log[scale][0, 0, i[0], j[1]] for scale in (1, 2)}
    torch.testing.assert_close(gaps[2], 2 * gaps[1])
    expected = qk[0, 0, i[0]] @ (keys_from(qk)[0, 0, j[0]] - keys_from(qk)[0, 0, j[1]])
    torch.testing.assert_close(gaps[1], expected)


def test_a_round_twice_changes_nothing_unless_repeats_count():
    qk, values = random_inputs()
    plan = hashed_plan(qk, n_hashes=2)
    twice = plan.with_buckets(torch.cat([plan.buckets, plan.buckets[:, :, :1]], 2))
    once = {
        repeats: lsh_attention(qk, values, plan, count_repeats=repeats) for repeats in (False, True)
    }
    again = {
        repeats: lsh_attention(qk, values, twice, count_repeats=repeats)
        for repeats in (False, True)
    }
    torch.testing.assert_close(again[False], once[False])
    assert not torch.allclose(again[True], once[True])


@pytest.mark.parametrize("count_repeats", [False, True])
def test_the_order_of_the_rounds_does_not_matter(count_repeats):
    qk, values = random_inputs()
    plan = hashed_plan(qk, n_hashes=4)
    turned = plan.with_buckets(plan.buckets[:, :, [2, 0, 3, 1]])
    options = {"count_repeats": count_repeats}
    torch.testing.assert_close(
        lsh_attention(qk, values, turned, **options), lsh_attention(qk, values, plan, **options)
    )


def test_more_rounds_become_full_attention_only_while_a_pair_counts_once():
    qk, values = random_inputs(batch=1, heads=1, length=64, d_head=8)
    truth = full_attention(qk, values, causal=True)
    errors = {False: [], True: []}
    for n_hashes in (1, 4, 16, 64):
        plan = hashed_plan(qk, n_hashes=n_hashes, n_buckets=4, chunk_length=64)
        for count_repeats, found in errors.items():
            out = lsh_attention(qk, values, plan, count_repeats=count_repeats)
            found.append(((out - truth).norm() / truth.norm()).item())
    assert errors[False] == sorted(errors[False], reverse=True)
    assert errors[False][-1] < 0.01
    assert min(errors[True]) > 0.1


def test_when_one_chunk_and_one_bucket_hold_everyone_it_is_full_attention():
    qk, values = random_inputs()
    padding = torch.arange(20).expand(2, -1) > 15
    for causal in (True, False):
        buckets = torch.zeros(2, 2, 1, 20, dtype=torch.long)
        plan = plan_chunks(buckets, chunk_length=20, causal=causal, padding=padding)
        torch.testing.assert_close(
            lsh_attention(qk, values, plan),
            full_attention(qk, values, causal=causal, padding=padding),
        )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_full_attention_is_what_loops_over_all_pairs_give(causal, length):
    qk, values = random_inputs(length=length)
    qk[0, 0, 0] = 0
    for padding in (None, torch.arange(length).expand(2, -1) >= torch.tensor([[length // 2], [0]])):
        out = full_attention(qk, values, causal=causal, padding=padding)
        for b, h in oracles.every(2, 2):
            hidden = None if padding is None else padding[b].tolist()
            expected = oracles.full_attention(
                qk[b, h].numpy(), values[b, h].numpy(), causal=causal, padding=hidden
            )
            np.testing.assert_allclose(out[b, h].numpy(), expected, atol=EXACT)


def test_padding_gets_zeros_and_passes_no_gradient():
    qk, values = random_inputs()
    padding = torch.arange(20).expand(2, -1) > torch.tensor([[12], [16]])
    hidden = padding[:, None].expand(2, 2, 20)
    for attend in (lsh_attention, dense_lsh_attention):
        plan = hashed_plan(qk, padding=padding)
        out, *gradients = with_gradients(attend, qk, values, torch.ones_like(values), plan)
        for part in (out, *gradients):
            assert (part[hidden] == 0).all()
            assert (part[~hidden] != 0).any()


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("number", [7.0, math.nan, math.inf, -math.inf])
def test_what_stands_in_padding_is_never_read(number):
    qk, values = random_inputs()
    padding = torch.arange(20).expand(2, -1) > torch.tensor([[14], [9]])
    plan = hashed_plan(qk, padding=padding)
    others = [part.masked_fill(padding[:, None, :, None], number) for part in (qk, values)]
    d_out = torch.randn(values.shape, generator=seeded(5), dtype=values.dtype)
    everyone = functools.partial(full_attention, causal=True, padding=padding)
    for attend in (
        functools.partial(lsh_attention, plan=plan),
        functools.partial(dense_lsh_attention, plan=plan),
        everyone,
    ):
        expected = with_gradients(attend, qk, values, d_out)
        other_d_out = d_out.masked_fill(padding[:, None, :, None], number)
        for one, same in zip(with_gradients(attend, *others, other_d_out), expected, strict=True):
            assert torch.equal(one, same)


@pytest.mark.parametrize("empty", [(0, 2), (2, 0)])
def test_of_no_sequences_and_of_no_heads_there_is_nothing_to_attend_to(empty):
    qk, values = torch.zeros(*empty, 20, 4), torch.zeros(*empty, 20, 3)
    plan = plan_chunks(torch.zeros(*empty, 3, 20, dtype=torch.long), chunk_length=5, causal=True)
    for attend in ways_to_attend(plan):
        out, d_qk, d_values = with_gradients(attend, qk, values, torch.zeros_like(values))
        assert out.shape == d_values.shape == values.shape
        assert d_qk.shape == qk.shape


# ---------------------------------------------------------------- keys


def test_keys_have_exactly_unit_length_at_any_scale():
    qk, _ = random_inputs(dtype=torch.float32)
    for scale in (1e-12, 1e-3, 1.0, 1e4, 1e12):
        lengths = keys_from(qk * scale).double().norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=3e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_keys_of_half_precision_vectors_are_normalised_and_returned_in_float32(dtype):
    qk, _ = random_inputs(dtype=dtype)
    keys = keys_from(qk)
    assert keys.dtype == torch.float32
    torch.testing.assert_close(keys, keys_from(qk.float()), atol=0, rtol=0)


def test_a_zero_row_has_a_zero_key_and_passes_no_gradient():
    qk, _ = random_inputs()
    qk[0, 0, 3] = 0
    qk.requires_grad_()
    keys = keys_from(qk)
    assert (keys[0, 0, 3] == 0).all()
    (gradient,) = torch.autograd.grad(keys, qk, torch.ones_like(keys))
    assert (gradient[0, 0, 3] == 0).all()
    assert torch.isfinite(gradient).all()


def test_a_keys_gradient_is_at_right_angles_to_it():
    qk, _ = random_inputs()
    keys = keys_from(qk.requires_grad_())
    (gradient,) = torch.autograd.grad(
        keys, qk, torch.randn(keys.shape, generator=seeded(), dtype=keys.dtype)
    )
    torch.testing.assert_close(
        (gradient * qk).sum(-1), torch.zeros_like(qk[..., 0]), atol=1e-12, rtol=0
    )


# ---------------------------------------------------------------- dropout


def dropped_by(attend, plan, qk, dropout, seed) -> torch.Tensor:
    """Read from the output alone which seen pairs were dropped."""
    length = qk.shape[2]
    identity = torch.eye(length, dtype=qk.dtype).expand(*qk.shape[:3], length)
    return attend(qk, identity, plan, dropout=dropout, seed=seed) == 0


@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
def test_the_coin_of_a_pair_is_the_same_in_every_round_tile_size_and_count_of_rounds(attend):
    qk, _ = random_inputs(length=40)
    keep = coins(11, 2, 2, 40, 0.5)
    for n_hashes in (1, 2, 5):
        for chunk_length in (3, 10, 64):
            for window in ("chunks", "sliding"):
                plan = hashed_plan(qk, n_hashes, chunk_length=chunk_length, window=window)
                seen = plan.visible().any(2)
                dropped = dropped_by(attend, plan, qk, 0.5, seed=11)
                assert torch.equal(dropped & seen, ~keep & seen)
                assert (dropped & seen).any()


def test_a_kept_pair_weighs_its_share_more_and_the_softmax_is_that_of_all_pairs():
    qk, _ = random_inputs()
    plan = hashed_plan(qk)
    identity = torch.eye(20, dtype=qk.dtype).expand(2, 2, 20, 20)
    whole = lsh_attention(qk, identity, plan)
    thinned = lsh_attention(qk, identity, plan, dropout=0.25, seed=1)
    seen = plan.visible().any(2)
    share = (thinned / whole)[seen]
    assert set(share.mul(3).round(decimals=9).tolist()) == {0.0, 4.0}


def test_whoever_is_alone_is_never_dropped():
    qk, values = random_inputs()
    plan = plan_chunks(torch.arange(20).expand(2, 2, 1, 20), chunk_length=4, causal=True)
    for attend in (lsh_attention, dense_lsh_attention):
        for seed in range(5):
            assert torch.equal(attend(qk, values, plan, dropout=0.9, seed=seed), values)


def test_a_pair_seen_twice_is_dropped_twice_or_never():
    qk, _ = random_inputs()
    plan = hashed_plan(qk, n_hashes=1)
    twice = plan.with_buckets(plan.buckets.expand(-1, -1, 2, -1).contiguous())
    identity = torch.eye(20, dtype=qk.dtype).expand(2, 2, 20, 20)
    options = {"count_repeats": True, "dropout": 0.5, "seed": 2}
    torch.testing.assert_close(
        lsh_attention(qk, identity, twice, **options), lsh_attention(qk, identity, plan, **options)
    )


def test_no_dropout_is_no_dropout_whatever_the_seed():
    qk, values = random_inputs()
    plan = hashed_plan(qk)
    expected = lsh_attention(qk, values, plan)
    assert torch.equal(lsh_attention(qk, values, plan, dropout=0.0, seed=7), expected)


@pytest.mark.parametrize("dropout", [0.01, 0.1, 0.5, 0.9])
def test_pairs_are_kept_at_the_rate_asked_for(dropout):
    keep = coins(123456789, 2, 4, 300, dropout).double()
    n = keep.numel()
    deviation = math.sqrt(dropout * (1 - dropout) / n)
    assert keep.mean().item() == pytest.approx(1 - dropout, abs=5 * deviation)
    for axis, width in ((-1, 300), (-2, 300)):  # no query and no key is favoured
        rates = keep.mean(axis)
        assert (rates - (1 - dropout)).abs().max() < 6 * math.sqrt(
            dropout * (1 - dropout) / width
        ) + 0.01


def test_coins_of_neighbours_heads_examples_and_seeds_are_unrelated():
    keep = coins(5, 2, 2, 256, 0.5).double() * 2 - 1
    other = coins(6, 2, 2, 256, 0.5).double() * 2 - 1
    high = coins(5 + (1 << 32), 2, 2, 256, 0.5).double() * 2 - 1
    related = {
        "next query": (keep[..., 1:, :] * keep[..., :-1, :]).mean(),
        "next key": (keep[..., 1:] * keep[..., :-1]).mean(),
        "diagonal": (keep[..., 1:, 1:] * keep[..., :-1, :-1]).mean(),
        "transposed": (keep * keep.mT).tril(-1).sum() / (4 * 256 * 255 / 2),
        "heads": (keep[:, 0] * keep[:, 1]).mean(),
        "examples": (keep[0] * keep[1]).mean(),
        "seeds": (keep * other).mean(),
        "high half of the seed": (keep * high).mean(),
    }
    for name, correlation in related.items():
        assert abs(correlation) < 5 / math.sqrt(2 * 256 * 255), name


def test_four_coins_of_two_queries_and_two_keys_are_independent():
    keep = coins(5, 1, 1, 512, 0.5)[0, 0].double() * 2 - 1
    product = (keep[0::2, 0::2] * keep[0::2, 1::2] * keep[1::2, 0::2] * keep[1::2, 1::2]).mean()
    assert abs(product) < 5 / 256


def test_the_length_does_not_change_the_coins():
    long = coins(9, 2, 2, 50, 0.3)
    assert torch.equal(coins(9, 2, 2, 20, 0.3), long[..., :20, :20])


def test_a_kept_share_is_one_over_what_is_kept():
    keys = pair_keys(1, 1, 1, 30, torch.device("cpu"))
    share = kept_share(*keys, 0.2, torch.float64)
    assert torch.equal(share > 0, kept(*keys, 0.2))
    torch.testing.assert_close(share[share > 0], torch.full_like(share[share > 0], 1.25))


@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
def test_without_a_seed_one_is_drawn_from_the_global_generator(attend):
    qk, values = random_inputs()
    plan = hashed_plan(qk)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = (attend(qk, values, plan, dropout=0.5) for _ in range(2))
        torch.manual_seed(3)
        again = attend(qk, values, plan, dropout=0.5)
        torch.manual_seed(3)
        same = attend(qk, values, plan, dropout=0.5, seed=draw_seed())
        before = torch.get_rng_state()
        attend(qk, values, plan)
        attend(qk, values, plan, dropout=0.5, seed=1)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert torch.equal(first, same)
    assert not torch.equal(first, second)


# ---------------------------------------------------------------- dtypes, layouts, autograd


@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_comes_back_as_it_came_but_is_computed_in_float32(attend, dtype):
    qk, values = random_inputs(length=200, d_head=16, d_value=8, dtype=dtype)
    plan = hashed_plan(qk, chunk_length=32)
    d_out = torch.randn(values.shape, generator=seeded(2)).to(dtype)
    got = with_gradients(attend, qk, values, d_out, plan)
    exact = with_gradients(attend, qk.double(), values.double(), d_out.double(), plan)
    for part, truth in zip(got, exact, strict=True):
        assert part.dtype == dtype
        rounding = truth.abs() * torch.finfo(dtype).eps / 2  # of the last step alone
        if attend is dense_lsh_attention:  # autograd adds two rounded gradients of qk
            rounding = 3 * truth.abs().max() * torch.finfo(dtype).eps / 2
        assert ((part.double() - truth).abs() <= 1.02 * rounding + 1e-5).all()


@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
def test_autocast_changes_neither_the_result_nor_the_gradients(attend):
    qk, values = random_inputs(length=50, d_head=16, dtype=torch.float32)
    plan = hashed_plan(qk, chunk_length=16)
    plain = with_gradients(attend, qk, values, torch.ones_like(values), plan)
    leaves = [part.clone().requires_grad_() for part in (qk, values)]
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*leaves, plan)
    gradients = torch.autograd.grad(out.sum(), leaves)
    for got, truth in zip((out, *gradients), plain, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, truth, atol=1e-6, rtol=1e-6)


def test_the_backward_may_run_inside_autocast_too():
    qk, values = random_inputs(length=50, d_head=16, dtype=torch.float32)
    plan = hashed_plan(qk, chunk_length=16)
    plain = with_gradients(lsh_attention, qk, values, torch.ones_like(values), plan)
    with torch.autocast("cpu", torch.bfloat16):
        cast = with_gradients(lsh_attention, qk, values, torch.ones_like(values), plan)
    for got, truth in zip(cast, plain, strict=True):
        torch.testing.assert_close(got, truth, atol=1e-6, rtol=1e-6)


def test_qk_and_values_may_have_dtypes_of_their_own():
    qk, values = random_inputs()
    plan = hashed_plan(qk)
    out = lsh_attention(qk, values.float(), plan)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), lsh_attention(qk, values, plan), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
def test_inputs_need_not_be_contiguous(attend):
    qk, values = random_inputs()
    plan = hashed_plan(qk)
    d_out = torch.randn(values.shape, generator=seeded(), dtype=values.dtype)
    expected = with_gradients(attend, qk, values, d_out, plan)

    def shuffled(x):
        turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert not turned.is_contiguous()
        return turned

    leaves = [shuffled(part).requires_grad_() for part in (qk, values)]
    out = attend(*leaves, plan)
    gradients = torch.autograd.grad(out, leaves, shuffled(d_out))
    for got, truth in zip((out, *gradients), expected, strict=True):
        torch.testing.assert_close(got, truth)
    (summed,) = torch.autograd.grad(attend(leaves[0], leaves[1], plan).sum(), leaves[:1])
    ones = with_gradients(attend, qk, values, torch.ones_like(values), plan)
    torch.testing.assert_close(summed, ones[1])


def as_projected(x):
    """Lay the heads of a position next to each other, as the views of a projection lie."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("slots", [1, 40, 60, 100, 1000])  # one row at once, 2, 3, 5, all 6
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ({"padding": torch.arange(20) >= torch.tensor([[20], [16]])}, {}),
        ({"within_bucket": False}, {"count_repeats": True}),
        ({"causal": False, "window": "sliding", "chunks_after": 1}, {"dropout": 0.3, "seed": 5}),
        ({"within_bucket": False}, {"dropout": 0.3, "seed": 5}),
    ],
)
def test_heads_that_a_projection_left_together_are_attended_to_as_they_lie(
    slots, rule, options, monkeypatch
):
    monkeypatch.setattr(chunked, "_SLOTS_IN_LINE", {"cpu": slots})
    monkeypatch.setattr(islands, "_WORTH_IT", 1)
    qk, values = random_inputs(heads=3)
    plan = hashed_plan(qk, **rule)
    d_out = torch.randn(values.shape, generator=seeded(), dtype=values.dtype)
    expected = with_gradients(dense_lsh_attention, qk, values, d_out, plan, **options)
    inputs = [as_projected(part) for part in (qk, values)]
    for towards in (d_out, as_projected(d_out)):
        leaves = [part.clone().requires_grad_() for part in inputs]
        out = lsh_attention(*leaves, plan, **options)
        found = out, *torch.autograd.grad(out, leaves, towards)
        for got, truth, like in zip(found, expected, [values, qk, values], strict=True):
            torch.testing.assert_close(got, truth)
            assert got.stride() == as_projected(like).stride()  # nothing to copy for who merges


@pytest.mark.parametrize("which", [0, 1])
def test_heads_of_which_only_some_lie_together_are_attended_to_as_well(which):
    inputs = random_inputs(heads=3, dtype=torch.float32)
    plan = hashed_plan(inputs[0])
    ones = torch.ones_like(inputs[1])
    expected = with_gradients(lsh_attention, *inputs, ones, plan)
    mixed = [as_projected(part) if i == which else part for i, part in enumerate(inputs)]
    for got, truth in zip(with_gradients(lsh_attention, *mixed, ones, plan), expected, strict=True):
        torch.testing.assert_close(got, truth)


@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
@pytest.mark.parametrize("which", [0, 1])
def test_only_one_of_the_inputs_may_need_a_gradient(attend, which):
    inputs = random_inputs()
    plan = hashed_plan(inputs[0])
    expected = with_gradients(attend, *inputs, torch.ones_like(inputs[1]), plan)
    leaf = inputs[which].clone().requires_grad_()
    pair = [leaf, inputs[1]] if which == 0 else [inputs[0], leaf]
    attend(*pair, plan).sum().backward()
    torch.testing.assert_close(leaf.grad, expected[1 + which])


def test_neither_forward_nor_backward_writes_into_its_inputs():
    qk, values = random_inputs()
    plan = hashed_plan(qk, padding=torch.arange(20).expand(2, -1) > 15)
    copies = qk.clone(), values.clone()
    d_out = torch.randn(values.shape, generator=seeded(), dtype=values.dtype)
    d_copy = d_out.clone()
    qk.requires_grad_(), values.requires_grad_()
    torch.autograd.grad(lsh_attention(qk, values, plan), (qk, values), d_out)
    assert torch.equal(qk, copies[0])
    assert torch.equal(values, copies[1])
    assert torch.equal(d_out, d_copy)


def test_no_graph_is_kept_when_nothing_needs_a_gradient():
    qk, values = random_inputs()
    plan = hashed_plan(qk)
    assert not lsh_attention(qk, values, plan).requires_grad
    with torch.no_grad():
        assert not lsh_attention(qk.requires_grad_(), values, plan).requires_grad


def second_derivative(loss: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    return torch.autograd.grad(gradient.sum(), leaf)[0]


@pytest.mark.parametrize("linear", [True, False])
def test_a_second_derivative_is_refused_with_a_sentence(linear):
    qk, values = random_inputs()
    out = lsh_attention(qk.requires_grad_(), values, hashed_plan(qk))
    # Silence would be a wrong number, also where the loss is linear in what attention returns.
    loss = out.sum() + (qk**3).sum() if linear else (out**2).sum()
    with pytest.raises(RuntimeError, match="once|twice"):
        second_derivative(loss, qk)


def test_the_same_call_twice_gives_the_same_bits():
    qk, values = random_inputs(dtype=torch.float32)
    plan = hashed_plan(qk)
    d_out = torch.ones_like(values)
    first = with_gradients(lsh_attention, qk, values, d_out, plan, dropout=0.2, seed=1)
    second = with_gradients(lsh_attention, qk, values, d_out, plan, dropout=0.2, seed=1)
    assert all(map(torch.equal, first, second))


def test_huge_vectors_in_float32_stay_finite_and_right():
    qk, values = random_inputs(dtype=torch.float32)
    plan = hashed_plan(qk)
    for scale in (100.0, 1e4):
        got = with_gradients(lsh_attention, scale * qk, values, torch.ones_like(values), plan)
        exact = with_gradients(
            dense_lsh_attention,
            (scale * qk).double(),
            values.double(),
            torch.ones_like(values).double(),
            plan,
        )
        # scores of size |q| carry a rounding error of |q| * 1e-7 into exp
        worst = Worst("huge", scale * 2e-6)
        for part, truth in zip(got, exact, strict=True):
            worst.check(part.double(), truth)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [1e5, 1e8, 1e9, 1e12, 1e18])
def test_vectors_so_long_that_one_key_has_all_the_weight_find_it_and_pass_its_gradient(
    scale, causal
):
    qk, values = random_inputs(length=100, d_head=8, dtype=torch.float32)
    qk *= scale
    plan = hashed_plan(qk, chunk_length=16, causal=causal)
    d_out = torch.randn(values.shape, generator=seeded(3))
    _, log_total = chunked.attend(qk, values, Rule(plan=plan))
    assert torch.equal(log_total == -torch.inf, ~plan.visible().any(2).any(-1))
    got = with_gradients(lsh_attention, qk, values, d_out, plan)
    inputs = (part.double() for part in (qk, values, d_out))
    exact = with_gradients(dense_lsh_attention, *inputs, plan)
    for name, part, truth in zip(("out", "d_qk", "d_values"), got, exact, strict=True):
        Worst(name, 1e-6).check(part.double(), truth)


# ---------------------------------------------------------------- memory


def peak_bytes(length: int, chunk_length: int = 64) -> int:
    qk, values = random_inputs(1, 1, length, 16, 16, dtype=torch.float32)
    n_buckets = 2 * length // chunk_length
    plan = hashed_plan(qk, n_hashes=2, n_buckets=n_buckets, chunk_length=chunk_length)
    qk.requires_grad_(), values.requires_grad_()
    with LiveBytes() as memory:
        lsh_attention(qk, values, plan).sum().backward()
    return memory.peak


def test_memory_grows_with_the_length_and_not_with_its_square():
    short, long = peak_bytes(8192), peak_bytes(16_384)
    assert long < 2.2 * short
    assert long < 16_384**2 * 4 / 16


def test_not_even_the_scores_of_one_round_exist_at_once():
    scores_of_a_round = 8192 * (2 * 512) * 4
    assert peak_bytes(8192, chunk_length=512) < 0.75 * scores_of_a_round


def test_what_is_kept_for_the_backward_does_not_grow_with_the_rounds():
    def kept_bytes(rounds: int) -> int:
        qk, values = random_inputs(1, 1, 1024, 16, 16, dtype=torch.float32)
        plan = hashed_plan(qk, n_hashes=rounds, n_buckets=32, chunk_length=64)
        qk.requires_grad_(), values.requires_grad_()
        with LiveBytes() as memory:
            out = lsh_attention(qk, values, plan)
            kept = memory.live
        assert out.requires_grad
        return kept

    assert kept_bytes(8) == kept_bytes(1) <= 1024 * (16 + 1 + 1) * 4


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(("name", "cut"), [("qk", 0), ("values", 1)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_inputs_that_do_not_belong_to_the_plan_are_refused_by_name(name, cut, axis):
    inputs = list(random_inputs())
    plan = hashed_plan(inputs[0])
    inputs[cut] = inputs[cut].narrow(axis, 0, 1)
    message = rf"{name} must be .* with the plan's \(2, 2, 20\), got \("
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        lsh_attention(*inputs, plan)


def test_a_plan_of_another_length_batch_or_heads_is_refused():
    qk, values = random_inputs()
    for shape in ((2, 2, 19), (1, 2, 20), (2, 1, 20)):
        other = plan_chunks(
            torch.zeros(*shape[:2], 1, shape[2], dtype=torch.long), chunk_length=4, causal=True
        )
        with pytest.raises(ValueError, match=r"plan's .*got \(2, 2, 20, 4\)"):
            lsh_attention(qk, values, other)


def ways_to_attend(plan):
    return (
        functools.partial(lsh_attention, plan=plan),
        functools.partial(dense_lsh_attention, plan=plan),
        functools.partial(full_attention, causal=True),
    )


@pytest.mark.parametrize("way", [0, 1, 2], ids=["lsh", "dense", "full"])
@pytest.mark.parametrize(("name", "cut"), [("qk", 0), ("values", 1)])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda x: x.int(), "must be of float16, .* got torch.int32: convert it, say with"),
        (lambda x: x > 0, "must be of float16, .* got torch.bool"),
        (lambda x: x.to(torch.complex64), "must be of float16, .* got torch.complex64"),
        (lambda x: x[..., 0], r"must be \(batch, heads, length, width\) .* got \(2, 2, 20\)"),
        (
            lambda x: x.to("meta"),
            "must be on .* device (cpu|meta), got (cpu|meta): move it",
        ),
    ],
    ids=["int", "bool", "complex", "no width", "another device"],
)
def test_vectors_that_cannot_be_attended_to_are_refused_by_name(way, name, cut, changed, message):
    inputs = list(random_inputs())
    attend = ways_to_attend(hashed_plan(inputs[0]))[way]
    inputs[cut] = changed(inputs[cut])
    # to full attention qk is what values must be like
    blamed = "values" if way == 2 and "device" in message else name
    with without_shape_checker(), pytest.raises(ValueError, match=f"{blamed} {message}"):
        attend(*inputs)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_full_attention_refuses_values_of_another_input(axis):
    qk, values = random_inputs()
    message = r"values must be .* with qk's \(2, 2, 20\), got \("
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        full_attention(qk, values.narrow(axis, 0, 1), causal=True)


def test_full_attention_refuses_padding_that_is_no_truth():
    qk, values = random_inputs()
    with without_shape_checker(), pytest.raises(ValueError, match="padding must be bool, .*int64"):
        full_attention(qk, values, causal=True, padding=torch.zeros(2, 20, dtype=torch.long))
    with without_shape_checker(), pytest.raises(ValueError, match=r"padding must be .*\(2, 20\)"):
        full_attention(qk, values, causal=True, padding=torch.zeros(1, 20, dtype=torch.bool))


@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1, 2.5, torch.tensor(2.5), "7"])
def test_a_seed_that_is_no_whole_number_of_64_bits_is_refused(seed):
    qk, values = random_inputs()
    for attend in ways_to_attend(hashed_plan(qk)):
        with (
            without_shape_checker(),
            pytest.raises(ValueError, match="seed must be a whole number"),
        ):
            attend(qk, values, dropout=0.1, seed=seed)


@pytest.mark.parametrize("seed", [(1 << 63) - 1, -(1 << 63), np.int64(-5), torch.tensor(7)])
def test_any_whole_number_of_64_bits_is_a_seed(seed):
    qk, values = random_inputs()
    plan = hashed_plan(qk)
    with without_shape_checker():
        fast, dense = (
            attend(qk, values, plan, dropout=0.4, seed=seed)
            for attend in (lsh_attention, dense_lsh_attention)
        )
    torch.testing.assert_close(fast, dense)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("attend", [lsh_attention, dense_lsh_attention])
def test_a_dropout_that_is_no_probability_is_refused(attend, dropout):
    qk, values = random_inputs()
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got"):
        attend(qk, values, hashed_plan(qk), dropout=dropout)


# ---------------------------------------------------------------- other devices


@pytest.mark.gpu
@settings(max_examples=40)
@given(attention_cases())
def test_cuda_attends_as_the_cpu_does(case):
    options = {"count_repeats": case.count_repeats, "dropout": case.dropout, "seed": case.seed}
    plan = plan_chunks(case.buckets, **case.rule)
    expected = with_gradients(
        dense_lsh_attention, case.qk, case.values, case.d_out, plan, **options
    )
    rule = case.rule | {"padding": None if plan.padding is None else plan.padding.cuda()}
    there = plan_chunks(case.buckets.cuda(), **rule)
    inputs = case.qk.cuda(), case.values.cuda(), case.d_out.cuda(), there
    worst = Worst("cuda", EXACT)
    for attend in (lsh_attention, dense_lsh_attention):
        for got, truth in zip(with_gradients(attend, *inputs, **options), expected, strict=True):
            assert got.is_cuda
            worst.check(got.cpu(), truth)


@given(st.integers(-(2**62), 2**62))
def test_any_seed_tosses_coins(seed):
    keys = pair_keys(seed, 1, 1, 4, torch.device("cpu"))
    assert keys[0].dtype == torch.int32
    assert torch.equal(keys[0], pair_keys(seed, 1, 1, 4, torch.device("cpu"))[0])
