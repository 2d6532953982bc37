"""The sparsity explorer: its page counts and says what Python does, and its controls move both."""

import random
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from reformer_core import ReformerConfig, ReformerLM, plan_chunks
from reformer_viz import explore_sparsity, measure_sparsity, plot_sparsity, style
from reformer_viz.figures.sparsity_svg import draw_svg, weight_levels
from reformer_viz.measure.pairs import Grid
from reformer_viz.measure.sparsity_by_rule import (
    READING,
    WINDOWS,
    full_weights,
    measure_sparsity_by_rule,
)
from reformer_viz.widgets.panel import compact_script
from reformer_viz.widgets.sparsity import MOST_TOKENS, SparsityView
from tests.viz.test_plan_view import random_plan, run

N_PLANS = 80

# Runs in Node and in a page alike. A case holds what is shipped, and the places to look at it from.
REPLAY = """
function replay(cases) {
  return cases.map(({ data, places }) => places.map(place => {
    const { window, chunk_length, rounds, order, row, column } = place;
    const rule = ruleOf(data, window, chunk_length);
    const plans = data.buckets.map(buckets => planRound(buckets, rule));
    const counts = countFirstSeen(plans, data, order, rounds);
    const known = countFirstSeen(plans, data, order, Math.ceil(rounds / 2));
    const view = {
      data, rule, plans, counts, rounds, order, totals: counts.map(sum), tiles: wholeTiles(rule),
      mass: data.mass[window][data.chunk_lengths.indexOf(chunk_length)],
    };
    return {
      counts: counts.map(of => [...of]),
      continued: countFirstSeen(plans, data, order, rounds, known).map(of => [...of]),
      all: describeAll(view),
      cell: describeCell(view, row, column),
    };
  }));
}
"""


def vectors_for(plan, seed=0, d_head=5):
    batch, heads, _, length = plan.buckets.shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, heads, length, d_head, generator=generator)


def has_pairs(plan):
    return plan.buckets.shape[-1] - (0 if plan.padding is None else plan.padding.sum()) > 1


def random_places(data, dice, number=6):
    cells = data.grid.n_cells
    return [
        {
            "window": dice.choice(WINDOWS),
            "chunk_length": dice.choice(data.chunk_lengths),
            "rounds": dice.randint(1, data.n_rounds),
            "order": dice.randint(READING, data.n_rounds - 1),
            "row": dice.randrange(cells),
            "column": dice.randrange(cells),
        }
        for _ in range(number)
    ]


@pytest.fixture(scope="module")
def looked_at():
    """Plans of every sort under several rules, and places to look at them from."""
    dice = random.Random(1)
    plans = filter(has_pairs, (random_plan(dice) for _ in range(N_PLANS)))
    measured = []
    for plan in plans:
        length = plan.buckets.shape[-1]
        labels = [f"<{i}>" for i in range(length)] if dice.random() < 0.5 else None
        data = measure_sparsity_by_rule(
            plan, vectors_for(plan), chunk_lengths=[2, 5], labels=labels
        )
        data = replace(data, grid=Grid(length, dice.choice([1, 1, 2, 3, 7])))
        measured.append((data, random_places(data, dice)))
    return measured


@pytest.fixture(scope="module")
def replayed(looked_at, tmp_path_factory, request):
    view = SparsityView(lambda: "")
    cases = [{"data": view.ship(data), "places": places} for data, places in looked_at]
    script = compact_script("sparsity_view.js") + REPLAY
    return run(script, cases, tmp_path_factory.mktemp("node"), request)


def test_the_page_counts_the_pairs_that_python_counts(looked_at, replayed):
    for (data, places), found in zip(looked_at, replayed, strict=True):
        for place, here in zip(places, found, strict=True):
            counts = data.cells(place["window"], place["chunk_length"], place["order"])
            assert here["counts"] == [list(map(int, c.ravel())) for c in counts[: place["rounds"]]]
            assert here["continued"] == here["counts"]


def test_the_page_says_the_sentences_that_python_says(looked_at, replayed):
    view = SparsityView(lambda: "")
    for (data, places), found in zip(looked_at, replayed, strict=True):
        for place, here in zip(places, found, strict=True):
            assert here["all"] == view.describe(data, place | {"row": None})
            assert here["cell"] == view.describe(data, place)


