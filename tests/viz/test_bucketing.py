"""Bucketing, measured, drawn and explored: every number against the plan's own visible matrix."""

import re
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.bucketing import plan_chunks
from reformer_core.hashing import draw_rotations, hash_generator
from reformer_core.tasks import Duplicate
from reformer_viz import explore_bucketing, measure_bucketing, plot_bucketing, style
from reformer_viz.figures.bucketing import LOOK
from reformer_viz.figures.bucketing_svg import draw_svg
from reformer_viz.figures.names import name_in_cell
from reformer_viz.measure.bucketing import (
    ELSEWHERE,
    FOUND,
    HIDDEN,
    LOST,
    MOST_PAIRWISE,
    SEEN,
    SEVERAL,
)
from reformer_viz.measure.sequence import make_sequence
from reformer_viz.widgets.bucketing import MOST_TOKENS
from reformer_viz.widgets.letters import MOST_LETTERS, letters
from reformer_viz.widgets.panel import compact_script
from reformer_viz.widgets.plan_source import DEFAULT_NOISE, DEFAULT_SEED
from tests.viz.test_plan_view import run

SVG = "{http://www.w3.org/2000/svg}"


def plan_of(seed=0, *, batch=1, heads=1, rounds=2, length=24, n_buckets=4, padded=0, **rule):
    generator = torch.Generator().manual_seed(seed)
    buckets = torch.randint(n_buckets, (batch, heads, rounds, length), generator=generator)
    padding = torch.arange(length).expand(batch, length) >= length - padded if padded else None
    rule = {"chunk_length": 4, "causal": True, **rule}
    return plan_chunks(buckets, n_buckets=n_buckets, padding=padding, **rule)


@st.composite
def shapes(draw):
    causal = draw(st.booleans())
    length = draw(st.integers(1, 20))
    return {
        "seed": draw(st.integers(0, 1000)),
        "rounds": draw(st.integers(1, 3)),
        "length": length,
        "n_buckets": draw(st.integers(1, 5)),
        "padded": draw(st.integers(0, length)),
        "chunk_length": draw(st.integers(1, 7)),
        "causal": causal,
        "chunks_before": draw(st.integers(1, 2)),
        "chunks_after": 0 if causal else draw(st.integers(0, 1)),
        "window": draw(st.sampled_from(["chunks", "sliding"])),
        "within_bucket": draw(st.booleans()),
    }


def pairs_by_hand(plan, round):
    """Sort every pair into the five kinds by looking at it, one at a time."""
    visible = plan.visible()[0, 0]
    rounds, length, _ = visible.shape
    buckets = plan.buckets[0, 0, round].tolist()
    real = [True] * length if plan.padding is None else (~plan.padding[0]).tolist()
    kinds = np.zeros((length, length), dtype=int)
    for i in range(length):
        for j in range(length):
            if i == j or (plan.causal and j > i) or not (real[i] and real[j]):
                continue
            elsewhere = any(visible[r, i, j] for r in range(rounds))
            if visible[round, i, j]:
                kinds[i, j] = SEEN
            elif buckets[i] == buckets[j]:
                kinds[i, j] = FOUND if elsewhere else LOST
            elif elsewhere:
                kinds[i, j] = ELSEWHERE
    return kinds


# ------------------------------------------------------------------------------------- measure


@given(shapes())
def test_every_pair_is_of_the_kind_that_looking_at_it_says(shape):
    plan = plan_of(**shape)
    bucketing = measure_bucketing(plan)
    for round in range(bucketing.n_rounds):
        assert np.array_equal(bucketing.kinds(round), pairs_by_hand(plan, round))


@given(shapes())
def test_the_counts_are_the_counts_of_those_kinds(shape):
    plan = plan_of(**shape)
    bucketing = measure_bucketing(plan)
    for round in range(bucketing.n_rounds):
        kinds = pairs_by_hand(plan, round)
        mates = plan.buckets[0, 0, round][:, None] == plan.buckets[0, 0, round]
        assert bucketing.seen[round] == (kinds == SEEN).sum()
        assert bucketing.mates_seen[round] == ((kinds == SEEN) & mates.numpy()).sum()
        assert bucketing.mates_lost[round] == ((kinds == LOST) | (kinds == FOUND)).sum()
        assert bucketing.mates_found[round] == (kinds == FOUND).sum()
    assert bucketing.seen_by_any == plan.visible()[0, 0].any(0).sum()


@given(shapes())
def test_one_query_s_row_is_a_row_of_all_kinds(shape):
    bucketing = measure_bucketing(plan_of(**shape))
    for round in range(bucketing.n_rounds):
        for token in range(0, bucketing.length, 3):
            row = bucketing.kinds_for(round, token)
            assert np.array_equal(row, bucketing.kinds(round)[token])


