"""Sparsity, measured and drawn: every number against the plan's own visible matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from reformer_core import ReformerConfig, ReformerLM, full_attention
from reformer_core.bucketing import plan_chunks
from reformer_viz import (
    measure_leak,
    measure_sparsity,
    measure_sparsity_per_head,
    plot_sparsity,
    plot_sparsity_per_head,
    style,
)
from reformer_viz.figures.sparsity import cell_colours, round_colours
from reformer_viz.measure import sparsity as module
from reformer_viz.measure.pairs import Grid, grid_for, take_head
from reformer_viz.measure.sparsity import weigh
from reformer_viz.measure.words import percent


def plan_of(
    seed=0, *, batch=1, heads=1, rounds=2, length=24, n_buckets=4, padded=0, scattered=False, **rule
):
    generator = torch.Generator().manual_seed(seed)
    buckets = torch.randint(n_buckets, (batch, heads, rounds, length), generator=generator)
    padding = None
    if padded:
        padding = torch.arange(length).expand(batch, length) >= length - padded
        padding = padding[:, torch.randperm(length, generator=generator)] if scattered else padding
    rule = {"chunk_length": 4, "causal": True, **rule}
    return plan_chunks(buckets, n_buckets=n_buckets, padding=padding, **rule)


def vectors_for(plan, seed=0, d_head=5):
    batch, heads, _, length = plan.buckets.shape
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(batch, heads, length, d_head, generator=generator, dtype=torch.float64)


@st.composite
def shapes(draw):
    causal = draw(st.booleans())
    length = draw(st.integers(2, 20))
    return {
        "seed": draw(st.integers(0, 1000)),
        "rounds": draw(st.integers(1, 4)),
        "length": length,
        "n_buckets": draw(st.integers(1, 5)),
        "padded": draw(st.integers(0, length - 2)),
        "scattered": draw(st.booleans()),
        "chunk_length": draw(st.integers(1, 7)),
        "causal": causal,
        "chunks_before": draw(st.integers(1, 2)),
        "chunks_after": 0 if causal else draw(st.integers(0, 1)),
        "window": draw(st.sampled_from(["chunks", "sliding"])),
        "within_bucket": draw(st.booleans()),
    }


def first_rounds_by_hand(visible):
    """Look at every pair in one round after the other, and note the first that shows it."""
    rounds, length, _ = visible.shape
    first = np.full((length, length), -1)
    for i in range(length):
        for j in range(length):
            for r in range(rounds):
                if visible[r, i, j] and first[i, j] == -1:
                    first[i, j] = r
    return first


def real_of(plan):
    length = plan.buckets.shape[-1]
    return [True] * length if plan.padding is None else (~plan.padding[0]).tolist()


def may_look(plan):
    """Say of every pair, one at a time, whether full attention sees it."""
    real, length = real_of(plan), plan.buckets.shape[-1]
    return np.array(
        [
            [real[i] and real[j] and (j < i if plan.causal else j != i) for j in range(length)]
            for i in range(length)
        ]
    )


def weights_of(plan, qk):
    """Full attention's weights are what it returns where every value is an axis of its own."""
    axes = torch.eye(qk.shape[2], dtype=qk.dtype).expand(1, 1, -1, -1)
    return full_attention(qk, axes, causal=plan.causal, padding=plan.padding)[0, 0].numpy()