def test_the_table_lists_every_pair_by_the_round_that_sees_it_first(looked_at, tmp_path, request):
    view = SparsityView(lambda: "")
    cases = [
        {"data": view.ship(data), "place": place} for data, places in looked_at for place in places
    ]
    script = (
        compact_script("sparsity_view.js")
        + """
function replay(cases) {
  return cases.map(({ data, place }) => {
    const { window, chunk_length, rounds, order, row } = place;
    const rule = ruleOf(data, window, chunk_length);
    const plans = data.buckets.map(buckets => planRound(buckets, rule));
    const counts = countFirstSeen(plans, data, order, rounds);
    return cellRowsOf({ data, plans, counts, rounds, order, row });
  });
}"""
    )
    tables = iter(run(script, cases, tmp_path, request))
    for data, places in looked_at:
        for place in places:
            head, *rows = next(tables)
            counts = data.cells(place["window"], place["chunk_length"], place["order"])
            assert len(rows) == data.grid.n_cells
            assert len(head) == len(rows[0])
            exact = data.grid.per_cell == 1
            for round in range(place["rounds"]):
                listed = [row[1 + round].split(", " if exact else "; ") for row in rows]
                cells = [[cell for cell in of_row if cell] for of_row in listed]
                assert [len(of_row) for of_row in cells] == (counts[round] > 0).sum(1).tolist()
                if exact and place["order"] == READING:
                    seen = [np.flatnonzero(of_row).tolist() for of_row in counts[round]]
                    assert [[int(key) for key in of_row] for of_row in cells] == seen
                elif not exact:
                    pairs = [sum(int(cell.split(": ")[1]) for cell in of_row) for of_row in cells]
                    assert pairs == counts[round].sum(1).tolist()


def test_the_table_names_the_keys_that_full_attention_likes_best(tmp_path, request):
    panel = explore_sparsity()
    script = (
        compact_script("sparsity_view.js")
        + """
function replay(cases) {
  return cases.map(([data, query]) => heaviestOf(data, query, num));
}"""
    )
    found = run(script, [[panel._link.data, query] for query in range(1, 64)], tmp_path, request)
    weights = panel.data.under("chunks", 8).mass.weights
    for query, words in enumerate(found, start=1):
        key, share = words.split("; ")[0].split(": ")
        top, weight = panel._link.data["top"], np.nan_to_num(weights[query])[int(key)]
        assert weight > 0.9 * min(np.nanmax(weights[query]), top)
        said = float(share.removeprefix("at least ").removesuffix(" %")) / 100
        assert said == pytest.approx(min(weight, top), rel=0.1)


@pytest.mark.parametrize("n_hashes", [4, 12])
def test_more_rounds_than_hues_are_told_apart_by_stripes_and_numbers_too(n_hashes):
    panel = explore_sparsity(n_hashes=n_hashes)
    sparsity = panel.data.under("chunks", 8)
    many = n_hashes > len(style.PALETTE)
    assert panel._link.data["hatched"] == many
    picture = panel.figure
    hatched = [patch.get_hatch() is not None for patch in picture.legends[0].get_patches()]
    assert hatched == [many and bool(round % 2) for round in range(n_hashes)] + [False]
    stripes = sum(len(of.get_paths()) for of in picture.axes[0].collections)
    odd = sparsity.pairs_first_seen[1:n_hashes:2].sum()
    assert stripes == (odd if many else 0)
    svg = ElementTree.fromstring(panel._view.draw_svg(panel.data, panel.place))
    edges = [
        float(box.get("x")) + float(box.get("width"))
        for box in svg.iter("{http://www.w3.org/2000/svg}rect")
        if box.get("x")
    ]
    assert max(edges) <= 800
    moved = [p for p in svg.iter("{http://www.w3.org/2000/svg}path") if p.get("transform")]
    assert sum(p.get("d").count("v.3") for p in moved) > 0 if many else not moved


