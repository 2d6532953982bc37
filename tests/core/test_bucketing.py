"""Plans against loops over positions: who may see whom, and what must not change it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_core.bucketing import BucketPlan, check_rule, plan_chunks
from tests import oracles
from tests.core.counting import without_shape_checker
from tests.core.strategies import bucketed, paddings, planned, rules


def oracle_visible(buckets: torch.Tensor, rule: dict) -> torch.Tensor:
    """Build visible() by loops, one example, head and round at a time."""
    visible = torch.zeros(*buckets.shape, buckets.shape[-1], dtype=torch.bool)
    padding = rule.get("padding")
    for b, h in oracles.every(*buckets.shape[:2]):
        hidden = None if padding is None else padding[b].tolist()
        for r in range(buckets.shape[2]):
            seen = oracles.seen_in_round(buckets[b, h, r].tolist(), **rule | {"padding": hidden})
            visible[b, h, r] = torch.from_numpy(oracles.as_matrix(seen))
    return visible


def in_run(plan: BucketPlan) -> torch.Tensor:
    """Read the runs as the design states them, pair by pair and without `visible`."""
    length = plan.slot.shape[-1]
    result = torch.zeros(*plan.slot.shape, length, dtype=torch.bool)
    for index in torch.cartesian_prod(*map(torch.arange, plan.slot.shape[:3])).view(-1, 3).tolist():
        slot, first, last = (x[tuple(index)].tolist() for x in (plan.slot, plan.first, plan.last))
        for i in range(length):
            for j in range(length):
                in_it = first[slot[i]] <= slot[j] <= last[slot[i]]
                result[(*index, i, j)] = in_it and j != i and (j < i or not plan.causal)
    return result


# ---------------------------------------------------------------- who sees whom


@settings(max_examples=150)
@given(planned())
def test_a_plan_shows_exactly_what_loops_over_positions_show(case):
    buckets, rule = case
    assert torch.equal(plan_chunks(buckets, **rule).visible(), oracle_visible(buckets, rule))


@settings(max_examples=30)
@given(planned(max_length=12))
def test_visible_is_the_run_of_slots_from_first_to_last(case):
    buckets, rule = case
    plan = plan_chunks(buckets, **rule)
    assert torch.equal(plan.visible(), in_run(plan))


@given(planned())
def test_order_is_by_bucket_then_position_with_padding_last_and_slot_undoes_it(case):
    buckets, rule = case
    plan = plan_chunks(buckets, **rule)
    position = torch.arange(buckets.shape[-1]).expand(buckets.shape)
    assert torch.equal(plan.order.gather(-1, plan.slot.long()), position)
    assert torch.equal(plan.slot.gather(-1, plan.order.long()), position)
    padding = rule["padding"]
    for b, h in oracles.every(*buckets.shape[:2]):
        hidden = None if padding is None else padding[b].tolist()
        for r in range(buckets.shape[2]):
            expected = oracles.sorted_positions(buckets[b, h, r].tolist(), hidden)
            assert plan.order[b, h, r].tolist() == expected


@given(planned())
def test_nobody_ever_sees_itself_or_padding_and_padding_sees_nobody(case):
    buckets, rule = case
    visible = plan_chunks(buckets, **rule).visible()
    assert not visible.diagonal(dim1=-2, dim2=-1).any()
    if rule["padding"] is not None:
        padding = rule["padding"][:, None, None]
        assert not (visible & padding[..., None, :]).any()
        assert not (visible & padding[..., :, None]).any()


@given(planned())
def test_runs_lie_within_the_sequence_or_are_empty(case):
    buckets, rule = case
    plan = plan_chunks(buckets, **rule)
    full = plan.first <= plan.last
    assert (plan.first[full] >= 0).all()
    assert (plan.last[full] < buckets.shape[-1]).all()


@given(
    bucketed(), rules(), st.sampled_from([("chunks", True), ("sliding", True), ("sliding", False)])
)
def test_causal_runs_end_before_the_slot_except_in_chunks_across_buckets(buckets, rule, kind):
    rule |= {"causal": True, "chunks_before": 1, "chunks_after": 0}
    rule["window"], rule["within_bucket"] = kind
    plan = plan_chunks(buckets, **rule)
    assert (plan.last < torch.arange(buckets.shape[-1])).all()


@given(planned())
def test_times_seen_counts_the_rounds(case):
    buckets, rule = case
    plan = plan_chunks(buckets, **rule)
    assert torch.equal(plan.times_seen(), oracle_visible(buckets, rule).sum(2))


def test_windows_of_one_bucket_by_hand():
    def seen_by_5(**rule: object) -> list[int]:
        plan = plan_chunks(torch.zeros(1, 1, 1, 9, dtype=torch.long), **rule)
        return plan.visible()[0, 0, 0, 5].nonzero().flatten().tolist()

    assert seen_by_5(chunk_length=2, causal=True) == [2, 3, 4]
    assert seen_by_5(chunk_length=2, causal=True, chunks_before=0) == [4]
    assert seen_by_5(chunk_length=2, causal=False, chunks_after=1) == [2, 3, 4, 6, 7]
    assert seen_by_5(chunk_length=2, causal=True, window="sliding") == [3, 4]
    assert seen_by_5(chunk_length=2, causal=False, window="sliding") == [3, 4]
    rule = {"chunk_length": 2, "causal": False, "window": "sliding", "chunks_after": 1}
    assert seen_by_5(**rule) == [3, 4, 6, 7]
    assert seen_by_5(**rule, chunks_before=0) == [6, 7]


@pytest.mark.parametrize("chunk_length", [10**9, 2**31 - 1, 2**31, 2**40])
@pytest.mark.parametrize("window", ["chunks", "sliding"])
def test_chunks_longer_than_32_bits_count_hold_everyone(chunk_length, window):
    buckets = torch.arange(40).remainder(3).view(1, 1, 1, -1)
    for causal in (True, False):
        rule = {"causal": causal, "window": window, "chunks_before": 3}
        rule["chunks_after"] = 0 if causal else 2
        plan = plan_chunks(buckets, chunk_length=chunk_length, **rule)
        one_chunk = plan_chunks(buckets, chunk_length=40, **rule)
        assert torch.equal(plan.visible(), one_chunk.visible())
        assert (plan.chunk_length, plan.chunks_before) == (chunk_length, 3)


def test_nothing_wraps_around_the_ends():
    plan = plan_chunks(torch.zeros(1, 1, 2, 6, dtype=torch.long), chunk_length=2, causal=False)
    first_chunk = plan.visible()[0, 0, :, :2]
    assert first_chunk.sum() == 2 * 2  # each of the two sees the other, in each of two rounds


@given(bucketed(), rules())
def test_no_round_head_or_example_looks_into_another(buckets, rule):
    visible = plan_chunks(buckets, **rule).visible()
    for b, h in oracles.every(*buckets.shape[:2]):
        for r in range(buckets.shape[2]):
            alone = plan_chunks(buckets[b : b + 1, h : h + 1, r : r + 1], **rule).visible()
            assert torch.equal(alone[0, 0, 0], visible[b, h, r])


@given(st.integers(1, 30), st.integers(30, 60), rules())
def test_in_one_chunk_only_buckets_and_order_decide(length, chunk_length, rule):
    buckets = torch.arange(length).remainder(3).view(1, 1, 1, -1)
    rule |= {"chunk_length": chunk_length, "window": "chunks"}
    same = (buckets[0, 0, 0, :, None] == buckets[0, 0, 0]) | (not rule["within_bucket"])
    earlier = torch.ones(length, length).tril(-1).bool()
    expected = same & (earlier if rule["causal"] else earlier | earlier.T)
    assert torch.equal(plan_chunks(buckets, **rule).visible()[0, 0, 0], expected)


# ---------------------------------------------------------------- what must not change a plan


@given(bucketed(), rules(), st.data())
def test_later_tokens_never_change_an_earlier_row_of_a_causal_sliding_window(buckets, rule, data):
    rule |= {"causal": True, "window": "sliding", "within_bucket": True, "chunks_after": 0}
    rule["chunks_before"] = max(1, rule["chunks_before"])
    cut = data.draw(st.integers(0, buckets.shape[-1]))
    changed = buckets.clone()
    changed[..., cut:] = torch.randint_like(changed[..., cut:], 16)
    before, after = (plan_chunks(b, **rule).visible() for b in (buckets, changed))
    assert torch.equal(before[..., :cut, :], after[..., :cut, :])
    shorter = plan_chunks(buckets[..., : max(cut, 1)], **rule).visible()
    assert torch.equal(shorter[..., :cut, :], before[..., :cut, : max(cut, 1)])


@pytest.mark.parametrize(
    ("last_bucket", "seen"), [(1, [True, True, True]), (0, [False, True, True])]
)
def test_the_chunk_rule_leaks_because_a_later_token_moves_the_borders(last_bucket, seen):
    buckets = torch.tensor([1, 1, 1, 1, last_bucket]).view(1, 1, 1, -1)
    plan = plan_chunks(buckets, chunk_length=2, causal=True)
    assert plan.visible()[0, 0, 0, 3, :3].tolist() == seen


@pytest.mark.parametrize(("last_bucket", "seen"), [(2, True), (0, False)])
def test_a_sliding_window_across_buckets_leaks_too(last_bucket, seen):
    buckets = torch.tensor([0, 1, last_bucket]).view(1, 1, 1, -1)
    plan = plan_chunks(buckets, chunk_length=1, causal=True, window="sliding", within_bucket=False)
    assert plan.visible()[0, 0, 0, 1, 0].item() is seen


@given(bucketed(max_batch=1), rules(), st.data())
def test_padding_changes_nothing_for_the_others_wherever_it_stands(buckets, rule, data):
    padding = data.draw(paddings(1, buckets.shape[-1]))
    if padding is None or padding.all():
        return
    real = ~padding[0]
    visible = plan_chunks(buckets, **rule, padding=padding).visible()[..., real, :][..., real]
    assert torch.equal(visible, plan_chunks(buckets[..., real], **rule).visible())


@given(bucketed(), rules(), st.integers(1, 30))
def test_the_amount_of_padding_at_the_end_changes_nothing(buckets, rule, amount):
    length = buckets.shape[-1]
    longer = torch.nn.functional.pad(buckets, (0, amount), value=0)
    padding = (torch.arange(length + amount) >= length).expand(buckets.shape[0], -1)
    visible = plan_chunks(longer, **rule, padding=padding).visible()
    assert torch.equal(visible[..., :length, :length], plan_chunks(buckets, **rule).visible())


def test_rows_of_padding_alone_have_a_plan_that_shows_nothing():
    padding = torch.tensor([[True] * 5, [False] * 5])
    buckets = torch.zeros(2, 1, 2, 5, dtype=torch.long)
    for window in ("chunks", "sliding"):
        plan = plan_chunks(buckets, chunk_length=2, causal=True, window=window, padding=padding)
        assert not plan.visible()[0].any()
        assert (plan.first > plan.last)[0].all()
        assert plan.visible()[1].any()


def test_a_plan_of_no_sequences_is_a_plan():
    plan = plan_chunks(torch.zeros(0, 2, 3, 5, dtype=torch.long), chunk_length=2, causal=True)
    assert plan.n_buckets == 1
    assert plan.order.shape == plan.last.shape == (0, 2, 3, 5)
    assert plan.visible().shape == (0, 2, 3, 5, 5)
    padding = torch.zeros(0, 5, dtype=torch.bool)
    assert plan.with_buckets(plan.buckets).order.shape == (0, 2, 3, 5)
    assert plan_chunks(plan.buckets, chunk_length=2, causal=True, padding=padding).n_buckets == 1


@given(planned())
def test_saying_n_buckets_changes_nothing_but_the_field(case):
    buckets, rule = case
    silent, said = plan_chunks(buckets, **rule), plan_chunks(buckets, **rule, n_buckets=(16, 4))
    assert silent.n_buckets == buckets.max() + 1
    assert said.n_buckets == 64
    assert torch.equal(silent.visible(), said.visible())
    assert torch.equal(silent.order, said.order)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_buckets_of_a_small_integer_type_give_the_same_plan(dtype):
    buckets = torch.randint(0, 100, (2, 2, 3, 50), generator=torch.Generator().manual_seed(0))
    padding = torch.arange(50).expand(2, -1) > 40
    rule = {"chunk_length": 7, "causal": True, "n_buckets": 128, "padding": padding}
    plan, small = plan_chunks(buckets, **rule), plan_chunks(buckets.to(dtype), **rule)
    for name in ("order", "slot", "first", "last"):
        assert torch.equal(getattr(plan, name), getattr(small, name)), name


# ---------------------------------------------------------------- a plan as a value


def same_plan(one: BucketPlan, other: BucketPlan) -> bool:
    for field in dataclasses.fields(BucketPlan):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if not (torch.equal(mine, its) if isinstance(mine, torch.Tensor) else mine == its):
            return False
    return True


@given(planned())
def test_a_plan_is_rebuilt_from_its_buckets_and_its_rule(case):
    buckets, rule = case
    plan = plan_chunks(buckets, **rule)
    assert same_plan(plan.with_buckets(plan.buckets), plan)
    assert same_plan(plan_chunks(plan.buckets, **plan.rule()), plan)
    others = buckets.flip(-1)
    assert same_plan(plan.with_buckets(others), plan_chunks(others, **plan.rule()))


@given(planned())
def test_a_plan_carries_the_rule_that_made_it(case):
    buckets, rule = case
    plan = plan_chunks(buckets, **rule)
    assert plan.buckets is buckets
    for name, value in rule.items():
        assert getattr(plan, name) is value or getattr(plan, name) == value, name


def test_a_plan_is_frozen():
    plan = plan_chunks(torch.zeros(1, 1, 1, 3, dtype=torch.long), chunk_length=2, causal=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.causal = False


def test_planning_does_not_write_into_the_buckets():
    buckets = torch.randint(0, 4, (1, 1, 2, 9), generator=torch.Generator().manual_seed(0))
    before = buckets.clone()
    padding = torch.arange(9).view(1, -1) > 6
    plan_chunks(buckets, chunk_length=2, causal=True, padding=padding)
    assert torch.equal(buckets, before)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"chunk_length": 0}, "chunk_length must be at least 1, got 0"),
        ({"chunk_length": -3}, "chunk_length must be at least 1, got -3"),
        ({"chunk_length": 4.5}, "chunk_length must be a whole number, got 4.5: round it"),
        ({"chunks_before": 0.5}, "chunks_before must be a whole number, got 0.5"),
        ({"causal": False, "chunks_after": 1.0}, "chunks_after must be a whole number, got 1.0"),
        ({"chunks_before": -1}, "chunks_before must not be negative, got -1"),
        ({"causal": False, "chunks_after": -1}, "chunks_after must not be negative, got -1"),
        ({"chunks_after": 1}, "chunks_after must be 0 when causal, got 1"),
        ({"window": "sliding", "chunks_before": 0}, "sliding window of no slots"),
        (
            {"window": "sliding", "chunks_before": 0, "causal": False},
            "sliding window of no slots",
        ),
    ],
)
def test_rules_that_contradict_themselves_are_refused(rule, message):
    buckets = torch.zeros(2, 1, 1, 5, dtype=torch.long)
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        plan_chunks(buckets, **{"chunk_length": 2, "causal": True} | rule)


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ([[[[0, 65536, 0, 65536]]]], "from 0 to n_buckets - 1 = 63, got 0 to 65536: give the n_b"),
        ([[[[0, 3, -1, 2]]]], "from 0 to n_buckets - 1 = 63, got -1 to 3"),
        ([[[[0.2, 0.7]]]], "buckets must be of uint8, .* or int64, got torch.float32: number"),
        ([[[[True, False]]]], "buckets must be of uint8, .* or int64, got torch.bool"),
        ([[0, 1]], r"buckets must be \(batch, heads, rounds, length\), got \(1, 2\)"),
    ],
)
def test_buckets_that_number_nothing_are_refused(buckets, message):
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        plan_chunks(torch.tensor(buckets), chunk_length=2, causal=True, n_buckets=64)


def test_a_bucket_below_0_is_refused_also_where_nobody_says_how_many_there_are():
    with pytest.raises(ValueError, match="from 0 to n_buckets - 1 = 3, got -2 to 3"):
        plan_chunks(torch.tensor([[[[3, -2]]]]), chunk_length=2, causal=True)


def test_the_buckets_of_padding_may_be_any_numbers():
    padding = torch.tensor([[False, False, True]])
    plan = plan_chunks(
        torch.tensor([[[[1, 1, -1]]]]), chunk_length=3, causal=True, n_buckets=2, padding=padding
    )
    assert plan.visible()[0, 0, 0].nonzero().tolist() == [[1, 0]]


def test_whole_numbers_of_any_type_make_a_rule():
    buckets = torch.randint(0, 8, (1, 1, 2, 9))
    with without_shape_checker():
        plan = plan_chunks(buckets, chunk_length=np.int64(2), causal=True, n_buckets=np.int64(8))
    assert same_plan(plan, plan_chunks(buckets, chunk_length=2, causal=True, n_buckets=8))
    assert type(plan.n_buckets) is type(plan.chunk_length) is int


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"dtype": torch.long}, "padding must be bool, True where a token is padding, got torch.i"),
        ({"device": "meta"}, "padding must be on the device of what it speaks of, cpu, got meta"),
    ],
)
def test_padding_of_another_type_or_device_is_refused(kind, message):
    buckets = torch.zeros(2, 1, 1, 5, dtype=torch.long)
    padding = torch.zeros(2, 5, **{"dtype": torch.bool} | kind)
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        plan_chunks(buckets, chunk_length=2, causal=True, padding=padding)


def test_padding_of_another_shape_is_refused():
    buckets, padding = torch.zeros(2, 1, 1, 5, dtype=torch.long), torch.zeros(1, 3).bool()
    message = r"padding must be .* = \(2, 5\) .*, got \(1, 3\)"
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        plan_chunks(buckets, chunk_length=2, causal=True, padding=padding)


def test_an_unknown_window_is_refused():
    with pytest.raises(ValueError, match='window must be "chunks" or "sliding", got \'chunk\''):
        check_rule(2, True, 1, 0, "chunk")


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="buckets must have at least one position, got length 0"):
        plan_chunks(torch.zeros(1, 1, 1, 0, dtype=torch.long), chunk_length=2, causal=True)


def test_no_chunks_before_is_a_valid_rule_with_chunks():
    buckets = torch.zeros(1, 1, 1, 4, dtype=torch.long)
    plan = plan_chunks(buckets, chunk_length=2, causal=True, chunks_before=0)
    assert plan.visible()[0, 0, 0].nonzero().tolist() == [[1, 0], [3, 2]]


@pytest.mark.gpu
def test_cuda_plans_as_the_cpu_does():
    buckets = torch.randint(0, 6, (2, 3, 4, 100), generator=torch.Generator().manual_seed(0))
    padding = torch.arange(100).expand(2, -1) > 90
    rule = {"chunk_length": 16, "causal": True}
    expected = plan_chunks(buckets, **rule, padding=padding)
    plan = plan_chunks(buckets.cuda(), **rule, padding=padding.cuda())
    for name in ("order", "slot", "first", "last"):
        assert torch.equal(getattr(plan, name).cpu(), getattr(expected, name)), name
