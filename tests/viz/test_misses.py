"""The price of a miss: answers and losses against a model that is run by hand."""

import copy
import html
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from reformer_core import ReformerConfig, ReformerLM, full_attention
from reformer_core.tasks import Duplicate, TextBytes
from reformer_viz import (
    measure_miss_cost,
    measure_misses,
    plot_miss_cost,
    plot_misses,
    write_miss_cost,
)
from reformer_viz.measure.rounds import with_config

TASK = Duplicate(vocab_size=6, length=16)
CONFIG = ReformerConfig(
    vocab_size=6,
    d_model=16,
    n_layers=2,
    n_heads=2,
    n_hashes=2,
    n_buckets=6,
    chunk_length=4,
    max_length=16,
)
TOKENS = next(TASK.held_out(1)).tokens


def model_of(**changes):
    torch.manual_seed(1)
    return ReformerLM(replace(CONFIG, **changes)).double()


@pytest.fixture(scope="module")
def model():
    return model_of(attention=("local", "lsh"), n_layers=4)


@pytest.fixture(scope="module")
def misses(model):
    return measure_misses(model, TASK, max_hashes=4, n_sequences=20)


@pytest.fixture(scope="module")
def cost(model):
    labels = ["<b>", "\n", "$", *"cdefghijklmno", "&"][:16]
    return measure_miss_cost(model, TOKENS[0], max_hashes=3, labels=labels)


def losses_in_bits(logits, tokens):
    log_shares = logits.detach().log_softmax(-1)
    return [-float(log_shares[t - 1, tokens[t]]) / math.log(2) for t in range(1, len(tokens))]


# ------------------------------------------------------------------------------------- answers


def test_answers_are_counted_by_looking_at_every_head_of_every_sequence(model, misses):
    tokens = torch.cat([batch.tokens for batch in TASK.held_out(64)])[:20]
    trace = model.eval().trace(tokens)
    visible = torch.cat([trace.layers[i].plan.visible().any(2) for i in (1, 3)], dim=1)
    by_hand = np.zeros((7, 5, 2), dtype=int)
    for row, sequence in enumerate(tokens):
        for place, t in enumerate(range(8, 15)):
            assert sequence[t + 1] == sequence[t - 7]
            heads = int(visible[row, :, t, t - 7].sum())
            by_hand[place, heads, int(trace.logits[row, t].argmax() == sequence[t + 1])] += 1
    assert np.array_equal(misses.by_heads[1], by_hand)
    assert misses.positions.tolist() == list(range(8, 15))
    assert misses.needed.tolist() == list(range(1, 8))


def test_the_four_outcomes_are_sums_over_heads(misses):
    assert np.array_equal(misses.counts[..., 0, :], misses.by_heads[..., 0, :])
    assert np.array_equal(misses.counts[..., 1, :], misses.by_heads[..., 1:, :].sum(2))
    assert (misses.counts.sum((2, 3)) == 20).all()
    assert misses.n_answers == 140
    assert np.allclose(misses.seen, misses.counts[:, :, 1].sum((1, 2)) / 140)
    assert np.allclose(misses.accuracy, misses.counts[..., 1].sum((1, 2)) / 140)
    wrong, right = misses.by_heads[0, :, 2].sum(0)
    assert misses.accuracy_by_heads[0, 2] == right / (wrong + right)


def test_more_rounds_never_see_fewer_keys(misses):
    assert misses.n_hashes.tolist() == [1, 2, 3, 4]
    # A first layer hashes the same vectors whatever the number of rounds.
    of_one_layer = measure_misses(model_of(n_layers=1), TASK, max_hashes=5, n_sequences=20)
    seen = of_one_layer.counts[:, :, 1].sum(-1)
    assert (np.diff(seen, axis=0) >= 0).all()
    assert seen[0].sum() < seen[4].sum()


def test_fewer_rounds_are_the_first_of_the_models_own(model, misses, cost):
    one_round = copy.deepcopy(model).eval()
    for layer in (1, 3):
        attention = one_round.layers[layer].f.attention
        attention.evaluation_rotations = attention.evaluation_rotations[:, :1]
    assert np.allclose(cost.loss[0], losses_in_bits(one_round(TOKENS)[0], TOKENS[0]))
    tokens = torch.cat([batch.tokens for batch in TASK.held_out(64)])[:20]
    right = one_round(tokens)[:, 8:15].argmax(-1) == tokens[:, 9:]
    assert misses.counts[0, ..., 1].sum(-1).tolist() == right.sum(0).tolist()
    assert measure_misses(model, TASK, n_sequences=1).n_hashes.tolist() == [1, 2]


def test_right_in_full_is_the_same_weights_with_full_attention(model, misses):
    full = ReformerLM(replace(model.config, attention=("local", "full"))).double()
    full.load_state_dict(model.state_dict())
    tokens = torch.cat([batch.tokens for batch in TASK.held_out(64)])[:20]
    right = full.eval()(tokens)[:, 8:15].argmax(-1) == tokens[:, 9:]
    assert misses.right_in_full.tolist() == right.sum(0).tolist()
    assert misses.accuracy_in_full == float(right.double().mean())