@given(shapes(), st.integers(1, 20), st.booleans())
def test_bins_hold_the_pairs_of_their_cells(shape, cells, in_sorted_order):
    plan = plan_of(**shape)
    bucketing, cells = measure_bucketing(plan), min(cells, shape["length"])
    for round in range(bucketing.n_rounds):
        bins, kinds = bucketing.binned(round, in_sorted_order, cells), pairs_by_hand(plan, round)
        buckets = plan.buckets[0, 0, round].tolist()
        place = bucketing.slot[round] if in_sorted_order else range(bucketing.length)
        cell = [place[token] * cells // bucketing.length for token in range(bucketing.length)]
        held = {(row, column): [] for row in range(cells) for column in range(cells)}
        for i, j in np.argwhere(kinds != HIDDEN):
            held[cell[i], cell[j]].append((kinds[i, j], buckets[i]))
        for at, pairs in held.items():
            seen = {bucket for kind, bucket in pairs if kind == SEEN}
            assert bins.seen[at] == sum(kind == SEEN for kind, _ in pairs)
            assert bins.bucket[at] == (seen.pop() if len(seen) == 1 else SEVERAL)
            assert bins.elsewhere[at] == any(kind in (ELSEWHERE, FOUND) for kind, _ in pairs)


def test_more_cells_than_tokens_are_refused():
    with pytest.raises(ValueError, match=r"cells must be in 1\.\.24, got 25"):
        measure_bucketing(plan_of()).binned(0, True, 25)


def test_a_bucketing_holds_one_head_of_one_sequence():
    plan = plan_of(batch=2, heads=3, padded=5)
    bucketing = measure_bucketing(plan, batch=1, head=2)
    for name in ("buckets", "order", "slot", "first", "last"):
        assert np.array_equal(getattr(bucketing, name), getattr(plan, name)[1, 2].numpy())
    assert bucketing.sizes.sum(1).tolist() == [19, 19]
    assert bucketing.possible == 19 * 18 // 2


def test_the_window_is_what_the_same_plan_shows_across_buckets():
    bucketing = measure_bucketing(plan_of(chunk_length=4))
    assert bucketing.window_first.tolist() == [max(0, s // 4 * 4 - 4) for s in range(24)]
    assert bucketing.window_last.tolist() == [s // 4 * 4 + 3 for s in range(24)]


def test_runs_are_the_buckets_in_sorted_order_without_the_empty_ones():
    plan = plan_chunks(torch.tensor([[[[3, 1, 1, 3, 3]]]]), chunk_length=2, causal=True)
    assert measure_bucketing(plan).runs(0) == [(1, 0, 1), (3, 2, 4)]


def test_a_sentence_says_what_a_round_did():
    plan = plan_chunks(
        torch.tensor([[[[0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]]]), chunk_length=2, causal=True
    )
    # Round 0 sorts 0 0 | 0 0 | 1: the fifth token stands alone, all else is in reach.
    assert measure_bucketing(plan).describe() == (
        "5 tokens, 2 buckets, 2 rounds, chunks of 2. Round 0: buckets hold 1 to 4 tokens. Of 6 "
        "pairs in one bucket, the round sees 6 and loses 0 to the window; other rounds see 0 of "
        "those. Together the rounds see 9 of 10 pairs."
    )


def test_a_sentence_says_what_became_of_a_token():
    plan = plan_chunks(
        torch.tensor([[[[0, 0, 0, 0, 0], [0, 1, 1, 1, 0]]]]), chunk_length=2, causal=True
    )
    bucketing = measure_bucketing(plan, labels=list("abcde"))
    assert bucketing.describe(0, 4) == (
        "Round 0: token 4 “e” is in bucket 0, slot 4, chunk 2. It sees 2 tokens (2, 3), and loses "
        "2 of its bucket to the window (0, 1). Other rounds see 1 of the lost, and 0 of other "
        "buckets."
    )
    assert "It sees nobody, and loses 0" in bucketing.describe(0, 0)


def test_a_sentence_counts_padding_and_says_that_it_sees_nobody():
    bucketing = measure_bucketing(plan_of(padded=3))
    assert "24 tokens (3 of them padding)" in bucketing.describe()
    assert "Token 23 is padding" in bucketing.describe(0, 23)


def test_a_sentence_names_the_sliding_window_and_what_lies_across_buckets():
    sliding = measure_bucketing(plan_of(window="sliding", within_bucket=False))
    assert "a sliding window of 4 slots" in sliding.describe()
    assert f"It sees {sliding.seen[0]} across buckets." in sliding.describe()


def test_one_token_is_described_without_stumbling():
    plan = plan_chunks(torch.zeros(1, 1, 1, 1, dtype=torch.int64), chunk_length=4, causal=True)
    assert measure_bucketing(plan).describe().endswith("Together the rounds see 0 of 0 pairs.")


def test_a_long_sequence_is_counted_without_building_length_times_length():
    generator = torch.Generator().manual_seed(0)
    buckets = torch.randint(256, (1, 1, 1, 16384), generator=generator)
    bucketing = measure_bucketing(
        plan_chunks(buckets, chunk_length=64, causal=True, n_buckets=256, chunks_before=0)
    )
    assert bucketing.mates_seen[0] + bucketing.mates_lost[0] == sum(
        size * (size - 1) // 2 for size in bucketing.sizes[0]
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 1}, r"batch must be in 0\.\.0, got 1: the plan has 1"),
        ({"head": -1}, r"head must be in 0\.\.0, got -1"),
        ({"labels": ["a"]}, "labels must name every token, got 1 for 24 tokens"),
    ],
)
def test_measuring_what_is_not_there_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        measure_bucketing(plan_of(), **wrong)


def test_buckets_beyond_the_plan_s_number_are_refused():
    six = plan_chunks(torch.tensor([[[[0, 5]]]]), chunk_length=2, causal=True, n_buckets=6)
    plan = replace(six, n_buckets=4)  # as on a GPU, where planning does not look
    with pytest.raises(ValueError, match=r"buckets must be in 0\.\.3, got 0 to 5"):
        measure_bucketing(plan)


@pytest.mark.parametrize(
    "ask",
    [
        lambda bucketing: bucketing.kinds(2),
        lambda bucketing: bucketing.describe(-1),
        lambda bucketing: plot_bucketing(bucketing, 2),
        lambda bucketing: draw_svg(bucketing, 7),
    ],
    ids=["kinds", "describe", "plot_bucketing", "draw_svg"],
)
def test_a_round_that_was_not_measured_is_refused(ask):
    with pytest.raises(ValueError, match=r"round must be in 0\.\.1, got .*: 2 were measured"):
        ask(measure_bucketing(plan_of()))


def test_a_token_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"token must be in 0\.\.23, got 24"):
        measure_bucketing(plan_of()).describe(0, 24)


# ------------------------------------------------------------------------------------- figures


def picture_of(bucketing, round=None):
    figure = plot_bucketing(bucketing, round)
    figure.canvas.draw()
    strip, in_sorted_order, in_reading_order = figure.axes
    return strip, in_sorted_order, in_reading_order


def test_the_figure_fills_a_cell_exactly_where_the_round_sees():
    bucketing = measure_bucketing(plan_of())
    kinds = bucketing.kinds(1)
    colours = np.array([to_rgb(c) for c in style.bucket_colours(4)])[bucketing.buckets[1]]
    _, in_sorted_order, in_reading_order = picture_of(bucketing, 1)
    for axes, places in (
        (in_reading_order, np.arange(24)),
        (in_sorted_order, bucketing.order[1]),
    ):
        image = axes.images[0].get_array()
        filled = (image == colours[places][:, None]).all(-1)
        assert np.array_equal(filled, (kinds == SEEN)[places][:, places])


def test_the_figure_outlines_what_is_lost_and_greys_what_other_rounds_see():
    bucketing = measure_bucketing(plan_of(rounds=4, length=60))
    kinds = bucketing.kinds(0)
    assert {*kinds.ravel()} == {HIDDEN, SEEN, LOST, ELSEWHERE, FOUND}
    _, in_sorted_order, in_reading_order = picture_of(bucketing)
    lost = ((kinds == LOST) | (kinds == FOUND)).sum()
    for axes in (in_sorted_order, in_reading_order):
        assert len(axes.collections[0].get_paths()) == lost
    grey = (in_reading_order.images[0].get_array() == to_rgb(style.ELSEWHERE)).all(-1)
    assert np.array_equal(grey, (kinds == ELSEWHERE) | (kinds == FOUND))
    blank = (in_reading_order.images[0].get_array() == 1).all(-1)
    assert np.array_equal(blank, (kinds == HIDDEN) | (kinds == LOST))


def test_with_a_token_the_figure_lights_what_it_sees_and_frames_it():
    bucketing = measure_bucketing(plan_of(rounds=4, length=60))
    token = int((bucketing.kinds(1) == LOST).sum(1).argmax())
    kinds = bucketing.kinds_for(1, token)
    assert {*kinds} >= {HIDDEN, SEEN, LOST}
    figure = plot_bucketing(bucketing, 1, token)
    figure.canvas.draw()
    strip, in_sorted_order, in_reading_order = figure.axes
    reading = [bar for bar in strip.patches if bar.get_y() == 5.2][:60]
    lost = (kinds == LOST) | (kinds == FOUND)
    lit = (kinds == SEEN) | (np.arange(60) == token)
    assert [bar.get_facecolor()[:3] == (1, 1, 1) for bar in reading] == lost.tolist()
    assert [bar.get_alpha() is None for bar in reading] == (lit | lost).tolist()
    for axes, place in (
        (in_sorted_order, bucketing.slot[1, token]),
        (in_reading_order, token),
    ):
        frame = axes.patches[-1]
        assert (frame.get_y(), frame.get_height()) == (place - 0.5, 1)
    assert "its window" in [label.get_text() for label in strip.get_yticklabels()]


def test_the_pictures_go_as_far_as_their_step():
    bucketing = measure_bucketing(plan_of())
    named = []
    for step in range(5):
        figure = plot_bucketing(bucketing, 0, 5, step)
        figure.canvas.draw()
        strip, *matrices = figure.axes
        named.append([label.get_text() for label in strip.get_yticklabels()])
        empty = [(axes.images[0].get_array() == 1).all() for axes in matrices]
        assert empty == [step < LOOK] * 2
        words = [node.text for node in ElementTree.fromstring(draw_svg(bucketing, 0, 5, step))]
        assert [name in words for name in named[-1]] == [True] * len(named[-1])
    rows = ["reading order", "bucket", "sorted order", "chunk", "its window"]
    assert named == [rows[:1], rows[:1], rows[:3], rows[:4], rows]
    assert len({draw_svg(bucketing, 0, None, step) for step in range(5)}) == 5
    for draw in (plot_bucketing, draw_svg):
        with pytest.raises(ValueError, match=r"step must be in 0\.\.4, got 5"):
            draw(bucketing, 0, None, 5)
        with pytest.raises(ValueError, match=r"token must be in 0\.\.23, got 24"):
            draw(bucketing, 0, 24)


def test_the_figure_s_strip_colours_tokens_by_bucket_and_moves_them_to_their_slots():
    bucketing = measure_bucketing(plan_of())
    strip, *_ = picture_of(bucketing)
    reading, in_order = ([bar for bar in strip.patches if bar.get_y() == y] for y in (5.2, 0.0))
    colours = [to_rgb(style.bucket_colours(4)[bucket]) for bucket in bucketing.buckets[0]]
    assert [bar.get_facecolor()[:3] for bar in reading] == colours
    assert [bar.get_facecolor()[:3] for bar in in_order] == colours
    by_place = np.argsort([bar.get_x() for bar in in_order])
    assert np.array_equal(by_place, bucketing.order[0])
    gaps = np.diff(np.sort([bar.get_x() for bar in in_order])) > 1.001
    assert np.flatnonzero(gaps).tolist() == [3, 7, 11, 15, 19]  # after every fourth slot


def test_more_buckets_than_hues_are_hatched_and_numbered():
    bucketing = measure_bucketing(plan_of(length=60, n_buckets=12))
    strip, *_ = picture_of(bucketing)
    hatched = [bar.get_hatch() is not None for bar in strip.patches[:60]]
    assert hatched == [bool(bucket % 2) for bucket in bucketing.buckets[0]]
    assert {str(b) for b, *_ in bucketing.runs(0)} >= {t.get_text() for t in strip.texts[:5]}


WORDS = ["attention", "hashing", "of", "a"]


@pytest.mark.parametrize(
    ("name", "width", "found"),
    [
        ("hashing", 50, ("hashing", False)),
        ("hashing", 30, ("has…", False)),
        ("hashing", 11, ("h…", True)),
        ("of", 11, ("of", True)),
        ("a", 11, ("a", False)),
        ("hashing", 5, ("", False)),
    ],
)
def test_a_name_without_room_is_shortened_or_stands_upright(name, width, found):
    assert name_in_cell(name, width, 18, 10) == found


@pytest.mark.parametrize("length", [16, 64])
def test_names_that_are_words_stay_in_every_picture(length):
    labels = [WORDS[i % 4] for i in range(length)]
    bucketing = measure_bucketing(plan_of(length=length), labels=labels)
    drawn = [text.get_text() for text in picture_of(bucketing)[0].texts[: 2 * length]]
    assert len([name for name in drawn if name.startswith(("att", "has"))]) == length
    assert len([name for name in drawn if name in ("of", "a")]) == length
    assert "attention" not in drawn
    words = list(ElementTree.fromstring(draw_svg(bucketing)).itertext())
    assert len([word for word in words if word in ("of", "a")]) == length
    assert len([word for word in words if re.fullmatch("(at|ha)[a-z]*…?", word)]) == length


def test_the_page_shortens_names_as_well_and_never_numbers(tmp_path, request):
    script = (
        compact_script("bucketing_view.js")
        + """
function replay(cases) {
  globalThis.window = {};
  const width = words => words.length * 0.6 * parseFloat(pen.font);
  const pen = { scale() {}, measureText: words => ({ width: width(words) }) };
  const canvas = { style: {}, getContext: () => pen };
  const { fits, short } = painter(canvas, 100, 100, { color: 'black', fontFamily: 'any' });
  return cases.map(([labels, width]) => {
    const [words, { upright }] = nameIn({ data: { labels }, fits, short }, 12, width);
    return [words, !!upright];
  });
}"""
    )
    labels = [WORDS[0]] * 13
    cases = [(labels, 90), (labels, 40), (labels, 14), (["a"] * 13, 9), (None, 20), (None, 9)]
    assert run(script, cases, tmp_path, request) == [
        ["attention", False],
        ["atten…", False],
        ["at…", True],
        ["a", False],
        ["12", False],
        ["", False],
    ]


def long_bucketing(causal):
    length = MOST_PAIRWISE + 300
    return measure_bucketing(plan_of(length=length, n_buckets=6, chunk_length=16, causal=causal))


def numbers_of(texts):
    return [int(text.replace(",", "")) for text in texts if text.replace(",", "").isdigit()]


def test_chunks_that_are_too_many_to_be_numbered_are_numbered_at_equal_steps(tmp_path, request):
    bucketing = measure_bucketing(plan_of(length=4096, n_buckets=64, chunk_length=64))
    svg = ElementTree.fromstring(draw_svg(bucketing))
    height = max(float(text.get("y")) for text in svg.iter(f"{SVG}text") if text.text == "chunk")
    row = [text.text for text in svg.iter(f"{SVG}text") if float(text.get("y")) == height]
    assert numbers_of(row) == list(range(0, 64, 3))
    script = (
        compact_script("bucketing_view.js")
        + """
function replay(cases) { return cases.map(least => everyFew(k => k >= least)); }"""
    )
    assert run(script, [0, 2, 3, 6, 11, 60, 700], tmp_path, request) == [1, 2, 5, 10, 20, 100, 1000]


def test_a_long_picture_says_what_it_adds_and_both_its_axes_write_numbers_alike():
    figure = plot_bucketing(long_bucketing(causal=True))
    figure.canvas.draw()
    [key] = figure.legends
    box, page = key.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert [text.get_text() for text in key.get_texts()] == [
        "seen by this round (stronger: more pairs)",
        "of several buckets",
        "same bucket, lost to the window",
        "seen by another round",
        "the window",
    ]
    assert key.get_patches()[2].get_alpha() == figure.axes[1].patches[0].get_alpha()
    assert "1,000" in [label.get_text() for label in figure.axes[2].get_xticklabels()]


@pytest.mark.parametrize("causal", [True, False])
def test_many_pairs_are_drawn_in_bins_and_what_buckets_lose_as_tinted_blocks(causal):
    bucketing = long_bucketing(causal)
    _, in_sorted_order, in_reading_order = picture_of(bucketing)
    for axes, is_sorted in ((in_sorted_order, True), (in_reading_order, False)):
        bins = bucketing.binned(0, is_sorted, 256)
        image = axes.images[0].get_array()
        seen = bins.seen > 0
        depth = 0.25 + 0.75 * np.sqrt(bins.seen / bins.seen.max())
        assert np.allclose(image[seen, 3], depth[seen])
        grey = np.zeros_like(seen) if is_sorted else bins.elsewhere & ~seen
        assert np.array_equal((image[..., 3] == 1) & ~seen, grey)
        one = seen & (bins.bucket != SEVERAL)
        colours = np.array([to_rgb(colour) for colour in style.bucket_colours(6)])
        assert np.allclose(image[one, :3], colours[bins.bucket[one]])
    blocks = [patch.get_xy() for patch in in_sorted_order.patches]
    runs = [(first, last) for _, first, last in bucketing.runs(0)]
    assert [(xy.min(), xy.max()) for xy in blocks] == runs
    assert {len(xy) for xy in blocks} == {4 if causal else 5}  # closed: triangles or squares


def test_many_tokens_share_a_cell_of_the_strip_and_some_show_their_way():
    bucketing = long_bucketing(True)
    strip, *_ = picture_of(bucketing)
    reading, in_order = ([bar for bar in strip.patches if bar.get_y() == y] for y in (5.2, 0.0))
    assert len(reading) == len(in_order) == 662
    colours = [to_rgb(c) for c in style.bucket_colours(6)]
    shown = [colours[bucket] for bucket in bucketing.buckets[0, ::2]]
    assert [bar.get_facecolor()[:3] for bar in reading] == shown
    assert len(strip.collections[0].get_paths()) <= 512
    svg = draw_svg(bucketing)
    assert len(svg) < 150_000
    ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    "shape",
    [
        {"length": 1},
        {"length": 2, "chunk_length": 64},
        {"length": 300, "n_buckets": 16, "chunk_length": 32},
        {"length": 20, "padded": 20},
        {"length": 1100, "padded": 300, "causal": False, "chunks_after": 1, "window": "sliding"},
        {"window": "sliding", "causal": False, "chunks_after": 1, "within_bucket": False},
    ],
    ids=str,
)
def test_any_plan_is_drawn_in_print_and_as_svg(shape):
    bucketing = measure_bucketing(plan_of(**shape))
    picture_of(bucketing, 1)
    ElementTree.fromstring(draw_svg(bucketing, 1))