def summed(matrix, grid):
    """Sum a length x length matrix over the cells of a grid, entry by entry."""
    cells = np.zeros((grid.n_cells, grid.n_cells))
    for (i, j), number in np.ndenumerate(matrix):
        cells[i // grid.per_cell, j // grid.per_cell] += number
    return cells


# ------------------------------------------------------------------------------------- measure


@given(shapes())
def test_every_pair_is_given_to_the_first_round_that_shows_it(shape):
    plan = plan_of(**shape)
    sparsity = measure_sparsity(plan)
    by_hand = first_rounds_by_hand(plan.visible()[0, 0].numpy())
    assert np.array_equal(sparsity.first_round, by_hand)
    assert sparsity.pairs_first_seen.tolist() == [
        (by_hand == r).sum() for r in range(shape["rounds"])
    ]
    assert sparsity.seen.tolist() == plan.visible()[0, 0].sum((1, 2)).tolist()


@given(shapes())
def test_the_visible_fraction_is_the_share_of_what_full_attention_sees(shape):
    plan = plan_of(**shape)
    sparsity = measure_sparsity(plan)
    assert np.array_equal(sparsity.possible, may_look(plan))
    seen = plan.visible()[0, 0].any(0).sum()
    assert sparsity.visible_fraction == pytest.approx(seen / may_look(plan).sum())
    assert 0 <= sparsity.visible_fraction <= 1


@given(shapes())
def test_the_mass_found_is_full_attention_s_weight_on_the_pairs_seen(shape):
    plan = plan_of(**shape)
    qk = vectors_for(plan, shape["seed"])
    sparsity = measure_sparsity(plan, qk)
    weights, askers = weights_of(plan, qk), may_look(plan).any(1)
    for rounds in range(1, shape["rounds"] + 1):
        seen = plan.visible()[0, 0, :rounds].any(0).numpy()
        found = (weights * seen).sum(1)[askers]
        assert np.allclose(sparsity.mass.found[rounds - 1], found)
        assert sparsity.mass.share(rounds) == pytest.approx(found.mean())
    assert sparsity.mass.queries.tolist() == np.flatnonzero(askers).tolist()
    assert np.allclose(
        sparsity.mass.weights, np.where(may_look(plan), weights, np.nan), equal_nan=True
    )
    assert not sparsity.mass.sampled


@given(shapes(), st.integers(2, 7))
def test_shared_cells_hold_the_sums_of_the_exact_matrices(shape, per_cell):
    plan = plan_of(**shape)
    head, grid = take_head(plan), Grid(shape["length"], per_cell)
    by_hand = first_rounds_by_hand(plan.visible()[0, 0].numpy())
    counted, _ = module.count_first_seen(head, grid)
    for round, cells in enumerate(counted):
        assert np.array_equal(cells, summed(by_hand == round, grid))
    assert np.array_equal(grid.possible(head.real, head.causal), summed(may_look(plan), grid))
    qk = vectors_for(plan)
    [mass] = weigh(qk[0, 0], [head], grid, seed=0, most_queries=100)
    askers = may_look(plan).any(1)
    by_cell = summed(weights_of(plan, qk) * may_look(plan), grid)
    per_row = np.array(
        [cell.sum() for cell in np.split(askers, range(per_cell, len(askers), per_cell))]
    )
    assert np.allclose(np.nan_to_num(mass.weights) * per_row[:, None], by_cell)


def test_blocks_change_nothing(monkeypatch):
    plan = plan_of(length=60, rounds=3)
    qk = vectors_for(plan)
    whole = measure_sparsity(plan, qk)
    monkeypatch.setattr("reformer_viz.measure.pairs._PAIRS_AT_ONCE", 30)
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 200)
    cut = measure_sparsity(plan, qk)
    assert np.array_equal(whole.first_seen, cut.first_seen)
    assert whole.seen.tolist() == cut.seen.tolist()
    assert np.allclose(whole.mass.found, cut.mass.found)
    assert np.allclose(whole.mass.weights, cut.mass.weights, equal_nan=True)


def test_one_head_of_one_sequence_is_measured():
    plan = plan_of(batch=2, heads=3, padded=5, length=30)
    qk = vectors_for(plan)
    sparsity = measure_sparsity(plan, qk, batch=1, head=2)
    assert np.array_equal(sparsity.first_round, first_rounds_by_hand(plan.visible()[1, 2].numpy()))
    alone = plan_chunks(plan.buckets[[1]][:, [2]], **{**plan.rule(), "padding": plan.padding[[1]]})
    again = measure_sparsity(alone, qk[[1]][:, [2]])
    assert sparsity.describe() == again.describe()
    assert sparsity.mass_found == again.mass_found


