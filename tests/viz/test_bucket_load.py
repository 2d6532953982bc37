"""Bucket load: every count against the plan's own visible matrix, pair by pair."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reformer_core import plan_chunks
from reformer_viz import (
    explore_bucket_load,
    measure_bucket_load,
    measure_bucketing,
    plot_bucket_load,
    plotly_bucket_load,
)
from reformer_viz.figures.still import draw_still

TICKS = [1, 2, 5, 10, 20, 50]
SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def shapes(draw):
    causal, window = draw(st.booleans()), draw(st.sampled_from(["chunks", "sliding"]))
    sizes = draw(st.tuples(*(st.integers(1, most) for most in (2, 2, 3, 24))))
    rule = {
        "n_buckets": draw(st.integers(1, 5)),
        "chunk_length": draw(st.integers(1, 6)),
        "causal": causal,
        "chunks_before": draw(st.integers(1 if window == "sliding" else 0, 2)),
        "chunks_after": 0 if causal else draw(st.integers(0, 2)),
        "window": window,
        "within_bucket": draw(st.booleans()),
    }
    return draw(st.integers(0, 1000)), sizes, draw(st.booleans()), rule


def random_plan(seed, sizes, padded, rule):
    generator = torch.Generator().manual_seed(seed)
    padding = torch.rand(sizes[0], sizes[-1], generator=generator) < 0.3 if padded else None
    buckets = torch.randint(rule["n_buckets"], sizes, generator=generator)
    return plan_chunks(buckets, padding=padding, **rule)


def plan_of(buckets, **rule):
    rule = {"chunk_length": 2, "causal": True, **rule}
    return plan_chunks(torch.tensor([[buckets]]), **rule)


def count_by_hand(plan, batch, head, round, bucket):
    """Return tokens, pairs and lost pairs of one bucket, looked at one pair at a time."""
    row = plan.buckets[batch, head, round].tolist()
    padded = [False] * len(row) if plan.padding is None else plan.padding[batch].tolist()
    mates = [i for i, b in enumerate(row) if b == bucket and not padded[i]]
    pairs = [(i, j) for i in mates for j in mates if (j < i if plan.causal else j != i)]
    visible = plan.visible()[batch, head, round]
    return len(mates), len(pairs), sum(not visible[i, j] for i, j in pairs)


@given(shapes())
def test_every_bucket_s_tokens_and_pairs_are_counted_as_looking_at_them_does(shape):
    plan = random_plan(*shape)
    load = measure_bucket_load(plan)
    for hashing, where in enumerate(zip(load.batch, load.head, load.round, strict=True)):
        for bucket in range(plan.n_buckets):
            found = tuple(int(of[hashing, bucket]) for of in (load.sizes, load.pairs, load.lost))
            assert found == count_by_hand(plan, *where, bucket)


@given(shapes())
def test_up_to_the_safe_size_no_bucket_loses_a_pair(shape):
    load = measure_bucket_load(random_plan(*shape))
    assert (load.lost[load.sizes <= load.safe] == 0).all()


def test_one_token_more_than_the_safe_size_can_lose_a_pair():
    # 0 1 1 | 1 1 1: the last of bucket 1 sees its chunk of 3 and the one before, the first too.
    for window, causal, after in (("chunks", True, 0), ("sliding", True, 0), ("sliding", False, 1)):
        rule = {"window": window, "causal": causal, "chunks_after": after, "chunk_length": 3}
        shifted = [[0] * empty + [1] * 5 for empty in range(3)]
        loads = [measure_bucket_load(plan_of([row], **rule)) for row in shifted]
        assert {load.safe for load in loads} == {4}
        assert any(load.lost.any() for load in loads)


def test_a_load_agrees_with_the_bucketing_of_the_same_plan():
    generator = torch.Generator().manual_seed(0)
    buckets = torch.randint(6, (2, 2, 3, 90), generator=generator)
    plan = plan_chunks(buckets, chunk_length=8, causal=True, n_buckets=6)
    load = measure_bucket_load(plan)
    chosen = (load.batch == 1) & (load.head == 0)
    bucketing = measure_bucketing(plan, batch=1, head=0)
    assert np.array_equal(load.sizes[chosen], bucketing.sizes)
    assert np.array_equal(load.lost[chosen].sum(1), bucketing.mates_lost)


def test_a_long_plan_is_counted_without_listing_its_pairs():
    plan = plan_of([[0] * 50_000], chunk_length=64)
    load = measure_bucket_load(plan)
    assert load.pairs[0, 0] == 50_000 * 49_999 // 2
    seen = load.pairs[0, 0] - load.lost[0, 0]
    assert seen == sum(min(slot, 64 + slot % 64) for slot in range(50_000))


def test_the_longest_come_first_and_are_named_by_what_there_is_to_choose():
    load = measure_bucket_load(plan_of([[0, 1, 1, 2], [2, 2, 2, 0]], n_buckets=4))
    assert load.longest(3) == [(1, 2), (0, 1), (0, 0)]
    assert load.name(1, 2) == "bucket 2, round 1"
    assert measure_bucket_load(plan_of([[0, 1]])).name(0, 1) == "bucket 1"
    two = plan_chunks(torch.zeros(2, 2, 1, 3).long(), chunk_length=2, causal=True)
    assert measure_bucket_load(two).name(3, 0) == "bucket 0, head 1, batch 1"
    assert len(load.longest(100)) == 8


def test_a_sentence_says_what_the_longest_bucket_loses():
    load = measure_bucket_load(plan_of([[1, 1, 1, 1, 1, 0]], chunks_before=0, n_buckets=4))
    # 0 1 | 1 1 | 1 1: two chunks see their own pair, eight other pairs are lost.
    assert load.describe() == (
        "1 hashing of 6 tokens into 4 buckets: evenly shared 1.5 tokens each, but 50% are empty "
        "and the longest holds 5 (bucket 1). Of 10 pairs in one bucket 8 are lost to the window "
        "(80%), of the longest bucket's 10 pairs 8 (80%). Up to 1 token a bucket loses none."
    )


def test_nothing_but_padding_has_no_load():
    padding = torch.ones(1, 3, dtype=torch.bool)
    plan = plan_chunks(torch.zeros(1, 1, 1, 3).long(), chunk_length=2, causal=True, padding=padding)
    load = measure_bucket_load(plan)
    assert load.sizes.tolist() == [[0]]
    assert "Of 0 pairs in one bucket 0 are lost to the window (none of none)" in load.describe()
    plot_bucket_load(load).canvas.draw()


def test_buckets_beyond_the_plan_s_number_are_refused():
    plan = replace(plan_of([[0, 5]], n_buckets=6), n_buckets=4)  # a GPU's plan, not looked at
    with pytest.raises(ValueError, match=r"buckets must be in 0\.\.3, got 0 to 5"):
        measure_bucket_load(plan)


# --------------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def load():
    generator = torch.Generator().manual_seed(1)
    buckets = (torch.rand(1, 2, 2, 120, generator=generator) ** 3 * 16).long()
    return measure_bucket_load(plan_chunks(buckets, chunk_length=8, causal=True, n_buckets=16))


def test_the_histogram_counts_every_bucket_at_its_size(load):
    sizes, *_ = plot_bucket_load(load).axes
    assert sum(bar.get_height() for bar in sizes.patches) == load.sizes.size
    for bar in sizes.patches:
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        assert bar.get_height() == ((load.sizes > left) & (load.sizes < right)).sum()
    even, safe = (line.get_xdata()[0] for line in sizes.lines)
    assert (even, safe) == (load.even, load.safe)


def test_the_longest_buckets_bars_are_their_pairs_seen_and_lost(load):
    _, longest, _ = plot_bucket_load(load, n_longest=5).axes
    widths = np.array([bar.get_width() for bar in longest.patches]).reshape(2, 5)
    for row, (hashing, bucket) in enumerate(load.longest(5)):
        lost = load.lost[hashing, bucket]
        assert widths[:, row].tolist() == [load.pairs[hashing, bucket] - lost, lost]
        label = longest.get_yticklabels()[row].get_text()
        assert label == f"{load.name(hashing, bucket)}: {load.sizes[hashing, bucket]} tokens"


def test_the_legend_covers_none_of_the_longest_buckets(load):
    figure = plot_bucket_load(load, n_longest=12)
    figure.draw_without_rendering()
    axes = figure.axes[1]
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_every_bucket_with_pairs_is_a_dot_at_its_size_and_loss(load):
    *_, lost = plot_bucket_load(load).axes
    dots = sorted(map(tuple, lost.collections[0].get_offsets().tolist()))
    some = load.pairs > 0
    shares = 100 * load.lost[some] / load.pairs[some]
    assert np.allclose(dots, sorted(zip(load.sizes[some].tolist(), shares, strict=True)))
    share = load.lost.sum() / load.pairs.sum()
    assert lost.get_title(loc="left") == f"{share:.0%} of pairs lost"


def test_plotly_draws_the_same_bars_and_dots(load):
    buckets, seen, lost, dots, *marks = plotly_bucket_load(load, n_longest=5).data
    sizes, longest, losses = plot_bucket_load(load, n_longest=5).axes
    assert list(buckets.y) == [bar.get_height() for bar in sizes.patches]
    widths = [bar.get_width() for bar in longest.patches]
    assert [*seen.x, *lost.x] == widths
    assert list(seen.y) == [label.get_text() for label in longest.get_yticklabels()]
    assert np.allclose(np.stack([dots.x, dots.y], axis=1), losses.collections[0].get_offsets())
    assert [mark.x[0] for mark in marks] == [load.even, load.safe, load.safe]


@pytest.mark.parametrize("n_empty", [3, 60])
def test_the_histogram_is_logarithmic_where_one_bar_holds_most_of_the_buckets(n_empty):
    buckets = [[0] * 4 + [1] * 2 + [2] * 2 + [3]]
    load = measure_bucket_load(plan_of(buckets, n_buckets=4 + n_empty))
    sizes, *_ = plot_bucket_load(load).axes
    live = plotly_bucket_load(load)
    steep = n_empty == 60
    assert sizes.get_yscale() == live.layout.yaxis.type == ("log" if steep else "linear")
    assert ("logarithmic" in live.layout.yaxis.title.text) == steep
    low, high = sizes.get_ylim()
    ends = np.array(live.layout.yaxis.range)
    assert np.allclose(10**ends if steep else ends, [low, high])
    assert (0 < low < 1) == steep  # so that a bar of a single bucket shows
    if steep:
        assert list(live.layout.yaxis.tickvals) == sizes.get_yticks().tolist() == TICKS
    *_, even, _, _ = live.data
    assert even.y[0] == low


def test_names_of_buckets_do_not_reach_into_the_histogram():
    panel = explore_bucket_load(n_tokens=4096, n_buckets=1024, n_hashes=16)
    figure = panel._view.plotly(panel.data, panel.place)
    svg = ElementTree.fromstring(draw_still(figure))
    names = [t for t in svg.iter(f"{SVG}text") if (t.text or "").endswith(" tokens")]
    assert names
    begins = min(float(t.get("x")) - 5.6 * len(t.text) for t in names)
    histogram = svg.find(f"{SVG}svg")
    assert begins > float(histogram.get("x")) + float(histogram.get("width")) + 8


def test_a_picture_that_does_not_reach_the_safe_size_has_no_line_there():
    load = measure_bucket_load(plan_of([[0, 1, 2]], chunk_length=4))
    assert len(plot_bucket_load(load).axes[0].lines) == 1
    marks = plotly_bucket_load(load).data[-3:]
    assert [mark.x[0] for mark in marks] == [1, None, None]
    assert [mark.showlegend for mark in marks] == [True, False, False]


@pytest.mark.parametrize("draw", [plot_bucket_load, plotly_bucket_load])
def test_no_longest_bucket_is_refused(load, draw):
    with pytest.raises(ValueError, match="n_longest must be at least 1, got 0"):
        draw(load, n_longest=0)


# -------------------------------------------------------------------------------------- explorer


def test_moving_a_control_moves_the_load_the_sentence_and_the_bars():
    panel = explore_bucket_load(n_tokens=200)
    assert repr(panel).startswith("4 hashings of 200 tokens into 32 buckets")
    panel.controls["n_buckets"].value = 8
    panel.controls["n_hashes"].value = 2
    panel.controls["chunk_length"].value = 4
    assert panel.data.sizes.shape == (2, 8)
    assert panel.data.safe == 5
    assert repr(panel) == panel.data.describe()
    bars = panel._view.plotly(panel.data, panel.place).data[0]
    assert sum(bars.y) == 16
    assert panel.code == (
        "explore_bucket_load(n_tokens=200, n_buckets=8, n_hashes=2, chunk_length=4, noise=0.4, "
        "rotations=0)"
    )
    assert len(panel.figure.axes) == 3
    assert panel._chart.picture().startswith("<svg")


def test_the_explorer_counts_what_one_s_own_hash_does():
    vectors = torch.randn(2, 50, 4)
    panel = explore_bucket_load(vectors, hash=lambda x: (x[..., 0] > 0).long(), causal=False)
    panel.controls["head"].value = 1
    positive = int((vectors[1, :, 0] > 0).sum())
    assert panel.data.sizes.tolist() == [[50 - positive, positive]]
    assert panel.data.pairs.sum() == sum(n * (n - 1) for n in (50 - positive, positive))


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ({"n_buckets": 7}, "n_buckets must be even and positive, got 7"),
        ({"hash": lambda x: x[..., 0]}, "hash must return whole numbers, got float32"),
        ({"n_tokens": 65_537}, "the explorer draws at most 65,536 tokens, got 65,537"),
        ({"chunks_after": 1}, "chunks_after must be 0 when causal, got 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_shown_is_a_sentence_in_the_picture_s_place(ask, sentence):
    panel = explore_bucket_load(**ask)
    assert sentence in panel.problem
    assert panel.data is None