def test_the_svg_fills_as_many_cells_as_the_round_sees():
    bucketing = measure_bucketing(plan_of())
    svg = ElementTree.fromstring(draw_svg(bucketing))
    squares = [g for g in svg if g.tag.endswith("}g")]
    assert len(squares) == 2
    for square in squares:
        cells = square[-1]
        filled = [p.get("d") for p in cells if p.get("fill") in style.bucket_colours(4)]
        widths = [int(run.split("h")[1].split("v")[0]) for d in filled for run in d.split("M")[1:]]
        assert sum(widths) == bucketing.seen[0]
        hollow = [p.get("d").count("M") for p in cells if p.get("fill") == "none"]
        assert sum(hollow) == bucketing.mates_lost[0]


def test_the_svg_is_the_same_every_time_and_small():
    bucketing = explore_bucketing().data
    assert draw_svg(bucketing) == draw_svg(bucketing)
    assert len(draw_svg(bucketing)) < 30_000
    long = measure_bucketing(plan_of(length=1024, n_buckets=32, chunk_length=64))
    assert len(draw_svg(long)) < 150_000


# ------------------------------------------------------------------------------------- explorer


def test_moving_a_control_moves_the_data_the_sentence_and_what_the_page_gets():
    panel = explore_bucketing()
    before = repr(panel)
    panel.controls["n_buckets"].value = 4
    assert panel.data.buckets.max() == 3
    assert repr(panel).startswith("64 tokens, 4 buckets, 4 rounds, chunks of 8.")
    assert repr(panel) != before
    assert panel._link.data["buckets"] == as_letters(panel.data)