def test_all_in_one_bucket_and_window_finds_everything():
    plan = plan_of(n_buckets=1, chunk_length=24, rounds=1)
    sparsity = measure_sparsity(plan, vectors_for(plan))
    assert sparsity.visible_fraction == 1
    assert sparsity.mass_found == pytest.approx(1)
    assert sparsity.cost == 1


@pytest.mark.parametrize(
    ("rule", "tiles"),
    [
        # 24 slots in chunks of 4: the first chunk meets itself, the others one more.
        ({}, 4 * 4 + 5 * 4 * 8),
        ({"within_bucket": False}, 4 * 4 + 5 * 4 * 8),
        ({"chunks_before": 0}, 6 * 4 * 4),
        ({"causal": False, "chunks_after": 1}, 2 * 4 * 8 + 4 * 4 * 12),
        # Four slots back from the first and from the last row of a tile.
        ({"window": "sliding"}, 4 * 3 + 5 * 4 * 7),
        # 22 tokens: the last chunk holds two.
        ({"length": 22}, 4 * 4 + 4 * 4 * 8 + 2 * 6),
        # 16 real tokens fill four chunks; the others are not computed.
        ({"padded": 8}, 4 * 4 + 3 * 4 * 8),
    ],
    ids=str,
)
def test_whole_tiles_are_counted_by_hand(rule, tiles):
    sparsity = measure_sparsity(plan_of(**rule))
    assert sparsity.tiles == tiles
    assert sparsity.cost == 2 * tiles / sparsity.length**2


def test_a_sentence_says_what_the_rounds_see_find_and_cost():
    # Both rounds hold two chunks of two; round 0 sees (1, 0) and (3, 2), round 1 only (2, 0).
    plan = plan_chunks(
        torch.tensor([[[[0, 0, 1, 1], [0, 1, 0, 2]]]]), chunk_length=2, causal=True, n_buckets=4
    )
    qk = torch.zeros(1, 1, 4, 3)  # every key weighs the same: the rows find 1, 1/2 and 1/3
    assert measure_sparsity(plan, qk).describe() == (
        "4 tokens, 4 buckets, 2 rounds, chunks of 2. Of 6 pairs they see 3, 50.0 %: round 0 adds "
        "2, round 1 adds 1. They find 61.1 % of full attention's weight. In whole tiles that takes "
        "24 scores, 150.0 % of full attention's 16."
    )
    assert measure_sparsity(plan).describe(1) == (
        "4 tokens, 4 buckets, 1 round, chunks of 2. Of 6 pairs they see 2, 33.3 %: round 0 adds 2. "
        "In whole tiles that takes 12 scores, 75.0 % of full attention's 16."
    )


def test_a_sentence_names_padding_and_the_sliding_window():
    words = measure_sparsity(plan_of(padded=3, window="sliding")).describe()
    assert words.startswith(
        "24 tokens (3 of them padding), 4 buckets, 2 rounds, a sliding window of 4 slots. Of 210 "
    )


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_percentage_is_the_nearest_and_never_nothing_when_it_is_something(part, whole):
    words = percent(part, whole)
    if words == "less than 0.01 %":
        assert 0 < part / whole < 0.5e-4
    else:
        shown = float(words.removesuffix(" %").replace(",", ""))
        assert abs(shown - 100 * part / whole) <= (0.0050001 if 10 * part < whole else 0.050001)
        assert part == 0 or shown > 0


# ------------------------------------------------------------------------------ long sequences


@pytest.fixture(scope="module")
def long_plan():
    return plan_of(length=1500, n_buckets=48, chunk_length=32, rounds=3, padded=7)