def test_the_places_are_of_every_sort(looked_at):
    sentences = [
        SparsityView(lambda: "").describe(data, place)
        for data, places in looked_at
        for place in places
    ]
    for words in (
        "is the first to see the pair.",
        "no round sees the pair.",
        "the round does not see the pair.",
        "nobody sees later tokens.",
        "only where there is nobody else.",
        "padding is in no pair.",
        "Queries in round 1's slots",
        "“<3>”",
        "the rounds see 1 pair: ",
    ):
        assert any(words in sentence for sentence in sentences), words
    assert any(data.plan.chunks_before == 0 for data, _ in looked_at)


def test_estimates_are_said_alike_in_the_page(tmp_path, request):
    generator = torch.Generator().manual_seed(0)
    panel = explore_sparsity(
        torch.randn(2000, 8, generator=generator), n_buckets=64, chunk_length=32, n_hashes=2
    )
    place = panel.place | {"window": "chunks", "chunk_length": 32, "row": 3, "column": 1}
    script = compact_script("sparsity_view.js") + REPLAY
    [[found]] = run(script, [{"data": panel._link.data, "places": [place]}], tmp_path, request)
    assert found["all"] == repr(panel)
    assert "(standard error " in found["all"]
    assert ": 524 of 1,999 queries drawn). " in found["all"]
    panel.place = place
    assert found["cell"] == repr(panel)
    assert found["cell"].startswith("Queries 12 to 15, keys 4 to 7: the rounds see ")


# -------------------------------------------------------------------------------------- measure


def test_a_rule_finds_what_measuring_its_plan_finds(looked_at):
    for data, places in looked_at[::10]:
        qk = vectors_for(data.plan)
        for place in places[:2]:
            rule = place["window"], place["chunk_length"]
            alone = measure_sparsity(data.plan_under(*rule), qk)
            under = data.under(*rule)
            assert under.mass_found == pytest.approx(alone.mass_found, rel=1e-5)
            assert under.tiles == alone.tiles
            assert np.array_equal(under.pairs_first_seen, alone.pairs_first_seen)


@pytest.mark.parametrize("length", [24, 1300])
@pytest.mark.parametrize("causal", [True, False])
def test_weights_that_are_known_already_change_nothing(causal, length):
    plan = plan_chunks(
        torch.randint(4, (1, 1, 3, length), generator=torch.Generator().manual_seed(length)),
        n_buckets=4,
        chunk_length=4,
        causal=causal,
        chunks_after=int(not causal),
    )
    vectors = vectors_for(plan)
    full = full_weights(vectors[0, 0], causal, seed=5)
    anew, known, again = (
        measure_sparsity_by_rule(plan, vectors, chunk_lengths=[2, 8], seed=5, full=given)
        for given in (None, full, full)
    )
    assert anew.masses[WINDOWS[0], 2].sampled == (length > 1024)
    for rule, mass in anew.masses.items():
        for other in (known.masses[rule], again.masses[rule]):
            assert np.array_equal(mass.queries, other.queries)
            assert np.array_equal(mass.found, other.found)
            assert np.array_equal(mass.weights, other.weights, equal_nan=True)


def test_in_a_round_s_sorted_order_its_pairs_stand_in_its_runs():
    plan = explore_sparsity().data.plan
    data = measure_sparsity_by_rule(plan, vectors_for(plan))
    counts = data.cells("chunks", 8, order=2)
    visible = plan.visible()[0, 0].numpy()
    order = plan.order[0, 0, 2].numpy()
    in_order = visible[:, order][:, :, order]
    assert np.array_equal(counts[2] == 1, in_order[2] & ~in_order[:2].any(0))
    assert np.array_equal(counts.sum(0), in_order.any(0))


def test_a_rule_that_was_not_weighed_is_refused():
    data = explore_sparsity().data
    with pytest.raises(ValueError, match="a chunk length of 2, 4, 8, 16, 32, got chunks with 3"):
        data.under("chunks", 3)


# ------------------------------------------------------------------------------------- explorer


def traced(**config):
    torch.manual_seed(3)
    config = {"n_layers": 3, "attention": ("local", "lsh", "lsh")} | config
    model = ReformerLM(
        ReformerConfig(
            vocab_size=11, d_model=16, n_heads=2, chunk_length=8, max_length=64, **config
        )
    )
    return model.trace(torch.randint(11, (1, 40)))