def test_rounds_chunk_length_and_window_are_places_of_data_that_stay_as_they_are():
    panel = explore_bucketing()
    shipped = panel._link.data
    panel.place = {"rounds": 3, "chunk_length": 16, "window": "sliding"}
    assert repr(panel).startswith("64 tokens, 8 buckets, 3 rounds, a sliding window of 16 slots.")
    assert "chunks of 16: round 0 of 0–2" in panel.figure.axes[0].get_title(loc="left")
    panel.place = {"chunk_length": 4, "window": None}
    assert repr(panel).startswith("64 tokens, 8 buckets, 3 rounds, chunks of 4.")
    assert panel.state["chunk_length"] == 4
    assert panel._link.data is shipped
    assert panel.data.buckets.shape == (8, 64)


def test_the_first_rounds_and_another_rule_are_what_planning_them_measures():
    whole, words = plan_of(rounds=4), [f"<{i}>" for i in range(24)]
    rule = {"chunk_length": 6, "window": "sliding", "within_bucket": False}
    fewer = plan_chunks(whole.buckets[:, :, :2], **whole.rule() | rule)
    other = measure_bucketing(whole, labels=words).under(rounds=2, **rule)
    wanted = measure_bucketing(fewer, labels=words)
    assert [other.describe(1, i) for i in range(24)] == [wanted.describe(1, i) for i in range(24)]
    assert other.describe() == wanted.describe()
    same = measure_bucketing(whole)
    assert same.under(rounds=4, window="chunks") is same
    with pytest.raises(ValueError, match=r"rounds must be in 1\.\.4, got 5: so many were hashed"):
        same.under(rounds=5)