@pytest.fixture(scope="module")
def long_qk(long_plan):
    return vectors_for(long_plan)


@pytest.fixture(scope="module")
def long_sparsity(long_plan, long_qk):
    return measure_sparsity(long_plan, long_qk)


def test_above_1024_tokens_neighbours_share_cells():
    assert grid_for(1024) == Grid(1024, 1)
    assert grid_for(1025) == Grid(1025, 3)
    for length in (1025, 4096, 5000, 65_536, 100_003):
        grid = grid_for(length)
        assert grid.n_cells <= 512
        assert (grid.n_cells - 1) * grid.per_cell < length <= grid.n_cells * grid.per_cell


def test_a_long_sequence_is_binned_and_counts_the_same_pairs(long_plan, long_sparsity):
    visible = long_plan.visible()[0, 0]
    assert long_sparsity.first_seen.shape == (3, 500, 500)
    before = torch.zeros(1500, 1500, dtype=torch.bool)
    for round in range(3):
        new = visible[round] & ~before
        before |= visible[round]
        binned = new.reshape(500, 3, 500, 3).sum((1, 3))
        assert np.array_equal(long_sparsity.first_seen[round], binned.numpy())


def test_a_sample_of_queries_is_spread_seeded_and_said(
    long_plan, long_qk, long_sparsity, monkeypatch
):
    monkeypatch.setattr(module, "MOST_SCORES", 0)
    monkeypatch.setattr(module, "_FEWEST_QUERIES", 300)
    sampled = measure_sparsity(long_plan, long_qk, seed=3)
    queries = sampled.mass.queries
    assert len(queries) == 300
    stretch = np.linspace(0, 1492, 301)  # position 0 asks nobody, and the last 7 are padding
    assert ((queries - 1 >= np.floor(stretch[:-1])) & (queries - 1 < stretch[1:])).all()
    assert np.array_equal(queries, measure_sparsity(long_plan, long_qk, seed=3).mass.queries)
    assert not np.array_equal(queries, measure_sparsity(long_plan, long_qk, seed=4).mass.queries)
    exact = long_sparsity.mass.found[:, np.searchsorted(long_sparsity.mass.queries, queries)]
    assert np.allclose(sampled.mass.found, exact)
    assert 0 < sampled.mass.error(3) < 0.05
    assert abs(sampled.mass_found - long_sparsity.mass_found) < 4 * sampled.mass.error(3)
    assert "300 of 1,492 queries drawn)" in sampled.describe()
    assert "drawn" not in long_sparsity.describe()


