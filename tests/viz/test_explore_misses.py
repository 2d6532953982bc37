"""The explorer of the price of a miss: what is drawn and said is what a model by hand does."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from reformer_core import ReformerConfig, ReformerLM
from reformer_core.tasks import Duplicate, TextBytes
from reformer_viz import (
    explore_misses,
    measure_miss_cost,
    measure_misses,
    plotly_miss_cost,
    plotly_misses,
)
from reformer_viz.figures.still import draw_still
from reformer_viz.figures.table import rows_of
from reformer_viz.widgets.misses import MOST_TOKENS

SVG = "{http://www.w3.org/2000/svg}"

TASK = Duplicate(vocab_size=6, length=16)
CONFIG = ReformerConfig(
    vocab_size=6,
    d_model=16,
    n_layers=4,
    n_heads=2,
    attention=("local", "lsh"),
    n_hashes=2,
    n_buckets=6,
    chunk_length=4,
    max_length=16,
)
EVIL = 'a<b>$x$</b>\n<img src="x" onerror="alert(1)">&amp;'
OUTCOMES = {"seen, right", "missed, right", "seen, wrong", "missed, wrong"}


def model_of(**changes):
    torch.manual_seed(1)
    return ReformerLM(replace(CONFIG, **changes)).double()


def bytes_model(**changes):
    return model_of(vocab_size=256, max_length=2048, **changes)


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.fixture(scope="module")
def shared(model):
    made = explore_misses(model, TASK)
    yield made
    made.close()


@pytest.fixture
def panel(shared):
    """The shared panel, which every test leaves as it was."""
    yield shared
    shared.state = {"n_hashes": 2, "layer": None, "sequence": None}


@pytest.fixture(scope="module")
def text():
    made = explore_misses(bytes_model(), EVIL)
    yield made
    made.close()


def traces(panel):
    return {trace.name: trace for trace in panel._view.plotly(panel.data, panel.place).data}


def with_full(model, *full_layers):
    """The same weights, with full attention in some layers."""
    kinds = [model.config.attention_of(layer) for layer in range(4)]
    kinds = tuple("full" if layer in full_layers else kinds[layer] for layer in range(4))
    other = ReformerLM(replace(model.config, attention=kinds)).double()
    other.load_state_dict(model.state_dict())
    return other.eval()


def held_out():
    return torch.cat([batch.tokens for batch in TASK.held_out(64)])


# ----------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize(("layer", "full"), [(1, 3), (3, 1)])
def test_a_layer_alone_hashes_while_the_other_attends_to_all(model, layer, full):
    misses = measure_misses(model, TASK, n_sequences=12, layer=layer)
    tokens = held_out()[:12]
    trace = with_full(model, full).trace(tokens)
    visible = trace.layers[layer].plan.visible().any(2)
    heads = torch.stack([visible[:, :, t, t - 7].sum(1) for t in range(8, 15)], dim=1)
    assert np.array_equal(misses.heads[1], heads)
    assert np.array_equal(misses.said[1], trace.logits[:, 8:15].argmax(-1))
    assert np.array_equal(misses.said_in_full, with_full(model, 1, 3)(tokens)[:, 8:15].argmax(-1))
    assert misses.n_heads == 2
    assert f"with 2 rounds in layer {layer} alone: a head saw" in misses.describe()


def test_the_cost_of_a_layer_alone_is_that_of_its_own_misses(model):
    tokens = held_out()[0]
    cost = measure_miss_cost(model, tokens, layer=3)
    logits = with_full(model, 1)(tokens[None])[0].detach().log_softmax(-1)
    by_hand = [-float(logits[t - 1, tokens[t]]) / np.log(2) for t in range(1, 16)]
    np.testing.assert_allclose(cost.loss[1], by_hand)
    assert "hashing with 2 rounds in layer 3 alone and the same weights" in cost.describe()
    both = measure_miss_cost(model, tokens)
    np.testing.assert_array_equal(both.loss_in_full, cost.loss_in_full)
    assert abs(both.loss - cost.loss).max() > 1e-6


def test_one_sequence_of_several_is_its_part_of_them(model):
    misses = measure_misses(model, TASK, n_sequences=12)
    parts = [misses.of(sequence) for sequence in range(12)]
    assert np.array_equal(sum(part.by_heads for part in parts), misses.by_heads)
    assert sum(part.right_in_full for part in parts).tolist() == misses.right_in_full.tolist()
    one = parts[5]
    assert np.array_equal(one.tokens, held_out()[5:6])
    assert one.describe().startswith("Sequence 5, 7 answers, with 2 rounds: a head saw")
    said, heads = int(one.said[0, 0, 3]), int(one.heads[0, 0, 3])
    right = "right." if said == held_out()[5, 12] else f"wrong, it is {held_out()[5, 12]}."
    assert one.describe_answer(11, 1) == (
        f"Position 11 needs token 4: {heads} of 4 heads saw it. It said {said}: {right}"
    )


# ------------------------------------------------------------------------------- what is shown


def test_what_is_shown_is_what_measure_misses_says(panel, model):
    wanted = measure_misses(model, TASK, max_hashes=4)
    assert repr(panel) == wanted.describe(2)
    assert np.array_equal(panel.data.of.by_heads, wanted.by_heads)
    drawn = traces(panel)
    assert set(drawn) >= OUTCOMES
    assert {drawn[name].type for name in OUTCOMES} == {"bar"}
    np.testing.assert_allclose(
        drawn["missed, wrong"].y, wanted.counts[1, :, 0, 0] / wanted.n_sequences
    )
    np.testing.assert_allclose(sum(np.array(drawn[name].y) for name in OUTCOMES), 1)
    assert list(drawn["right"].y) == wanted.accuracy.tolist()
    assert list(drawn["key seen by a head"].y) == wanted.seen.tolist()


def test_controls_choose_rounds_layer_and_sequence(panel, model):
    panel.controls["n_hashes"].value = 4
    assert repr(panel) == panel.data.of.describe(4)
    panel.controls["layer"].value = 3
    alone = measure_misses(model, TASK, max_hashes=4, layer=3)
    assert repr(panel) == alone.describe(4)
    panel.controls["sequence"].value = 7
    assert repr(panel) == alone.of(7).describe(4)


def test_every_answer_of_one_sequence_is_a_point_that_says_who_saw_its_key(panel, model):
    panel.state = {"sequence": 7, "n_hashes": 1}
    one = measure_misses(model, TASK, max_hashes=4).of(7)
    drawn = traces(panel)
    points = {}
    for name in OUTCOMES:
        seen, right = name.split(", ")
        for x, y, words in zip(*(drawn[name][of] for of in ("x", "y", "customdata")), strict=True):
            assert (y > 0) == (seen == "seen")
            assert words == one.describe_answer(int(x), 1)
            points[int(x)] = int(y), right == "right"
    heads, right = one.heads[0, 0].tolist(), one.right[0, 0].tolist()
    assert points == dict(zip(range(8, 15), zip(heads, right, strict=True), strict=True))


def test_a_control_reads_no_layer_twice(panel, monkeypatch):
    for layer in (None, 1, 3):
        panel.controls["layer"].value = layer

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr("reformer_viz.widgets.misses.measure_misses", never)
    panel.state = {"layer": 1, "sequence": 3, "n_hashes": 3}
    panel.state = {"layer": None, "sequence": 4, "n_hashes": 1}
    assert panel.problem is None


def test_a_text_is_painted_with_what_its_tokens_cost(text):
    wanted = measure_miss_cost(bytes_model(), torch.tensor(list(EVIL.encode())), max_hashes=4)
    assert repr(text) == wanted.describe(2)
    drawn = traces(text)
    cells, costs = drawn["painted tokens"], drawn["cost, bits"]
    np.testing.assert_allclose(costs.y, wanted.cost[1])
    z = np.array(cells.z)
    np.testing.assert_allclose(z[np.isfinite(z)], [0, *wanted.cost[1]])
    assert cells.zmax == -cells.zmin == wanted.scale
    assert z.shape[0] == 2  # the text's own lines
    by_weight = drawn["cost by weight missed"]
    np.testing.assert_allclose(by_weight.x, wanted.mass_missed[1])
    assert len(drawn["tokens"].text) == len(EVIL.encode())


def test_a_text_that_contains_html_stays_text(text):
    drawn = traces(text)
    assert "".join(drawn["tokens"].text).startswith("a&lt;b&gt;$x$&lt;/b&gt;↵&lt;img")
    assert all("<" not in words for words in drawn["cost, bits"].customdata)
    still = draw_still(text._view.plotly(text.data, {}))
    letters = [node.text for node in ElementTree.fromstring(still).iter() if node.text]
    assert "".join(letter for letter in letters if len(letter) == 1).count("<") == EVIL.count("<")
    assert "<img" not in text._html().split("<script")[0].replace("<img width", "")


def test_a_label_that_looks_like_markup_is_written_out():
    cost = measure_miss_cost(
        model_of(), held_out()[0], labels=["<i>x</", "&lt;", "a long one"] + ["x"] * 13
    )
    figure = plotly_miss_cost(cost)
    words = next(trace for trace in figure.data if trace.name == "tokens").text
    assert words[:3] == ("&lt;i&gt;x&lt;/", "&amp;lt;", "a long…")
    assert ">&lt;i&gt;x&lt;/</text>" in draw_still(figure)
    assert ">&amp;lt;</text>" in draw_still(figure)


def test_rows_of_tokens_and_a_tasks_windows_are_sequences_to_choose_from():
    model = bytes_model()
    task = TextBytes(32)
    panel = explore_misses(model, task)
    windows = next(task.held_out(16)).tokens
    assert len(panel.controls["sequence"].options) == 16
    panel.controls["sequence"].value = 9
    assert repr(panel) == measure_miss_cost(model, windows[9], max_hashes=4).describe(2)
    rows = explore_misses(model, windows[:3].numpy(), sequence=2)
    assert repr(rows) == measure_miss_cost(model, windows[2], max_hashes=4).describe(2)
    assert "sequence" not in explore_misses(model, windows[0]).controls


def test_long_names_take_more_room_and_many_lines_none():
    many_lines = measure_miss_cost(bytes_model(), torch.tensor([10] * 100))
    cells = plotly_miss_cost(many_lines).data[2]
    assert np.array(cells.z).shape == (2, 64)
    long = measure_miss_cost(model_of(), held_out()[0], labels=["a token"] * 16)
    assert np.array(plotly_miss_cost(long).data[2].z).shape == (2, 11)


def test_the_title_stands_clear_of_the_painted_text():
    figure = plotly_miss_cost(measure_miss_cost(bytes_model(), torch.tensor([65] * 50)))
    svg = ElementTree.fromstring(draw_still(figure))
    [title] = [t for t in svg.iter(f"{SVG}text") if (t.text or "").startswith("What missed")]
    painted = min(float(frame.get("y")) for frame in svg.findall(f"{SVG}svg"))
    assert painted - float(title.get("y")) > 8


def test_the_model_may_train_on_and_is_left_as_it_was():
    model = model_of(dropout=0.1).train()
    torch.manual_seed(3)
    panel = explore_misses(model, TASK)
    before = panel.data.of.by_heads.copy()
    assert float(torch.rand(1)) == float(torch.rand(1, generator=torch.Generator().manual_seed(3)))
    assert all(module.training for module in model.modules())
    with torch.no_grad():
        model.embed.tokens.weight.zero_()
    panel.controls["layer"].value = 1
    panel.controls["layer"].value = None
    assert np.array_equal(panel.data.of.by_heads, before)


@pytest.mark.parametrize("state", [{}, {"sequence": 3}])
def test_answers_are_drawn_live_still_and_in_print(panel, state):
    panel.state = state
    figure = plotly_misses(panel.data.of, panel.data.n_hashes)
    assert ElementTree.fromstring(draw_still(figure)).tag.endswith("svg")
    assert len(panel.figure.axes) == 4
    head, *rows = rows_of(figure)
    assert head[:2] == ["chart", "series"]
    assert {row[1] for row in rows} >= {"right", "key seen by a head"}


def test_a_text_is_drawn_in_print_and_listed(text):
    assert len(text.figure.axes) == 2  # the text, and the scale of its colours
    listed = [row for row in rows_of(text._view.plotly(text.data, {})) if row[1] == "cost, bits"]
    assert len(listed) == len(EVIL.encode()) - 1


def test_the_line_of_code_leads_back(panel, text, model):
    panel.state = {"n_hashes": 3, "layer": 1, "sequence": 4}
    names = {"explore_misses": explore_misses, "model": model, "source": TASK}
    again = eval(panel.code, names)
    assert (again.state, repr(again)) == (panel.state, repr(panel))
    again = eval(text.code, names | {"model": bytes_model(), "source": EVIL})
    assert repr(again) == repr(text)


def test_the_exported_page_stays_below_six_megabytes(tmp_path):
    longest = explore_misses(bytes_model(), "All that fits is painted. " * 39 + "Really all")
    assert longest.data.of.length == MOST_TOKENS
    assert longest.save_html(tmp_path / "page.html").stat().st_size < 6_000_000


# ------------------------------------------------------------------------------------ bad input


def broken(model):
    model.layers[1].f.attention.qk.weight.data.fill_(torch.nan)
    return model


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"source": ""}, "a sequence needs at least 2 tokens, got 0"),
        ({"source": "a"}, "a sequence needs at least 2 tokens, got 1"),
        ({"source": [1, 256]}, "token ids must be 0 to vocab_size - 1 = 255, got 256"),
        ({"source": torch.tensor([0.5, 1.5])}, "tokens must be integers, got torch.float32"),
        ({"source": "ab" * 600}, "at most 1,024 tokens, got 1,200: give it a part"),
        ({"source": np.zeros((2, 8), int), "sequence": 2}, r"sequence must be in 0..1, got 2"),
        ({"layer": 0}, r"layer must be one of \[1, 3\], which have LSH attention, got 0"),
        ({"layer": 9}, r"layer must be one of \[1, 3\], which have LSH attention, got 9"),
        ({"n_hashes": 9}, r"n_hashes must be in 1..4, got 9: as many rounds were measured"),
        ({"max_hashes": 0}, "max_hashes must be at least 1, got 0"),
        ({"labels": ["a"]}, "labels must name every token, got 1 for 6 tokens"),
        ({"source": TASK, "labels": ["a"]}, "labels must be None for Duplicate"),
        ({"source": TASK, "sequence": 256}, r"sequence must be in 0..255, got 256"),
        ({"source": TASK, "layer": 2}, r"layer must be one of \[1, 3\]"),
        ({"model": bytes_model(attention=("local",))}, "must have an LSH layer to miss keys"),
        ({"model": bytes_model(attention=("full",)), "source": TASK}, "must have an LSH layer"),
        ({"model": broken(bytes_model())}, "must be finite, got NaN or infinity"),
        ({"model": broken(bytes_model()), "source": TASK}, "must be finite, got NaN or infinity"),
        ({"model": model_of(), "source": "text"}, "text needs a model of bytes, whose vocab_size"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence_in_the_pictures_place(arguments, problem):
    panel = explore_misses(**{"model": bytes_model(), "source": "abcdef", **arguments})
    with pytest.raises(ValueError, match=problem):
        _ = panel.figure
    assert repr(panel) == panel.problem
    assert "<img" not in panel._html().split("<script")[0]
    panel.close()


@pytest.mark.parametrize("of", [TASK, "text"])
def test_below_the_explorer_the_same_is_a_value_error(of):
    model = bytes_model()
    tokens = torch.tensor(list(b"some text"))
    for wrong, match in (({"layer": 0}, "layer must be one of"), ({"max_hashes": 0}, "at least 1")):
        with pytest.raises(ValueError, match=match):
            measure_misses(model, of, **wrong) if of is TASK else measure_miss_cost(
                model, tokens, **wrong
            )
    misses = measure_misses(model, TASK, n_sequences=2)
    for wrong, match in ((2, r"sequence must be in 0\.\.1, got 2"), (-1, "got -1: so many were")):
        with pytest.raises(ValueError, match=match):
            misses.of(wrong)
    for position in (7, 15):
        with pytest.raises(ValueError, match=r"position must be in 8\.\.14 of one sequence"):
            misses.of(0).describe_answer(position)
    with pytest.raises(ValueError, match="of 2 sequences: take one with of"):
        misses.describe_answer(8)