def as_letters(bucketing):
    return [letters(row, bucketing.n_buckets) for row in bucketing.buckets]


def test_the_explorer_s_figure_is_the_picture_of_its_data():
    panel = explore_bucketing()
    panel.place = {"round": 2}
    assert "round 2 of 0–3" in panel.figure.axes[0].get_title(loc="left")


def test_new_rotations_hash_anew_and_more_rounds_keep_the_earlier_ones():
    panel = explore_bucketing()
    first = panel.data.buckets
    assert np.array_equal(explore_bucketing(n_hashes=11).data.buckets[:8], first)
    panel.controls["new_rotations"].click()
    assert panel.state["rotations"] == 1
    assert not np.array_equal(panel.data.buckets, first)
    panel.controls["rotations"].value = 0
    assert np.array_equal(panel.data.buckets, first)


def test_noise_pulls_tokens_of_one_letter_apart():
    panel = explore_bucketing(noise=0.0)

    def buckets_of_a_letter(bucketing):
        letters = np.array(bucketing.labels)
        return [set(bucketing.buckets[0][letters == letter]) for letter in set(letters)]

    assert all(len(buckets) == 1 for buckets in buckets_of_a_letter(panel.data))
    panel.controls["noise"].value = 1.5
    assert max(len(buckets) for buckets in buckets_of_a_letter(panel.data)) > 3