def test_a_model_s_layers_and_heads_are_shown_as_it_used_them():
    trace = traced()
    panel = explore_sparsity(trace)
    assert panel.state["layer"] == 1
    panel.controls["layer"].value = 2
    panel.controls["head"].value = 1
    lsh = trace.layers[2]
    alone = measure_sparsity(lsh.plan, lsh.qk, head=1)
    assert repr(panel) == alone.describe()
    assert panel._link.data["buckets"] == lsh.plan.buckets[0, 1].tolist()


def test_moving_a_control_or_the_place_moves_the_sentence_and_what_the_page_gets():
    panel = explore_sparsity()
    assert repr(panel).startswith("64 tokens, 8 buckets, 4 rounds, chunks of 8.")
    before = panel._link.data["buckets"]
    panel.controls["new_rotations"].click()
    assert panel._link.data["buckets"] != before
    panel.controls["n_buckets"].value = 4
    panel.place = {"rounds": 2, "window": "sliding", "chunk_length": 16}
    assert repr(panel).startswith("64 tokens, 4 buckets, 2 rounds, a sliding window of 16 slots.")
    panel.place = {"row": 9, "column": 9}
    letter = panel.data.labels[9]
    assert repr(panel) == (
        f"Query 9 “{letter}”, key 9 “{letter}”: a token looks at itself only where there is "
        f"nobody else."
    )


def test_a_place_beyond_the_data_is_brought_back():
    panel = explore_sparsity()
    words = repr(panel)
    panel.place = {"rounds": 99, "chunk_length": 1000, "order": 50}
    assert repr(panel).startswith("64 tokens, 8 buckets, 8 rounds, chunks of 8.")
    panel.place = {"rounds": 4, "row": 999, "column": -5}
    assert repr(panel).startswith("Query ")
    panel.place = {"row": None, "column": None}
    assert repr(panel) == words


def test_the_explorer_s_figure_is_the_picture_of_its_place():
    panel = explore_sparsity()
    panel.place = {"rounds": 3, "window": "sliding"}
    shown = panel.data.under("sliding", 8)
    expected = plot_sparsity(shown, 3).axes[0].images[0].get_array()
    assert np.array_equal(panel.figure.axes[0].images[0].get_array(), expected)


def test_the_explorer_s_figure_is_in_the_order_that_was_chosen_and_marks_the_pair():
    panel = explore_sparsity(place={"order": 1, "row": 9, "column": 3})
    seen, weights, *_ = panel.figure.axes
    cells = panel.data.cells("chunks", 8, 1)[:4]
    filled = (seen.images[0].get_array() != to_rgb(style.SHADE)).any(-1)
    assert np.array_equal(filled, cells.sum(0) > 0)
    assert seen.get_ylabel() == "slot of the query, as round 1 sorts"
    row, column = seen.patches
    assert (row.get_y(), column.get_x()) == (8.5, 2.5)
    assert not weights.patches  # which are in reading order
    panel.place = {"order": -1}
    assert [len(axes.patches) for axes in panel.figure.axes[:2]] == [2, 2]
    panel.place = {"row": None, "column": None}
    assert [len(axes.patches) for axes in panel.figure.axes[:2]] == [0, 0]


def test_weights_are_shipped_as_digits_with_blanks_where_nobody_may_look():
    panel = explore_sparsity()
    data = panel._link.data
    weights = panel.data.masses["chunks", 8].weights
    levels, top = weight_levels(weights, 32)
    for row, (digits, numbers) in enumerate(zip(data["weights"], weights, strict=True)):
        assert digits[row:] == " " * (64 - row)
        assert [int(digit, 32) for digit in digits[:row]] == levels[row, :row].tolist()
        shares = np.minimum(numbers[:row] / top, 1) ** 0.4
        assert np.abs(levels[row, :row] - 31 * shares).max(initial=0) <= 0.5
    assert len(data["scale"]) == 32


def test_a_long_sequence_ships_a_small_picture_of_the_weights():
    data = explore_sparsity(torch.randn(1500, 4), chunk_length=32)._link.data
    assert data["per_cell"] == 3
    assert len(data["weights"]) == 125