def test_a_sentence_says_what_seen_and_missed_keys_led_to(misses):
    (lost, lucky), (failed, right) = misses.counts[0].sum(0)
    assert misses.describe(1) == (
        f"20 sequences, 7 answers each, with 1 round: a head saw the needed key of "
        f"{misses.seen[0]:.1%} of the answers, and {right / (right + failed):.1%} of these are "
        f"right. Of the other {lost + lucky}, {lucky / (lost + lucky):.1%} are (guessing: 20.0%). "
        f"Right of all: {misses.accuracy[0]:.1%}. Full attention with the same weights: "
        f"{misses.accuracy_in_full:.1%}."
    )
    assert "with 2 rounds" in misses.describe()


def test_where_everything_is_seen_there_are_no_others():
    model = model_of(n_layers=1, within_bucket=False, chunk_length=16)
    assert "There are no others." in measure_misses(model, TASK, n_sequences=2).describe()


# --------------------------------------------------------------------------------------- losses


def test_losses_are_those_of_the_model_and_of_its_weights_with_full_attention(model, cost):
    model.eval()
    assert np.allclose(cost.loss[1], losses_in_bits(model(TOKENS)[0], TOKENS[0]))
    full = ReformerLM(replace(model.config, attention=("local", "full"))).double()
    full.load_state_dict(model.state_dict())
    assert np.allclose(cost.loss_in_full, losses_in_bits(full.eval()(TOKENS)[0], TOKENS[0]))
    assert np.allclose(cost.cost, cost.loss - cost.loss_in_full)
    assert abs(cost.cost[0]).max() > 1e-3


def test_the_weight_missed_is_full_attentions_on_what_no_round_shows(model, cost):
    trace = model.eval().trace(TOKENS)
    missed = []
    for layer in (trace.layers[1], trace.layers[3]):
        everyone = torch.eye(16, dtype=torch.float64).expand(1, 2, 16, 16)
        weights = full_attention(layer.qk, everyone, causal=True)
        hidden = ~layer.plan.visible().any(2)
        missed.append((weights * hidden).sum(-1)[0])
    by_hand = torch.cat(missed).mean(0)
    assert np.allclose(cost.mass_missed[1, 1:], by_hand[1:-1])
    assert (cost.mass_missed[:, 0] == 0).all()


def test_looking_both_ways_the_first_position_has_keys_to_miss():
    cost = measure_miss_cost(model_of(causal=False, n_layers=1), TOKENS)
    assert (cost.mass_missed[:, 0] > 0).all()


def test_missing_nothing_costs_nothing():
    model = model_of(within_bucket=False, chunk_length=16)
    cost = measure_miss_cost(model, TOKENS)
    assert np.allclose(cost.cost, 0, atol=1e-9)
    assert np.allclose(cost.mass_missed, 0, atol=1e-9)
    assert cost.scale == 0.05
    assert "nothing each" in cost.describe() or "0 predictions missed" in cost.describe()


def test_bytes_are_named_by_their_characters_and_others_by_numbers():
    text = TextBytes(length=16)
    model = ReformerLM(replace(CONFIG, vocab_size=256))
    tokens = text.encode("a é\n<")
    assert measure_miss_cost(model, tokens).labels == ("a", " ", "\\xc3", "\\xa9", "\n", "<")
    assert measure_miss_cost(model_of(), TOKENS).labels == tuple(map(str, TOKENS[0].tolist()))


def test_a_sentence_says_what_misses_cost(cost):
    much = cost.mass_missed[0] >= 0.5
    worst = int(cost.cost[0].argmax())
    said = cost.describe(1)
    assert said.startswith(
        f"16 tokens. Full attention needs {cost.loss_in_full.mean():.2f} bits a token; hashing "
        f"with 1 round and the same weights costs {cost.cost[0].mean():+.2f} bits. "
        f"{much.sum()} prediction{'s' if much.sum() != 1 else ''} missed at least half of full "
    )
    assert f"weight: {cost.cost[0][much].mean():+.2f} bits each; {(~much).sum()} missed" in said
    assert f"missed less: {cost.cost[0][~much].mean():+.2f} bits each." in said
    dearest = f"token is {worst + 1}, “{cost.labels[worst + 1]}”: {cost.cost[0, worst]:+.2f} bits."
    assert dearest in said
    assert "with 2 rounds" in cost.describe()
    assert cost.describe_token(0).endswith("the first, which nothing predicts.")
    assert f"{cost.cost[2, 6]:+.2f} bits" in cost.describe_token(7, 3)


def test_white_space_is_named_by_a_sign_in_a_sentence(cost):
    labels = ("a", " ", "\n", *cost.labels[3:])
    blank = replace(cost, labels=labels)
    assert blank.describe_token(1).startswith("Token 1, “␣”: ")
    assert blank.describe_token(2).startswith("Token 2, “↵”: ")
    assert "“␣”" in replace(cost, labels=(" ",) * len(cost.labels)).describe(1)