def test_given_vectors_are_hashed_as_they_were_when_given():
    vectors = torch.randn(2, 20, 8)
    panel = explore_bucketing(vectors, n_buckets=4, labels=[f"w{i}" for i in range(20)])
    before = panel.data.buckets
    vectors.zero_()
    panel.controls["noise"].value = 0.5
    panel.controls["noise"].value = 0.0
    assert np.array_equal(panel.data.buckets, before)
    panel.controls["head"].value = 1
    assert not np.array_equal(panel.data.buckets, before)
    assert panel.data.labels[3] == "w3"
    assert "Given vectors: 20 tokens" in panel._link.data["caption"]


def test_the_caption_says_that_made_up_data_are_made_up():
    assert explore_bucketing()._link.data["caption"].startswith("Made-up data, no model")


def test_the_default_picture_does_not_hang_on_rounding():
    sequence = make_sequence(64, DEFAULT_SEED)
    vectors = sequence.vectors[0] + DEFAULT_NOISE * sequence.push[0]
    for round in range(4):
        directions = draw_rotations(1, 1, 16, 8, hash_generator(DEFAULT_SEED, round, 0))[0, 0]
        both = torch.cat([vectors @ directions, -(vectors @ directions)], dim=-1)
        assert torch.equal(both.argmax(-1), torch.tensor(explore_bucketing().data.buckets[round]))
        best, second = both.topk(2, dim=-1).values.T
        assert (best - second).min() > 1e-4


