"""The leak's pictures and its explorer; what is measured is tested with sparsity."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from reformer_viz import explore_leak, plot_leak, plotly_leak, style
from reformer_viz.figures.table import rows_of

COLOURS = {"kept": style.ELSEWHERE, "lost": style.PALETTE[5], "gained": style.PALETTE[0]}


def leak_of(length):
    return explore_leak(n_tokens=length, n_hashes=4).data


def summed(cells, share):
    """Add up cells in squares of `share` a side; the last ones may be smaller."""
    size = -(-len(cells) // share) * share
    whole = np.zeros((size, size), dtype=int)
    whole[: len(cells), : len(cells)] = cells
    return whole.reshape(size // share, share, size // share, share).sum((1, 3))


def test_the_figure_colours_what_changed():
    leak = leak_of(200)
    chunks, sliding = plot_leak(leak).axes
    rule = leak.rules["chunks"]
    image = chunks.images[0].get_array()
    for kind, colour in COLOURS.items():
        there = getattr(rule, kind) > 0
        assert there.any()
        assert np.array_equal((image == to_rgb(colour)).all(-1), there)
    assert f"{rule.changed.sum()} of 100 rows change" in chunks.get_title(loc="left")
    assert sliding.get_title(loc="left") == "Sliding rule: 0 of 100 rows change"


@pytest.mark.parametrize(
    ("length", "share", "positions"), [(200, 1, 1), (700, 4, 4), (5000, 6, 30)]
)
def test_the_chart_has_the_figure_s_cells_and_tells_their_counts(length, share, positions):
    leak = leak_of(length)
    chart = plotly_leak(leak)
    for trace, rule in zip(chart.data[:2], leak.rules.values(), strict=True):
        counts = [summed(getattr(rule, kind), share) for kind in COLOURS]
        kinds = np.full(counts[0].shape, np.nan)
        for kind, cells in enumerate(counts):
            kinds[cells > 0] = kind
        assert np.array_equal(trace.z, kinds, equal_nan=True)
        assert len(kinds) <= 128
        assert trace.x.tolist() == [k * positions + (positions - 1) / 2 for k in range(len(kinds))]
        texts = np.array(trace.text)
        assert np.array_equal(texts == "", np.isnan(kinds))
        row, column = np.argwhere(counts[1] > 0)[0] if counts[1].any() else (1, 0)
        if positions > 1 and counts[1].any():
            number = counts[1][row, column]
            said = f"{number:,} {'pair' if number == 1 else 'pairs'} seen only before"
            assert said in texts[row, column].split("<br>")
    scale = dict(chart.data[0].colorscale)
    assert set(scale.values()) == set(COLOURS.values())
    assert [trace.name for trace in chart.data[2:]] == [
        "seen before and after", "seen only before", "seen only after"
    ]  # fmt: skip


def test_the_still_picture_has_the_three_colours_and_no_other():
    svg = explore_leak(n_tokens=256, n_hashes=4)._chart.picture()
    cells = [part.split('"')[0] for part in svg.split('fill="')[1:] if "crispEdges" in part]
    assert {colour.lower() for colour in cells} == {colour.lower() for colour in COLOURS.values()}


def test_the_table_lists_the_pairs_that_are_seen_and_what_becomes_of_them():
    leak = explore_leak(n_tokens=56, n_buckets=2, n_hashes=1, chunk_length=6).data
    head, *rows = rows_of(plotly_leak(leak))
    rule = leak.rules["chunks"]
    assert head[-3:] == ["position of the key", "position of the query", "pairs"]
    ours = [row for row in rows if "Chunk rule" in row]
    assert len(ours) == (rule.kept + rule.lost + rule.gained).sum()
    gone = {(int(key), int(query)) for *_, key, query, said in ours if said == "seen only before"}
    assert gone == {(key, query) for query, key in np.argwhere(rule.lost).tolist()}
    assert gone


# -------------------------------------------------------------------------------------- explorer


def test_moving_a_control_moves_the_leak_the_sentence_and_the_cells():
    panel = explore_leak(n_tokens=120)
    assert panel.data.cut == 60
    assert (panel.controls["cut"].min, panel.controls["cut"].max) == (1, 119)
    first = repr(panel)
    assert first == panel.data.describe()
    panel.state = {"cut": 90, "n_buckets": 2, "n_hashes": 1, "chunk_length": 8}
    assert len(panel.data.rules["chunks"].changed) == 90
    assert repr(panel) != first
    before = panel.data.rules["chunks"]
    panel.controls["future"].value = 5
    after = panel.data.rules["chunks"]
    assert not np.array_equal(before.lost, after.lost)
    assert not panel.data.rules["sliding"].changed.any()
    assert panel.code == (
        "explore_leak(n_tokens=120, cut=90, future=5, n_buckets=2, n_hashes=1, chunk_length=8, "
        "noise=0.4, rotations=0)"
    )
    assert len(panel.figure.axes) == 2


def test_one_s_own_vectors_and_hash_are_what_leaks():
    vectors = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    panel = explore_leak(vectors, hash=lambda x: (x[..., 0] > 0).long(), chunk_length=4, head=1)
    same = (vectors[1, :25, 0] > 0).numpy()
    rule = panel.data.rules["sliding"]
    query, key = np.argwhere(rule.kept).T
    assert len(query)
    assert (same[query] == same[key]).all()


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ({"cut": 0}, "cut must be in 1..255, got 0: some of the 256 tokens must stand before"),
        ({"cut": 256}, "cut must be in 1..255, got 256"),
        ({"causal": False}, "a leak needs a causal plan, got causal=False"),
        ({"n_buckets": 7}, "n_buckets must be even and positive, got 7"),
        ({"n_tokens": 16_385}, "the explorer draws at most 16,384 tokens, got 16,385"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_shown_is_a_sentence_in_the_picture_s_place(ask, sentence):
    panel = explore_leak(**ask)
    assert sentence in panel.problem
    assert panel.data is None