@pytest.mark.parametrize(
    ("panel", "problem"),
    [
        (lambda: explore_sparsity(traced(attention=("local",))), "must have an LSH layer, got 3"),
        (lambda: explore_sparsity(traced(), layer=0), "LSH attention, 1, 2, got 0"),
        (lambda: explore_sparsity(traced(), layer=7), "LSH attention, 1, 2, got 7"),
        (lambda: explore_sparsity(traced(), head=2), "head must be in 0..1, got 2"),
        (lambda: explore_sparsity(torch.zeros(0, 4)), "must not be empty, got (0, 4)"),
        (lambda: explore_sparsity(torch.zeros(1, 4)), "a pair needs two tokens"),
        (lambda: explore_sparsity(n_tokens=1), "a pair needs two tokens"),
        (lambda: explore_sparsity(torch.full((5, 4), np.nan)), "NaN or infinity at token 0"),
        (lambda: explore_sparsity(torch.zeros(2, 5, 4), head=2), "head must be in 0..1, got 2"),
        (lambda: explore_sparsity(torch.zeros(4)), "must have the shape"),
        (
            lambda: explore_sparsity(torch.zeros(MOST_TOKENS + 1, 2)),
            "at most 16,384 tokens, got 16,385",
        ),
        (lambda: explore_sparsity(n_buckets=7), "n_buckets must be even and positive, got 7"),
        (lambda: explore_sparsity(chunk_length=0), "chunk_length must be at least 1, got 0"),
        (
            lambda: explore_sparsity(torch.zeros(5, 4), labels=["a"]),
            "labels must name every token, got 1 for 5",
        ),
    ],
)
def test_what_cannot_be_shown_is_a_sentence_in_its_place(panel, problem):
    panel = panel()
    assert problem in panel.problem
    assert problem in repr(panel)
    assert problem in panel._link.data["problem"]
    with pytest.raises(ValueError, match="."):
        _ = panel.figure


def test_a_trace_with_nan_is_a_sentence():
    trace = traced()
    trace.layers[1].qk[0, 0, 3, 1] = np.nan
    assert "qk must be finite, got NaN or infinity at token 3 of head 0" in repr(
        explore_sparsity(trace)
    )


# ------------------------------------------------------------------------------- still pictures


def filled(svg, colour):
    """Count the cells of the first square that are painted in a colour."""
    namespace = "{http://www.w3.org/2000/svg}"
    square = next(g for g in svg.iter(namespace + "g") if "scale(" in g.get("transform", ""))
    runs = [p.get("d") for p in square.iter(namespace + "path") if p.get("fill") == colour]
    return sum(int(run.split("h")[1].split("v")[0]) for d in runs for run in d.split("M")[1:])


def test_the_still_picture_paints_as_many_cells_as_a_round_adds():
    sparsity = explore_sparsity().data.under("chunks", 8)
    svg = ElementTree.fromstring(draw_svg(sparsity, 4))
    for round, colour in enumerate(style.PALETTE[:4]):
        assert filled(svg, colour) == sparsity.pairs_first_seen[round]


def test_the_still_picture_is_the_same_every_time_and_small():
    panel = explore_sparsity()
    assert panel._picture() == panel._picture()
    assert len(draw_svg(panel.data.under("chunks", 8), 8)) < 40_000
    long = explore_sparsity(torch.randn(1200, 4), chunk_length=64, n_buckets=32)
    assert len(draw_svg(long.data.under("sliding", 64), 8)) < 100_000


@pytest.mark.parametrize("shape", [(2, 3), (130, 3)])
def test_any_sequence_has_a_still_picture(shape):
    panel = explore_sparsity(torch.randn(shape))
    panel.place = {"order": 1, "rounds": 1}
    ElementTree.fromstring(panel._view.draw_svg(panel.data, panel.place))


def test_a_saved_page_is_small_and_asks_no_network(tmp_path):
    page = explore_sparsity().save_html(tmp_path / "page.html").read_text("utf-8")
    assert len(page) < 100_000
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace(
        "http%3A//www.w3.org/2000/svg", ""
    )


def test_text_that_holds_html_stays_text(tmp_path):
    panel = explore_sparsity(torch.randn(3, 4), labels=["</script><b>", "&amp;", "”"])
    page = panel.save_html(tmp_path / "page.html").read_text("utf-8")
    assert "</script><b>" not in page