def test_looking_never_touches_the_global_random_numbers():
    before = torch.get_rng_state()
    panel = explore_bucketing()
    panel.state = {"n_buckets": 16, "rounds": 8, "chunk_length": 4, "noise": 1.0}
    panel.controls["new_rotations"].click()
    assert torch.equal(torch.get_rng_state(), before)


def losses_of_a_small_run():
    task = Duplicate(vocab_size=8, length=16)
    config = ReformerConfig(
        vocab_size=8, d_model=16, n_layers=1, n_heads=2, chunk_length=4, max_length=16, dropout=0.1
    )
    return train(ReformerLM(config), task, TrainConfig(steps=4, batch_size=2)).losses


def test_looking_while_a_model_trains_changes_none_of_its_losses():
    torch.manual_seed(3)
    undisturbed = losses_of_a_small_run()
    panel, over, moves = explore_bucketing(), threading.Event(), 0

    def look():
        nonlocal moves
        while not over.is_set():
            panel.controls["noise"].value = moves % 20 / 20
            panel.controls["new_rotations"].click()
            moves += 1
            time.sleep(0.005)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        torch.manual_seed(3)
        disturbed = losses_of_a_small_run()
    finally:
        over.set()
        thread.join()
    assert moves > 5
    assert disturbed == undisturbed