def test_a_sample_leaves_no_row_of_shared_cells_empty():
    for length in (40_000, 65_536, 70_001):
        grid = grid_for(length)
        queries = module._draw(np.arange(1, length), module._FEWEST_QUERIES, seed=0)
        assert len(np.unique(queries // grid.per_cell)) == grid.n_cells


def test_a_long_sequence_has_no_matrix_of_first_rounds(long_sparsity):
    with pytest.raises(ValueError, match="a cell for every pair, got 3 x 3 pairs a cell"):
        _ = long_sparsity.first_round


# ---------------------------------------------------------------------------------- every head


def model_of(**config):
    torch.manual_seed(3)
    config = {"vocab_size": 11, "d_model": 16, "n_heads": 2, "chunk_length": 8} | config
    return ReformerLM(ReformerConfig(max_length=64, **config))


def test_every_head_of_every_lsh_layer_is_measured_as_it_would_be_alone():
    model = model_of(n_layers=3, attention=("lsh", "local", "lsh"))
    trace = model.trace(torch.randint(11, (2, 40)))
    per_head = measure_sparsity_per_head(trace, batch=1)
    assert per_head.layers.tolist() == [0, 2]
    assert per_head.visible_fraction.shape == (2, 2)
    for place, layer in enumerate(per_head.layers):
        for head in range(2):
            lsh = trace.layers[layer]
            alone = measure_sparsity(lsh.plan, lsh.qk, batch=1, head=head)
            assert per_head.visible_fraction[place, head] == alone.visible_fraction
            assert per_head.mass_found[place, head] == pytest.approx(alone.mass_found)
            assert per_head.cost[place] == alone.cost
    least = np.unravel_index(per_head.mass_found.argmin(), (2, 2))
    assert f"in layer {[0, 2][least[0]]}, head {least[1]}, most" in per_head.describe()


def test_measuring_leaves_the_model_and_the_random_state_alone():
    model = model_of(attention_dropout=0.1).train()
    before, state = (
        torch.random.get_rng_state(),
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    measure_sparsity_per_head(model.trace(torch.randint(11, (1, 40), generator=torch.Generator())))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_model_without_lsh_layers_is_refused():
    trace = model_of(n_layers=2, attention=("local", "full")).trace(torch.zeros(1, 16).long())
    with pytest.raises(ValueError, match="must have an LSH layer, got 2 of other kinds: give"):
        measure_sparsity_per_head(trace)


# ------------------------------------------------------------------------------------ the leak


def union_by_hand(plan):
    return plan.visible()[0, 0].any(0).numpy()


def replanned(plan, cut, window, seed):
    """Draw the later buckets as the measurement says that it does, and plan by hand."""
    drawn = torch.randint(
        plan.n_buckets,
        (1, 1, plan.buckets.shape[2], plan.buckets.shape[3] - cut),
        generator=torch.Generator().manual_seed(seed),
    )
    after = torch.cat([plan.buckets[..., :cut], drawn], -1)
    rule = {**plan.rule(), "window": window, "chunks_before": max(1, plan.chunks_before)}
    return [union_by_hand(plan_chunks(b, **rule))[:cut, :cut] for b in (plan.buckets, after)]


@given(shapes(), st.integers(1, 19))
def test_a_leak_is_the_difference_of_what_two_plans_show(shape, cut):
    shape |= {"causal": True, "chunks_after": 0}
    plan = plan_of(**shape)
    cut = min(cut, shape["length"] - 1)
    leak = measure_leak(plan, cut=cut, seed=5)
    for window, rule in leak.rules.items():
        before, after = replanned(plan, cut, window, seed=5)
        assert np.array_equal(rule.kept, before & after)
        assert np.array_equal(rule.lost, before & ~after)
        assert np.array_equal(rule.gained, after & ~before)
        assert rule.changed.tolist() == (before != after).any(1).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_within_buckets_the_sliding_rule_leaks_nothing_and_the_chunk_rule_does(seed):
    plan = plan_of(seed, length=200, n_buckets=8, rounds=4)
    leak = measure_leak(plan, seed=seed)
    assert not leak.rules["sliding"].changed.any()
    before, after = replanned(plan, 100, "chunks", seed)
    rule = leak.rules["chunks"]
    assert np.array_equal(rule.kept, before & after)
    assert np.array_equal(rule.lost, before & ~after)
    assert np.array_equal(rule.gained, after & ~before)
    lost, gained = (before & ~after).any(1), (after & ~before).any(1)
    assert (lost & ~gained).any()
    assert (gained & ~lost).any()
    assert leak.rules["chunks"].changed.tolist() == (lost | gained).tolist()
    assert leak.rules["chunks"].changed.sum() > 20
    changed = int(leak.rules["chunks"].changed.sum())
    assert leak.describe() == (
        f"200 tokens, 4 rounds, chunk length 4. Other tokens from position 100 on change whom "
        f"{changed} of the 100 rows before it see under the chunk rule, "
        f"{percent(changed, 100)}, and 0 under the sliding rule."
    )


def test_across_buckets_the_sliding_rule_leaks_too():
    leak = measure_leak(plan_of(length=200, n_buckets=8, chunk_length=16, within_bucket=False))
    assert leak.rules["sliding"].changed.any()


def test_a_leak_of_a_plan_with_no_chunk_before_has_a_sliding_window_all_the_same():
    leak = measure_leak(plan_of(chunks_before=0, length=60))
    assert leak.rules["sliding"].kept.sum() > 0


def test_a_long_leak_is_binned():
    plan = plan_of(length=3000, n_buckets=24, chunk_length=32)
    leak = measure_leak(plan)
    before, after = replanned(plan, 1500, "chunks", seed=0)
    assert leak.grid == Grid(1500, 3)
    rule = leak.rules["chunks"]
    parts = (
        (rule.kept, before & after),
        (rule.lost, before & ~after),
        (rule.gained, after & ~before),
    )
    for found, pairs in parts:
        assert pairs.any()
        assert np.array_equal(found, pairs.reshape(500, 3, 500, 3).sum((1, 3)))


@pytest.mark.parametrize(
    ("plan", "wrong", "message"),
    [
        ({"causal": False}, {}, "a leak needs a causal plan, got causal=False: there every row"),
        ({}, {"cut": 0}, r"cut must be in 1\.\.23, got 0: some of the 24 tokens"),
        ({}, {"cut": 24}, r"cut must be in 1\.\.23, got 24"),
        ({"length": 1}, {}, r"cut must be in 1\.\.0, got 0: some of the 1 tokens"),
        ({}, {"head": 1}, r"head must be in 0\.\.0, got 1: the plan has 1"),
    ],
)
def test_a_leak_that_cannot_be_measured_is_refused(plan, wrong, message):
    with pytest.raises(ValueError, match=message):
        measure_leak(plan_of(**plan), **wrong)


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("plan", "wrong", "message"),
    [
        ({}, {"batch": 1}, r"batch must be in 0\.\.0, got 1: the plan has 1"),
        ({}, {"head": -1}, r"head must be in 0\.\.0, got -1"),
        ({"length": 1}, {}, "a pair needs two tokens that are not padding, got 1: give a longer"),
        ({"padded": 23}, {}, "a pair needs two tokens that are not padding, got 1"),
        ({"padded": 24}, {}, "a pair needs two tokens that are not padding, got 0"),
        ({}, {"qk": torch.zeros(1, 1, 23, 4)}, r"\(1, 1, 24\) as in the plan, got \(1, 1, 23, 4\)"),
        ({}, {"qk": torch.full((1, 1, 24, 4), np.nan)}, "must be finite, got NaN or infinity at "
         "token 0 of head 0: look for the layer"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:30],
)  # fmt: skip
def test_measuring_what_cannot_be_measured_is_refused(plan, wrong, message):
    with pytest.raises(ValueError, match=message):
        measure_sparsity(plan_of(**plan), **wrong)


@pytest.mark.parametrize("rounds", [0, 3])
def test_rounds_that_were_not_measured_are_refused(rounds):
    sparsity = measure_sparsity(plan_of())
    for ask in (sparsity.describe, lambda rounds: plot_sparsity(sparsity, rounds)):
        with pytest.raises(ValueError, match=rf"rounds must be in 1\.\.2, got {rounds}: 2 were"):
            ask(rounds)


# ------------------------------------------------------------------------------------- figures


def test_the_figure_colours_every_pair_by_its_first_round():
    sparsity = measure_sparsity(plan_of(rounds=4, length=60))
    figure = plot_sparsity(sparsity)
    figure.canvas.draw()
    image = figure.axes[0].images[0].get_array()
    for round in range(4):
        coloured = np.isclose(image, to_rgb(round_colours(4)[round])).all(-1)
        assert np.array_equal(coloured, sparsity.first_round == round)
    nobody = np.isclose(image, to_rgb(style.SHADE)).all(-1)
    assert np.array_equal(nobody, (sparsity.first_round == -1) & (sparsity.possible > 0))
    assert np.array_equal((image == 1).all(-1), sparsity.possible == 0)


def test_the_figure_of_fewer_rounds_leaves_the_later_ones_out():
    sparsity = measure_sparsity(plan_of(rounds=4, length=60))
    image = cell_colours(sparsity, 2)
    coloured = (image != to_rgb(style.SHADE)).any(-1) & (sparsity.possible > 0)
    assert np.array_equal(coloured, np.isin(sparsity.first_round, (0, 1)))
    title = plot_sparsity(sparsity, 2).axes[0].get_title(loc="left")
    assert title == f"2 rounds see {percent(int(coloured.sum()), 1770)} of the pairs"


def test_a_cell_of_many_pairs_mixes_its_rounds_and_is_stronger_where_more_are_seen():
    sparsity = measure_sparsity(plan_of(rounds=2, length=4, n_buckets=1, chunk_length=4))
    first_seen, possible = np.zeros((2, 2, 2), np.int32), np.full((2, 2), 100)
    first_seen[:, 0, 0], first_seen[0, 0, 1], first_seen[0, 1, 0] = 50, 100, 1
    shared = replace(sparsity, first_seen=first_seen, possible=possible, grid=Grid(4, 2))
    image = cell_colours(shared, 2)
    first, second = (np.array(to_rgb(colour)) for colour in round_colours(2))
    assert np.allclose(image[0, 0], (first + second) / 2)
    assert np.allclose(image[0, 1], first)
    assert np.allclose(image[1, 1], to_rgb(style.SHADE))
    distance = np.abs(image[1, 0] - to_rgb(style.SHADE)).sum()
    assert 0.1 < distance < np.abs(first - to_rgb(style.SHADE)).sum() / 2


def test_the_figure_shows_the_weights_and_stacks_what_every_round_adds():
    plan = plan_of(rounds=3, length=60)
    sparsity = measure_sparsity(plan, vectors_for(plan))
    _, weights, shares, _ = plot_sparsity(sparsity).axes
    drawn = weights.images[0].get_array()
    assert np.array_equal(drawn.mask, sparsity.possible == 0)
    assert np.allclose(drawn.compressed(), sparsity.mass.weights[sparsity.possible > 0])
    widths = np.array([bar.get_width() for bar in shares.patches]).reshape(3, 3)
    assert widths[0].sum() == pytest.approx(sparsity.visible_fraction)
    assert widths[1].cumsum() == pytest.approx([sparsity.mass.share(r) for r in (1, 2, 3)])
    assert widths[2].sum() == pytest.approx(sparsity.cost)


def test_without_vectors_there_is_no_picture_of_weights():
    assert len(plot_sparsity(measure_sparsity(plan_of())).axes) == 2


@pytest.mark.parametrize(
    "shape",
    [
        {"length": 2},
        {"length": 20, "padded": 18},
        {"length": 1100, "n_buckets": 16, "chunk_length": 32, "rounds": 9},
        {"window": "sliding", "causal": False, "chunks_after": 1, "within_bucket": False},
        {"n_buckets": 24, "rounds": 1, "chunks_before": 0, "chunk_length": 1},
    ],
    ids=str,
)
def test_any_plan_is_drawn(shape):
    plan = plan_of(**shape)
    plot_sparsity(measure_sparsity(plan, vectors_for(plan))).canvas.draw()


def test_the_figure_of_heads_writes_every_number():
    trace = model_of(n_layers=2).trace(torch.randint(11, (1, 40)))
    per_head = measure_sparsity_per_head(trace)
    seen, found = plot_sparsity_per_head(per_head).axes
    for axes, shares in ((seen, per_head.visible_fraction), (found, per_head.mass_found)):
        assert np.array_equal(axes.images[0].get_array(), shares)
        assert [text.get_text() for text in axes.texts] == [f"{100 * s:.1f}" for s in shares.flat]
    assert [label.get_text() for label in seen.get_yticklabels()] == ["layer 0", "layer 1"]