def test_a_model_that_trains_on_does_not_change_the_copy_that_is_measured():
    model = model_of()
    copied = with_config(model)
    kept = copied.head.weight.clone()
    with torch.no_grad():
        model.head.weight.add_(1)
    assert torch.equal(copied.head.weight, kept)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_reads_the_model_and_nothing_else(training):
    model = model_of(dropout=0.1).train(training)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    measure_misses(model, TASK, max_hashes=3, n_sequences=2)
    measure_miss_cost(model, TOKENS, max_hashes=3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    assert model.layers[0].f.attention.evaluation_rotations.shape[1] == 2


# -------------------------------------------------------------------------------------- figures


def test_the_figure_of_answers_shows_the_counts(misses):
    rounds, heads, table, where = plot_misses(misses, 2).axes
    drawn = {line.get_label(): line.get_ydata() for line in rounds.lines}
    assert drawn["right"].tolist() == misses.accuracy.tolist()
    assert drawn["key seen by a head"].tolist() == misses.seen.tolist()
    assert drawn["right, full attention"][0] == misses.accuracy_in_full
    by_heads = {line.get_label(): line.get_ydata() for line in heads.lines}
    assert np.array_equal(by_heads["3 rounds"], misses.accuracy_by_heads[2], equal_nan=True)
    cells = [text.get_text() for text in table.texts]
    counts = misses.counts[1].sum(0)
    assert [cell.split("\n")[0] for cell in cells] == [
        str(counts[seen, right]) for seen, right in ((1, 1), (0, 1), (1, 0), (0, 0))
    ]
    bars = np.array([bar.get_height() for bar in where.patches]).reshape(4, 7)
    assert np.allclose(bars.sum(0), 1)
    assert np.allclose(bars[2], misses.counts[1, :, 1, 0] / 20)


def test_tokens_are_painted_by_what_they_cost(cost):
    axes = plot_miss_cost(cost, 1).axes[0]
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(cells) == len(axes.texts) == 16
    assert [cell.get_xy() for cell in cells[:4]] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert axes.texts[1].get_text() == "↵"
    for token in range(1, 16):
        red, _, blue, _ = cells[token].get_facecolor()
        if abs(cost.cost[0, token - 1]) > 0.1 * cost.scale:
            assert (red > blue) == (cost.cost[0, token - 1] > 0)


def test_a_page_says_every_number_and_keeps_text_text(cost):
    page = write_miss_cost(cost, 1)
    assert "<b>" not in page
    titles = [html.unescape(title) for title in re.findall(r'<span[^>]*title="([^"]*)"', page)]
    said = [cost.describe_token(token, 1).replace("\n", "↵") for token in range(16)]
    assert titles == said
    assert page.count("<tr>") == 16
    assert html.escape(cost.describe(1)) in page
    orange = page.count("rgba(213,94,0")
    assert orange == (cost.cost[0] > 0).sum()


# ------------------------------------------------------------------------------------ bad input


def test_another_task_is_sent_to_the_other_function(model):
    with pytest.raises(ValueError, match="got TextBytes: for a text use measure_miss_cost"):
        measure_misses(model, TextBytes(16))


@pytest.mark.parametrize("attention", [("local",), ("full",)])
def test_a_model_that_does_not_hash_is_refused(attention):
    model = model_of(attention=attention)
    for measure, what in ((measure_misses, TASK), (measure_miss_cost, TOKENS)):
        with pytest.raises(ValueError, match="must have an LSH layer to miss keys, got layers"):
            measure(model, what)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (torch.zeros(2, 8, dtype=torch.int64), {}, r"tokens must be one sequence, got .*\(2, "),
        (torch.zeros(1, dtype=torch.int64), {}, "at least 2 tokens, got 1"),
        (torch.zeros(0, dtype=torch.int64), {}, "at least 2 tokens, got 0"),
        (TOKENS, {"labels": "abc"}, "labels must name every token, got 3 for 16"),
        (TOKENS, {"max_hashes": 0}, "max_hashes must be at least 1, got 0"),
        (TOKENS + 9, {}, "token ids must be 0 to vocab_size - 1 = 5"),
    ],
)
def test_what_has_no_cost_is_refused_with_a_reason(model, tokens, options, message):
    with pytest.raises(ValueError, match=message):
        measure_miss_cost(model, tokens, **options)


def test_what_was_not_measured_is_refused(model, misses, cost):
    for draw in (misses.describe, cost.describe, lambda n: plot_misses(misses, n)):
        with pytest.raises(ValueError, match=r"n_hashes must be in 1\.\.\d, got 9: as many"):
            draw(9)
    with pytest.raises(ValueError, match=r"token must be in 0\.\.15, got 16"):
        cost.describe_token(16)
    with pytest.raises(ValueError, match="n_sequences must be at least 1, got 0"):
        measure_misses(model, TASK, n_sequences=0)