def test_controls_may_be_moved_by_several_threads_at_once():
    panel = explore_bucketing()

    def move(name, values):
        for value in values:
            panel.controls[name].value = value
            time.sleep(0.001)

    threads = [
        threading.Thread(target=move, args=("n_buckets", [2, 6, 10, 4] * 5)),
        threading.Thread(target=move, args=("rotations", [2, 9, 5, 16] * 5)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = explore_bucketing(n_buckets=4, rotations=16)
    assert panel._link.data["buckets"] == as_letters(panel.data) == as_letters(alone.data)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ({"n_buckets": 7}, "n_buckets must be even and positive, got 7"),
        ({"n_hashes": 0}, "n_hashes must be at least 1, got 0"),
        ({"chunk_length": 0}, "chunk_length must be at least 1, got 0"),
        ({"n_tokens": 0}, "n_tokens must be at least 1, got 0"),
        ({"n_tokens": MOST_TOKENS + 1}, "at most 16,384 tokens, got 16,385: give it a part"),
        ({"chunks_after": 1}, "chunks_after must be 0 when causal, got 1"),
        ({"vectors": torch.zeros(0, 4)}, r"vectors must not be empty, got \(0, 4\)"),
        ({"vectors": torch.zeros(1, 1, 2, 4)}, "of a batch give one sequence, such as qk"),
        ({"vectors": np.ones(4)}, r"vectors must have the shape .* got \(4,\)"),
        ({"vectors": torch.full((3, 4), torch.nan)}, "got NaN or infinity at token 0 of head 0"),
        ({"vectors": torch.ones(3, 4), "labels": ["a"]}, "labels must name every token, got 1"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_a_sentence_in_the_picture_s_place(ask, sentence):
    panel = explore_bucketing(**ask)
    with pytest.raises(ValueError, match=sentence):
        _ = panel.figure
    assert panel.problem == repr(panel)
    assert panel.data is None
    assert panel._link.data == {"problem": panel.problem}
    assert panel.problem.split(",")[0].split('"')[0] in panel._html()


def test_a_problem_goes_away_with_its_cause():
    panel = explore_bucketing(n_buckets=7)
    assert panel.problem
    panel.controls["n_buckets"].value = 8
    assert panel.problem is None
    assert panel.data.n_buckets == 8


# -------------------------------------------------------------------------------- what is stored


def test_the_stored_page_is_the_same_every_time():
    first, second = explore_bucketing(), explore_bucketing()
    without_key = [panel._html().replace(panel._key, "KEY") for panel in (first, second)]
    assert without_key[0] == without_key[1]
    assert first._key[:12] == second._key[:12]
    assert len(first._html()) < 70_000


def test_two_panels_that_show_the_same_have_keys_of_their_own():
    assert explore_bucketing()._key != explore_bucketing()._key


class Shell:
    """What a panel asks of the notebook's kernel: which cell runs, and how often cells have run."""

    user_ns: ClassVar = {}

    def run(self, cell):
        self.execution_count = getattr(self, "execution_count", 0) + 1
        self._parent = {"metadata": {"cellId": cell}}

    def get_parent(self):
        return self._parent


def test_a_cell_that_runs_again_shows_the_same_page_and_closes_the_former_panel(monkeypatch):
    shell = Shell()
    monkeypatch.setattr("reformer_viz.widgets.panel.get_ipython", lambda: shell)
    shell.run("cell a")
    first, twin = explore_bucketing(seed=99), explore_bucketing(seed=99)
    shell.run("cell b")
    other = explore_bucketing(seed=99)
    shell.run("cell a")
    again = explore_bucketing(seed=99)
    assert len({first._key, twin._key, other._key}) == 3
    assert again._html() == first._html()
    assert first._link.comm is None
    assert twin._link.comm is not None
    assert other._link.comm is not None


def test_the_page_holds_its_data_its_script_and_a_picture_and_asks_nobody_for_anything():
    page = explore_bucketing()._html()
    assert 'src="data:image/svg+xml,' in page
    assert "function planRound" in page
    assert "//" not in page.replace("http://www.w3.org", "").replace("https://", "")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_what_a_user_typed_stays_text():
    evil = ["</script><script>alert(1)</script>", '"><img onerror=x>', "&lt;", "\u2028"]
    panel = explore_bucketing(torch.randn(4, 8), labels=evil, chunk_length=2)
    panel.place = {"token": 0}
    page = panel._html()
    assert page.count("<script") == 1
    assert page.count("</script>") == 1
    assert "onerror=x>" not in page.split("<script")[0].replace("&gt;", "")
    ElementTree.fromstring(draw_svg(panel.data))


def test_a_saved_page_is_whole_and_titled(tmp_path):
    path = explore_bucketing().save_html(tmp_path / "page.html")
    text = path.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "<title>Who sees whom: buckets, chunks and rounds</title>" in text
    assert len(text) < 100_000


def test_the_largest_page_stays_below_two_megabytes(tmp_path):
    ask = {"n_tokens": MOST_TOKENS, "n_buckets": 64, "place": {"rounds": 1}}
    panel = explore_bucketing(n_hashes=MOST_LETTERS // MOST_TOKENS, **ask)
    assert panel.save_html(tmp_path / "page.html").stat().st_size < 2e6
    more = explore_bucketing(n_hashes=MOST_LETTERS // MOST_TOKENS + 1, **ask)
    assert more.problem == (
        "a page carries at most 1,400,000 letters of bucket numbers, got 1,409,024: show fewer "
        "rounds, or a part of the sequence"
    )


def test_a_notebook_stores_one_output_the_page_and_the_sentence(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "reformer_viz.widgets.panel.display", lambda what, **options: shown.append((what, options))
    )
    panel = explore_bucketing()
    panel._ipython_display_()
    [(bundle, options)] = shown
    assert options == {"raw": True}
    assert bundle == {"text/plain": repr(panel), "text/html": panel._html()}


def test_in_colab_the_link_is_displayed_as_well(monkeypatch):
    shown = []
    monkeypatch.setattr("reformer_viz.widgets.panel.display", lambda what, **_: shown.append(what))
    monkeypatch.setitem(sys.modules, "google.colab", object())
    panel = explore_bucketing()
    panel._ipython_display_()
    assert shown[1] is panel._link
