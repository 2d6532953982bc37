"""The microscope: measured against slow and obvious versions, and the same in the page."""

import copy
import random
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from reformer_core import ReformerConfig, ReformerLM, lsh_attention
from reformer_viz import explore_model, plot_microscope, style
from reformer_viz.figures import svg
from reformer_viz.figures.microscope_svg import draw_svg
from reformer_viz.measure.bucketing import ELSEWHERE, FOUND, HIDDEN, LOST, SEEN
from reformer_viz.measure.microscope import (
    HALF_PERCENTS,
    Microscope,
    copy_of,
    label_bytes,
    measure_microscope,
    take_specimen,
)
from reformer_viz.widgets.microscope import MOST_TOKENS, MicroscopeView, settle
from reformer_viz.widgets.panel import compact_script
from tests import oracles
from tests.viz.test_plan_view import random_rule, run

RULE = ("chunk_length", "chunks_before", "chunks_after", "window", "within_bucket", "causal")


def model_of(seed=0, **config):
    config = {
        "vocab_size": 256,
        "d_model": 16,
        "n_layers": 2,
        "n_heads": 2,
        "attention": ("local", "lsh"),
        "n_hashes": 3,
        "n_buckets": 4,
        "chunk_length": 4,
        "max_length": 64,
        **config,
    }
    torch.manual_seed(seed)
    return ReformerLM(ReformerConfig(**config))


def tokens_of(length, seed=0, vocab_size=256):
    return torch.randint(vocab_size, (length,), generator=torch.Generator().manual_seed(seed))


@st.composite
def rules(draw):
    causal = draw(st.booleans())
    return {
        "n_hashes": draw(st.integers(1, 3)),
        "n_buckets": draw(st.sampled_from([2, 4, 6])),
        "chunk_length": draw(st.integers(1, 7)),
        "causal": causal,
        "chunks_before": draw(st.integers(1, 2)),
        "chunks_after": 0 if causal else draw(st.integers(0, 1)),
        "window": draw(st.sampled_from(["chunks", "sliding"])),
        "within_bucket": draw(st.booleans()),
        "count_repeats": draw(st.booleans()),
    }


lengths, seeds = st.integers(2, 20), st.integers(0, 1000)


def rounds_by_hand(microscope):
    """Say for every round and position which positions it sees, from the buckets and the rule."""
    rule = {name: getattr(microscope, name) for name in RULE}
    return [oracles.seen_in_round(buckets, **rule) for buckets in microscope.buckets]


# ------------------------------------------------------------------------------------- measure


@settings(max_examples=30)
@given(rules(), lengths, seeds)
def test_weights_are_one_softmax_over_the_union_of_the_rounds(rule, length, seed):
    microscope = measure_microscope(model_of(seed, **rule), tokens_of(length, seed), head=1)
    rounds = rounds_by_hand(microscope)
    for token in range(length):
        wanted = oracles.weights_of_query(token, microscope.qk, rounds, rule["count_repeats"])
        keys, shares = microscope.weights.of(token)
        assert keys.tolist() == sorted(wanted)
        assert shares == pytest.approx([wanted[key] for key in sorted(wanted)], abs=1e-5)


@settings(max_examples=30)
@given(rules(), lengths, seeds)
def test_the_weights_of_one_token_alone_are_its_part_of_all(rule, length, seed):
    microscope = measure_microscope(model_of(seed, **rule), tokens_of(length, seed), head=1)
    for token in range(length):
        (keys, shares), wanted = microscope.weights_of(token), microscope.weights.of(token)
        assert keys.tolist() == wanted[0].tolist()
        assert shares == pytest.approx(wanted[1], abs=1e-5)
    assert microscope.under(chunk_length=8).weights_of(0) is None


@settings(max_examples=30)
@given(rules(), lengths, seeds, st.data())
def test_padding_sees_nobody_and_others_as_if_it_were_not_there(rule, length, seed, data):
    n_padded = data.draw(st.integers(1, 6))
    padding = np.zeros(length + n_padded, bool)
    padding[data.draw(st.permutations(range(len(padding))))[:n_padded]] = True
    model, tokens = model_of(seed, **rule), tokens_of(len(padding), seed)
    microscope = measure_microscope(model, tokens, padding=padding, head=1)
    real = np.flatnonzero(~padding)
    rule_by_hand = {name: getattr(microscope, name) for name in RULE}
    rounds = [oracles.seen_in_round(b[real], **rule_by_hand) for b in microscope.buckets]
    for round, seen in enumerate(rounds):
        for at, token in enumerate(real):
            found = np.flatnonzero(microscope.seen_by(int(token))[round])
            assert set(found) == {real[key] for key in seen[at]}
            kinds = microscope.kinds(round, int(token))
            assert (kinds[padding] == HIDDEN).all()
            weights = oracles.weights_of_query(
                at, microscope.qk[real], rounds, rule["count_repeats"]
            )
            keys, shares = microscope.weights.of(token)
            assert keys.tolist() == [real[key] for key in sorted(weights)]
            assert shares == pytest.approx([weights[k] for k in sorted(weights)], abs=1e-5)
    for token in np.flatnonzero(padding):
        assert not microscope.seen_by(int(token)).any()
        assert not len(microscope.weights.of(token)[0])
        assert "is padding: it sees nobody, and nobody sees it." in microscope.describe(
            0, int(token)
        )
    assert f"({n_padded} of them padding)" in microscope.describe()
    assert microscope.under(chunk_length=9).padding is microscope.padding


def test_padded_weights_times_values_are_what_the_model_attended_to():
    model, tokens = model_of().eval(), tokens_of(40)
    padding = torch.arange(40) % 7 == 3
    layer = model.trace(tokens[None], padding[None]).layers[1]
    attended = lsh_attention(layer.qk, layer.values, layer.plan)
    microscope = measure_microscope(model, tokens, layer=1, padding=padding.tolist())
    assert microscope.buckets.tolist() == layer.plan.buckets[0, 0].tolist()
    values = layer.values[0, 0].numpy()
    for token in np.flatnonzero(~padding.numpy()):
        keys, shares = microscope.weights.of(token)
        found = shares @ values[keys] if len(keys) else values[token]
        assert found == pytest.approx(attended[0, 0, token].numpy(), abs=1e-5)


def test_weights_times_values_are_what_the_model_attended_to():
    model, tokens = model_of().eval(), tokens_of(40)
    layer = model.trace(tokens[None]).layers[1]
    attended = lsh_attention(layer.qk, layer.values, layer.plan)
    for head in range(2):
        microscope = measure_microscope(model, tokens, layer=1, head=head)
        values = layer.values[0, head].numpy()
        for token in range(40):
            keys, shares = microscope.weights.of(token)
            found = shares @ values[keys] if len(keys) else values[token]
            assert found == pytest.approx(attended[0, head, token].numpy(), abs=1e-5)


@settings(max_examples=30)
@given(rules(), lengths, seeds)
def test_every_key_is_of_the_kind_that_looking_at_it_says(rule, length, seed):
    microscope = measure_microscope(model_of(seed, **rule), tokens_of(length, seed))
    rounds = rounds_by_hand(microscope)
    for round, buckets in enumerate(microscope.buckets):
        for token in range(length):
            allowed = range(token) if rule["causal"] else set(range(length)) - {token}
            kinds = np.full(length, HIDDEN)
            for key in allowed:
                elsewhere = any(key in seen[token] for seen in rounds)
                if key in rounds[round][token]:
                    kinds[key] = SEEN
                elif buckets[key] == buckets[token]:
                    kinds[key] = FOUND if elsewhere else LOST
                elif elsewhere:
                    kinds[key] = ELSEWHERE
            assert microscope.kinds(round, token).tolist() == kinds.tolist()


@settings(max_examples=30)
@given(rules(), lengths, seeds, st.data())
def test_another_rule_plans_the_same_buckets_anew(rule, length, seed, data):
    microscope = measure_microscope(model_of(seed, **rule), tokens_of(length, seed))
    change = {
        "rounds": data.draw(st.integers(1, microscope.n_rounds)),
        "chunk_length": data.draw(st.integers(1, 9)),
        "window": data.draw(st.sampled_from(["chunks", "sliding"])),
        "within_bucket": data.draw(st.booleans()),
    }
    changed = microscope.under(**change)
    assert changed.buckets.tolist() == microscope.buckets[: change["rounds"]].tolist()
    assert (changed.chunk_length, changed.window) == (change["chunk_length"], change["window"])
    assert changed.within_bucket == change["within_bucket"]
    for round, seen in enumerate(rounds_by_hand(changed)):
        for token in range(length):
            assert set(np.flatnonzero(changed.seen_by(token)[round])) == seen[token]
    same = change["rounds"] == microscope.n_rounds and all(
        getattr(microscope, name) == change[name]
        for name in ("chunk_length", "window", "within_bucket")
    )
    assert (changed is microscope) == same
    assert (changed.weights is None) == (not same)


def test_what_is_not_said_stays_as_the_model_did_it():
    microscope = measure_microscope(model_of(), tokens_of(30))
    assert microscope.under() is microscope
    changed = microscope.under(chunk_length=2)
    assert (changed.n_rounds, changed.window) == (3, "chunks")
    assert (changed.layer, changed.head, changed.labels) == (1, 0, microscope.labels)


def test_the_plan_is_the_one_that_the_model_uses_when_it_evaluates():
    model, tokens = model_of(dropout=0.5).train(), tokens_of(50)
    microscope = measure_microscope(model, tokens, head=1)
    plan = model.eval().trace(tokens[None]).layers[1].plan
    for name in ("buckets", "order", "slot", "first", "last"):
        assert getattr(microscope, name).tolist() == getattr(plan, name)[0, 1].tolist()


def test_half_percents_are_rounded_shares_and_the_heaviest_come_first():
    weights = measure_microscope(model_of(), tokens_of(60)).weights
    assert weights.half_percents.tolist() == [
        round(float(s) * HALF_PERCENTS) for s in weights.shares
    ]
    token = int(np.diff(weights.starts).argmax())
    heaviest = weights.heaviest(token, 4)
    assert len(heaviest) == 4
    halves = [half for _, half in heaviest]
    assert halves == sorted(halves, reverse=True)
    keys, shares = weights.of(token)
    assert heaviest[0][0] == keys[shares.argmax()]
    assert heaviest == weights.heaviest(token, 99)[:4]


def test_looking_leaves_the_model_and_the_random_state_as_they_were():
    model = model_of(dropout=0.5, attention_dropout=0.5).train()
    model.layers[0].eval()  # a mode that a careless restore would lose
    modes = [module.training for module in model.modules()]
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    measure_microscope(model, tokens_of(30))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_copy_does_not_follow_the_model():
    model = model_of()
    looked_at, tokens = copy_of(model), tokens_of(30)
    before = take_specimen(looked_at, tokens).look()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    after = take_specimen(looked_at, tokens).look()
    assert np.array_equal(before.qk, after.qk)


def test_other_rotations_are_those_that_training_draws():
    model, tokens = model_of(), tokens_of(30)
    looks = [take_specimen(copy_of(model, n), tokens).look().buckets for n in range(3)]
    model.train()
    for step in (1, 2):
        model(tokens[None])
        assert int(model.hash_step) == step
        used = model.trace(tokens[None]).layers[1].plan.buckets[0, 0].numpy()
        assert np.array_equal(looks[step], used)
    assert not np.array_equal(looks[0], looks[1])


def test_a_model_runs_no_further_than_it_is_looked_at():
    model, ran = copy_of(model_of(n_layers=4)), []
    for number, block in enumerate(model.layers):
        block.f.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.layers[2].f.attention.values.weight.data[0, 0] = float("nan")
    specimen = take_specimen(model, tokens_of(30))
    assert ran == []
    first = specimen.look(1, 0)
    assert ran == [0]
    assert np.array_equal(first.buckets, specimen.look(1, 0).buckets)
    for _ in range(2):
        with pytest.raises(ValueError, match="NaN or infinity in layer 2's"):
            specimen.look(3)
        assert ran == [0, 1, 2]
    assert np.array_equal(first.buckets, specimen.look(1, 0).buckets)


def test_great_lengths_need_no_square():
    import tracemalloc

    length = 4096
    model = model_of(max_length=length, n_buckets=64, chunk_length=16, n_hashes=2)
    specimen = take_specimen(copy_of(model), tokens_of(length))
    tracemalloc.start()
    microscope = specimen.look()
    microscope.describe(1, length - 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < length**2
    assert microscope.weights.shares.max() <= 1 + 1e-5


# ------------------------------------------------------------------------------------- labels


def test_bytes_are_called_by_their_characters():
    assert label_bytes(list("a ä\n€😀\t".encode())) == (
        *("a", "␣", "ä", "…", "↵", "€", "…", "…", "😀", "…", "…", "…", "⇥"),
    )


def test_what_is_no_utf8_is_called_by_its_digits():
    assert label_bytes([0x41, 0xC3, 0x41, 0xFF, 0x07, 0x00]) == ("A", "C3", "A", "FF", "07", "∅")


def test_text_is_its_bytes_and_numbers_stay_numbers():
    model = model_of()
    by_text, by_numbers = (
        measure_microscope(model, tokens) for tokens in ("<b>&é", list("<b>&é".encode()))
    )
    assert by_text.labels == by_numbers.labels == ("<", "b", ">", "&", "é", "…")
    assert np.array_equal(by_text.buckets, by_numbers.buckets)
    small = measure_microscope(model_of(vocab_size=10), [1, 2, 3])
    assert small.labels == ("1", "2", "3")
    named = measure_microscope(model_of(vocab_size=10), [1, 2, 3], decode=lambda n: f"<{n[0]}>\n")
    assert named.labels == ("<1>↵", "<2>↵", "<3>↵")


# ------------------------------------------------------------------------------------- in words


def test_the_sentences_say_what_was_counted():
    microscope = measure_microscope(model_of(), "she sells sea shells by the sea shore", head=1)
    seen = [rounds_by_hand(microscope)[2][token] for token in range(microscope.length)]
    sizes = np.bincount(microscope.buckets[2], minlength=4)
    mates, n_seen = int((sizes * (sizes - 1) // 2).sum()), sum(map(len, seen))
    assert microscope.describe(2) == (
        f"Layer 1, head 1: 37 tokens, 4 buckets, 3 rounds, chunks of 4. Round 2: buckets hold "
        f"{sizes.min()} to {sizes.max()} tokens. Of {mates} pairs in one bucket, the round sees "
        f"{n_seen} and loses {mates - n_seen} to the window."
    )
    words = microscope.describe(2, 36)
    assert f"token 36 “e” is in bucket {microscope.buckets[2, 36]}, " in words
    key, halves = microscope.weights.heaviest(36, 1)[0]
    named = f"token {key} “{microscope.labels[key]}” {halves / 2:.1f} %"
    assert f"It gives most weight to {named}" in words
    assert "weight" not in microscope.describe(2, 36, weighed=False)


def test_who_sees_nobody_is_said_to_attend_to_itself():
    words = measure_microscope(model_of(), tokens_of(9)).describe(0, 0)
    assert "It sees nobody" in words
    assert words.endswith("No round shows it anybody, so it attends to itself.")


def test_another_rule_says_nothing_about_weights():
    changed = measure_microscope(model_of(), tokens_of(30)).under(window="sliding", rounds=1)
    assert "1 round, a sliding window of 4 slots." in changed.describe()
    for token in (None, 29):
        assert changed.describe(0, token).endswith(
            "The model did otherwise, so nothing is said about weights."
        )
    across = changed.under(within_bucket=False)
    found = int(across.describe().split("It sees ")[1].split(" across")[0])
    buckets = across.buckets[0]
    assert found == sum(
        buckets[key] != buckets[token]
        for token, keys in enumerate(rounds_by_hand(across)[0])
        for key in keys
    )


# ------------------------------------------------------------------------------------- bad input


def broken(model):
    model.layers[0].f.attention.values.weight.data[0, 0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("look", "complaint"),
    [
        (lambda: measure_microscope(model_of(), []), "at least 2 tokens, got 0"),
        (lambda: measure_microscope(model_of(), ""), "at least 2 tokens, got 0"),
        (lambda: measure_microscope(model_of(), "a"), "got 1: one alone has nobody to see"),
        (lambda: measure_microscope(model_of(), tokens_of(65)), "max_length = 64"),
        (lambda: measure_microscope(model_of(), [1, 256]), "0 to vocab_size - 1 = 255, got 256"),
        (lambda: measure_microscope(model_of(), [-1, 5]), "got -1"),
        (lambda: measure_microscope(model_of(), np.zeros(2)), "must be integers"),
        (lambda: measure_microscope(model_of(), np.zeros((2, 5), int)), r"shape \(2, 5\)"),
        (lambda: measure_microscope(model_of(vocab_size=9), "text"), "a model of bytes.*got 9"),
        (lambda: measure_microscope(model_of(), "ab", 2), r"layer must be in 0..1, got 2"),
        (lambda: measure_microscope(model_of(), "ab", -1), "got -1"),
        (lambda: measure_microscope(model_of(), "ab", 0), r"whose attention is local.*\[1\]"),
        (lambda: measure_microscope(model_of(), "ab", 1, 2), r"head must be in 0..1, got 2"),
        (
            lambda: measure_microscope(model_of(attention=("local", "full")), "ab"),
            r"without LSH layers.*\('local', 'full'\)",
        ),
        (lambda: measure_microscope(broken(model_of()), "ab"), "NaN or infinity in layer 0's"),
        (
            lambda: measure_microscope(model_of(), "abc", padding=[True, True, False]),
            "2 tokens that are not padding, got 1",
        ),
        (
            lambda: measure_microscope(model_of(), "abc", padding=[False]),
            r"each of 3 tokens, got torch.bool of shape \(1,\)",
        ),
        (
            lambda: measure_microscope(model_of(), "abc", padding=[0, 0, 1]),
            "each of 3 tokens, got torch.int64",
        ),
        (lambda: copy_of(model_of(), -1), "rotations must not be negative, got -1"),
        (lambda: measure_microscope(model_of(), "ab").under(rounds=4), r"in 1..3, got 4"),
        (lambda: measure_microscope(model_of(), "ab").under(rounds=0), r"in 1..3, got 0"),
        (lambda: measure_microscope(model_of(), "ab").under(chunk_length=0), "at least 1, got 0"),
        (lambda: measure_microscope(model_of(), "ab").describe(3), r"round must be in 0..2, got 3"),
        (lambda: measure_microscope(model_of(), "ab").describe(0, 2), r"in 0..1, got 2"),
    ],
)
def test_bad_input_is_refused_with_the_rule_the_value_and_a_way_out(look, complaint):
    with pytest.raises(ValueError, match=complaint):
        look()


# ------------------------------------------------------------------------------------- the page

N_PAGES, PLACES = 150, 6
OWN = {"rounds": None, "chunk_length": None, "window": None, "within_bucket": None}

REPLAY = """
function replay(cases) {
  return cases.map(({ data, late, places }) => places.map(asked => {
    const place = settle(data, { ...asked }), rule = ruleOf(data, place);
    const plans = rule.buckets.map(buckets => planRound(buckets, rule));
    const row = place.token === null ? null : rowOf(plans, rule, place.round, place.token);
    const look = weights => describeMicroscope({ rule, plans, row, weights, place });
    return {
      round: place.round, token: place.token, rounds: rule.buckets.length,
      rule: [rule.chunk_length, rule.window, rule.within_bucket],
      kinds: row && [...row.kinds], by: row && Array.from(row.kinds, (_, key) => row.by(key)),
      words: look(unpack(late)), pending: look(null),
    };
  }));
}
"""


def random_microscope(dice):
    rule, rounds, length = random_rule(dice), dice.randint(1, 4), dice.randint(2, 90)
    buckets = np.array(
        [[dice.randrange(rule["n_buckets"]) for _ in range(length)] for _ in range(rounds)]
    )
    qk = 4 * np.random.default_rng(dice.randrange(1 << 30)).normal(size=(length, 3))
    empty, padded = np.zeros_like(buckets), dice.random() < 0.3
    microscope = Microscope(
        **{**rule, "chunk_length": rule["chunk_length"] + 1},
        buckets=buckets,
        order=empty,
        slot=empty,
        first=empty,
        last=empty,
        labels=tuple(f"<{i}>" for i in range(length)),
        layer=dice.randrange(3),
        head=dice.randrange(9),
        n_heads=9,
        layers=("lsh",) * 3,
        qk=qk.astype(np.float32),
        count_repeats=dice.random() < 0.5,
        padding=np.array([dice.random() < 0.3 for _ in range(length)]) if padded else None,
    )
    planned = microscope.under(chunk_length=rule["chunk_length"])
    return replace(planned, qk=microscope.qk)


def microscope_of_equals():
    """Make one in which a late token sees so many that none of them gets half a percent."""
    microscope = measure_microscope(model_of(max_length=1024), [65] * 900)
    one_bucket = replace(microscope, buckets=np.zeros_like(microscope.buckets))
    return replace(one_bucket.under(chunk_length=512), qk=np.ones_like(microscope.qk))


def random_place(dice, microscope):
    def perhaps(choices):
        return None if dice.random() < 0.5 else dice.choice(choices)

    as_it_is = dice.random() < 0.4
    return {
        "round": dice.randint(-1, 5),
        "token": perhaps([-3, *range(microscope.length), 1000]),
        **(OWN if as_it_is else {}),
        **(
            {}
            if as_it_is
            else {
                "rounds": perhaps([0, 1, 2, 3, 4, 9]),
                "chunk_length": perhaps([0, 1, 2, 5, 30, 1000]),
                "window": perhaps(["chunks", "sliding"]),
                "within_bucket": perhaps([True, False]),
            }
        ),
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory, request):
    """Return random microscopes, places in them, and what the script makes of each."""
    dice, view = random.Random(0), MicroscopeView()
    microscopes = [microscope_of_equals(), *(random_microscope(dice) for _ in range(N_PAGES))]
    places = [[random_place(dice, m) for _ in range(PLACES)] for m in microscopes]
    places[0][0] = {"round": 0, "token": 800, **OWN}
    cases = [
        {"data": view.ship(m), "late": {**view.ship_late(m), "version": 1}, "places": of_m}
        for m, of_m in zip(microscopes, places, strict=True)
    ]
    script = compact_script("microscope_view.js") + REPLAY
    found = run(script, cases, tmp_path_factory.mktemp("node"), request)
    return [
        (m, place, page)
        for m, of_m, pages in zip(microscopes, places, found, strict=True)
        for place, page in zip(of_m, pages, strict=True)
    ]


def test_the_page_settles_where_python_does(pages):
    for microscope, place, page in pages:
        looked_at, round, token = settle(microscope, place)
        assert (page["round"], page["token"], page["rounds"]) == (round, token, looked_at.n_rounds)
        assert page["rule"] == [looked_at.chunk_length, looked_at.window, looked_at.within_bucket]


def test_the_page_finds_the_same_mates(pages):
    for microscope, place, page in pages:
        looked_at, round, token = settle(microscope, place)
        if token is not None:
            assert page["kinds"] == looked_at.kinds(round, token).tolist()
            seen = looked_at.seen_by(token)
            assert page["by"] == np.where(seen.any(axis=0), seen.argmax(axis=0), -1).tolist()


def test_the_page_says_the_same_words_with_weights_and_without(pages):
    for microscope, place, page in pages:
        looked_at, round, token = settle(microscope, place)
        assert page["words"] == MicroscopeView().describe(microscope, place)
        assert page["pending"] == looked_at.describe(round, token, weighed=False)
    assert len({page["words"] == page["pending"] for _, _, page in pages}) == 2


def test_the_random_pages_are_of_every_sort(pages):
    settled = [settle(m, place) for m, place, _ in pages]
    assert {(m.window, m.within_bucket, m.causal) for m, _, _ in settled} == {
        (window, within, causal)
        for window in ("chunks", "sliding")
        for within in (True, False)
        for causal in (True, False)
    }
    assert {m.qk is None for m, _, _ in settled} == {True, False}
    assert {m.padding is None for m, _, _ in settled} == {True, False}
    assert {token is None for _, _, token in settled} == {True, False}
    endings = ("to itself.", "in particular.", " %.", "about weights.", "window.", "sees it.")
    assert all(any(page["words"].endswith(e) for _, _, page in pages) for e in endings)


def test_what_a_page_is_sent_of_weights_is_bounded_at_any_length():
    length = 4096
    microscope = measure_microscope(
        model_of(max_length=length, n_buckets=2, chunk_length=64, n_hashes=2), tokens_of(length)
    )
    sent = MicroscopeView().ship_late(microscope)
    counts = np.frombuffer(b64decode(sent["counts"]), np.uint8).astype(int)
    keys = np.frombuffer(b64decode(sent["keys"]), "<u2")
    halves = np.frombuffer(b64decode(sent["halves"]), np.uint8)
    assert counts.max() <= (1 << 17) // length
    assert len(keys) == len(halves) == counts.sum()
    starts = np.concatenate([[0], np.cumsum(counts)])
    for token in (1, 70, 4095):
        pairs = list(zip(keys[starts[token] :], halves[starts[token] :], strict=True))
        assert pairs[: counts[token]] == microscope.weights.heaviest(token, 32)


# ------------------------------------------------------------------------------------- explored


def test_moving_a_control_looks_at_another_head_layer_and_text():
    model = model_of(n_layers=4)
    panel = explore_model(model, "she sells sea shells")
    assert repr(panel) == measure_microscope(model, "she sells sea shells").describe()
    panel.controls["layer"].value = 3
    panel.controls["head"].value = 1
    panel.place = {"token": 12, "round": 1}
    wanted = measure_microscope(model, "she sells sea shells", 3, 1)
    assert repr(panel) == wanted.describe(1, 12)
    panel.controls["text"].value = "by the sea"
    wanted = measure_microscope(model, "by the sea", 3, 1)
    assert repr(panel) == wanted.describe(1, 9)  # the nearest token that there is
    panel.controls["new_rotations"].click()
    assert panel.state["rotations"] == 1
    other = take_specimen(copy_of(model, 1), "by the sea").look(3, 1)
    assert np.array_equal(panel.data.buckets, other.buckets)


def test_another_rule_is_a_place_in_the_page_and_asks_no_model():
    panel = explore_model(model_of(), tokens_of(40))
    panel.place = {"chunk_length": 3, "window": "sliding", "rounds": 2}
    assert "2 rounds, a sliding window of 3 slots." in repr(panel)
    assert panel.data.n_rounds == 3
    assert {"layer", "head", "rotations", "round", "token", "rounds", "window"} < set(panel.state)


def test_the_line_of_code_leads_back_to_what_is_shown():
    model, tokens = model_of(n_layers=4), "she sells"
    panel = explore_model(model, tokens)
    panel.controls["layer"].value, panel.controls["head"].value = 3, 1
    panel.place = {"token": 5, "chunk_length": 3}
    assert panel.code.startswith('explore_model(model, tokens="she sells", layer=3, head=1, ')
    assert "text" not in panel.code
    for typed in ("she sells", "sea shells"):
        panel.controls["text"].value = typed
        again = eval(panel.code, {"explore_model": explore_model, "model": model})
        assert (repr(again), again.state) == (repr(panel), panel.state)
    given = explore_model(model, tokens_of(9))
    assert "explore_model(model, tokens=tokens, layer=1, " in given.code


def test_the_given_tokens_are_looked_at_until_the_text_is_changed():
    tokens = [0x61, 0xC3, 0x62, 0x20]  # no UTF-8: not what its own text would be
    panel = explore_model(model_of(), tokens)
    assert panel.data.labels == ("a", "C3", "b", "␣")
    first = panel.state["text"]
    panel.controls["text"].value = "abc"
    assert panel.data.labels == ("a", "b", "c")
    panel.controls["text"].value = first
    assert panel.data.labels == ("a", "C3", "b", "␣")


def test_only_models_that_read_text_have_a_field_for_it():
    small = model_of(vocab_size=20)
    assert "text" not in explore_model(small, [1, 2, 3]).controls
    panel = explore_model(
        small,
        [1, 2, 3],
        encode=lambda text: [ord(c) - 96 for c in text],
        decode=lambda numbers: "".join(chr(96 + n) for n in numbers),
    )
    assert (panel.state["text"], panel.data.labels) == ("abc", ("a", "b", "c"))
    panel.controls["text"].value = "add"
    assert panel.data.labels == ("a", "d", "d")
    panel.controls["text"].value = "a~"
    assert "0 to vocab_size - 1 = 19, got 30" in panel.problem
    assert "<p>token ids must be" in panel._html()


def str_of(numbers):
    return bytes(numbers).decode()


@pytest.mark.parametrize(
    ("explore", "complaint"),
    [
        (lambda: explore_model(model_of(), ""), "at least 2 tokens, got 0"),
        (lambda: explore_model(model_of(), "a"), "at least 2 tokens, got 1"),
        (lambda: explore_model(model_of(attention=("local",)), "ab"), "without LSH layers"),
        (lambda: explore_model(model_of(), "ab", layer=0), "whose attention is local"),
        (lambda: explore_model(model_of(), "ab", layer=9), "layer must be in 0..1, got 9"),
        (lambda: explore_model(model_of(), "ab", layer=-1), "layer must be in 0..1, got -1"),
        (lambda: explore_model(model_of(), "ab", head=2), "head must be in 0..1, got 2"),
        (lambda: explore_model(model_of(), "ab", head=-1), "head must be in 0..1, got -1"),
        (lambda: explore_model(broken(model_of()), "ab"), "NaN or infinity in layer 0's"),
        (lambda: explore_model(model_of(vocab_size=9), "ab"), "text needs a model of bytes"),
        (lambda: explore_model(model_of(), [1, 999]), "got 999"),
        (lambda: explore_model(model_of(), torch.tensor([1.0, 2.0])), "must be integers"),
        (lambda: explore_model(model_of(), torch.ones(2, 9).long()), r"shape (2, 9)"),
        (lambda: explore_model(model_of(), [1, 999], encode=bytes, decode=str_of), "got 999"),
        (lambda: explore_model(model_of(), torch.ones(1, MOST_TOKENS + 1).long()), "at most"),
        (lambda: explore_model(model_of(), "a" * (MOST_TOKENS + 1)), "at most 16,384 tokens"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence_where_the_picture_would_be(explore, complaint):
    panel = explore()
    assert complaint in panel.problem
    assert repr(panel) == panel.problem
    assert "<img" not in panel._html()
    with pytest.raises(ValueError, match=complaint.split("(")[0]):
        _ = panel.figure


def test_text_that_contains_html_stays_text():
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    panel = explore_model(model_of(), evil)
    panel.place = {"token": 1}
    html = panel._html()
    assert html.count("</script>") == 1
    assert "<img src=x" not in html
    assert "".join(panel.data.labels) == evil.replace(" ", "␣")


def test_the_explorer_leaves_a_model_in_training_alone():
    model = model_of().train()
    panel = explore_model(model, "she sells sea shells")
    before = repr(panel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    panel.controls["head"].value = 1
    panel.controls["head"].value = 0
    assert repr(panel) == before
    assert model.training


def test_weights_follow_when_the_page_asks_and_are_of_the_data_that_it_asks_for():
    panel = explore_model(model_of(), tokens_of(30))
    link = panel._link
    assert (link.late, link.data["version"]) == ({}, 1)
    link.wanted = 1
    assert link.late == {**MicroscopeView().ship_late(panel.data), "version": 1}
    panel.controls["head"].value = 1
    assert link.data["version"] == 2
    assert link.late["version"] == 1  # the page drops these, and asks again
    former = link.late
    link.wanted = 5
    assert link.late is former or link.late == former
    link.wanted = 2
    assert link.late == {**MicroscopeView().ship_late(panel.data), "version": 2}
    panel.controls["text"].value = ""
    link.wanted = 3
    assert link.late["version"] == 2


def test_a_page_of_a_long_text_asks_for_the_weights_that_it_does_not_hold():
    length = 4096
    model = model_of(max_length=length, n_buckets=2, chunk_length=64, n_hashes=2)
    panel = explore_model(model, tokens_of(length))
    link, weights = panel._link, panel.data.weights
    held = MicroscopeView().ship_late(panel.data)["most"]
    for number, token in enumerate((4095, 70)):
        asked = {"version": 1, "token": token, "number": number}
        link.question = asked
        wanted = weights.heaviest(token, HALF_PERCENTS)
        assert len(wanted) > held
        assert link.answer == {**asked, "weights": wanted}
    panel.controls["head"].value = 1
    link.question = {"version": 1, "token": 5, "number": 2}  # of the former head
    assert link.answer["token"] == 70
    link.question = {"version": 2, "token": 5, "number": 3}
    assert link.answer["weights"] == panel.data.weights.heaviest(5, HALF_PERCENTS)


def test_padded_tokens_are_looked_at_until_a_text_is_typed():
    model, padding = model_of(), [False] * 6 + [True] * 3
    panel = explore_model(model, "she sells", padding=padding)
    assert repr(panel) == measure_microscope(model, "she sells", padding=padding).describe()
    assert panel._view.ship(panel.data)["padding"] == [0] * 6 + [1] * 3
    again = eval(panel.code, {"explore_model": explore_model, "model": model})
    assert repr(again) == repr(panel)
    panel.place = {"token": 7}
    assert repr(panel).startswith("Token 7 “l” is padding")
    panel.controls["text"].value = "sea shells"
    assert panel.data.padding is None
    short = explore_model(model, "she", padding=[True, False, True])
    assert "2 tokens that are not padding, got 1" in short.problem


def test_a_page_is_small_also_at_its_greatest_length(tmp_path):
    model = model_of(max_length=MOST_TOKENS, n_buckets=256, chunk_length=64, n_hashes=4)
    path = explore_model(model, tokens_of(MOST_TOKENS)).save_html(tmp_path / "page.html")
    assert path.stat().st_size < 2_000_000
    short = explore_model(model_of(), tokens_of(64))._html()
    assert len(short) < 100_000


# ------------------------------------------------------------------------------------- drawn


@pytest.mark.parametrize("token", [None, 50])
def test_the_figure_draws_what_was_measured_and_others_than_the_chosen_token_s_faintly(token):
    microscope, round = measure_microscope(model_of(), tokens_of(64)), 1
    figure = plot_microscope(microscope, round, token)
    axes = {a.get_title(loc="left"): a for a in figure.axes}
    near = np.asarray(axes["64 slots of sorted order; colours: buckets"].images[0].get_array())
    order = microscope.order[round]
    kinds = microscope.kinds_among(round, order)
    colours = style.bucket_colours(microscope.n_buckets)
    wanted = np.array([to_rgb(colours[b]) for b in microscope.buckets[round, order]])
    seen = np.argwhere(kinds == SEEN)
    assert len(seen) > 20
    for query, key in seen:
        shown = 1.0 if token in (None, order[query]) else 0.3
        assert near[query, key] == pytest.approx(1 - shown * (1 - wanted[query]))
    assert (near[kinds == HIDDEN] == 1).all()
    all_pairs = "All pairs, in reading order; blue: seen by this round"
    whole = axes[all_pairs].images[0].get_array()
    assert ((whole < 1).any(-1) == (microscope.seen_binned(64) > 0)).all()


def test_the_chosen_token_s_row_of_all_pairs_is_drawn_by_kind_with_its_weights():
    microscope, round, token = measure_microscope(model_of(), tokens_of(64)), 1, 50
    [_, _, axes, _] = plot_microscope(microscope, round, token).axes
    kinds = microscope.kinds(round, token)
    drawn = [[bar.get_x() for bar in bars] for bars in axes.containers]
    wanted = [(ELSEWHERE, FOUND), (LOST, FOUND), (SEEN,)]
    assert drawn[:3] == [np.flatnonzero(np.isin(kinds, of)).tolist() for of in wanted]
    keys, shares = microscope.weights.of(token)
    assert [bar.get_x() + bar.get_width() / 2 - 0.5 for bar in axes.containers[3]] == (
        pytest.approx(keys.tolist())
    )
    heights = np.array([bar.get_height() for bar in axes.containers[3]])
    assert heights / heights.sum() == pytest.approx(shares / shares.sum(), rel=1e-4)


def test_the_still_picture_shows_the_chosen_token_s_row_with_its_weights():
    microscope, round, token = measure_microscope(model_of(), tokens_of(64)), 1, 50
    kinds, without = microscope.kinds(round, token), draw_svg(microscope, round)
    picture = draw_svg(microscope, round, token)
    row = svg.runs((kinds == SEEN)[None])
    assert f'<path d="{row}" fill="{style.PALETTE[0]}"/>' in picture
    assert (picture.count('opacity=".3"'), without.count('opacity=".3"')) == (3, 1)
    [of_all, of_near] = re.findall(rf'<path d="([^"]*)" fill="{style.INK}"/>', picture)
    weighed = microscope.weights.of(token)[1] > 0
    assert of_all.count("M") == of_near.count("M") == weighed.sum()


def test_bins_count_every_pair_once():
    microscope = measure_microscope(model_of(), tokens_of(61))
    visible = np.stack([microscope.seen_by(token) for token in range(61)], axis=1)
    for round in range(3):
        assert np.array_equal(microscope.seen_binned(61, round), visible[round])
        assert microscope.seen_binned(7, round).sum() == visible[round].sum()
    assert np.array_equal(microscope.seen_binned(61), visible.sum(axis=0))
    coarse = microscope.seen_binned(7, 0)
    query, key = np.argwhere(visible[0])[-1]
    assert coarse[query * 7 // 61, key * 7 // 61] > 0


@pytest.mark.parametrize("token", [None, 0, 17])
@pytest.mark.parametrize("length", [2, 40, 300])
def test_every_state_can_be_drawn(length, token):
    tokens = list(range(97, 97 + 26)) * 12
    padding = np.arange(length) % 9 == 8 if length == 40 else None
    model = model_of(max_length=512)
    microscope = measure_microscope(model, tokens[:length], padding=padding)
    token = token if token is None else min(token, length - 1)
    for looked_at in (microscope, microscope.under(chunk_length=2)):
        plot_microscope(looked_at, 1, token).draw_without_rendering()
        drawn = ElementTree.fromstring(draw_svg(looked_at, 1, token))
        words = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
        assert f"the text, {length} tokens" in words


def test_the_still_picture_holds_any_text_and_is_the_same_every_time():
    microscope = measure_microscope(model_of(), "</svg>&<\x01\n\U0001f600 " * 3)
    picture = draw_svg(microscope)
    assert picture == draw_svg(microscope)
    words = "".join(
        e.text for e in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    )
    assert "</svg>&<01↵😀…" in words


def test_tokens_without_a_name_are_drawn_without_one():
    microscope = measure_microscope(model_of(), "abc", decode=lambda numbers: "")
    assert microscope.labels == ("", "", "")
    plot_microscope(microscope, 0, 1).draw_without_rendering()
    ElementTree.fromstring(draw_svg(microscope, 0, 1))


def test_long_names_are_fewer_and_large_enough_to_read_in_print_and_in_the_still_picture():
    words = ["the", "attention", "hashing", "looks", "at", "neighbourhoods", "of", "transformers"]
    model = model_of(vocab_size=8)
    microscope = measure_microscope(model, torch.arange(60) % 8, decode=lambda n: words[n[0]])
    row = plot_microscope(microscope, 0, 30).axes[0].texts
    picture = ElementTree.fromstring(draw_svg(microscope, 0, 30))
    sizes = [
        float(e.get("font-size")) for e in picture.iter() if e.get("font-family") == "monospace"
    ]
    assert 10 < len(row) < 30
    assert len(sizes) == 2 * len(row)
    assert {"the", "neighbo…"} <= {text.get_text() for text in row}
    assert min(text.get_fontsize() for text in row) > 5
    assert min(sizes) > 6
    assert len(plot_microscope(measure_microscope(model_of(), "ab" * 32)).axes[0].texts) == 64


def test_characters_without_a_picture_are_boxes_in_print():
    figure = plot_microscope(measure_microscope(model_of(), "ab䶖 c"))
    figure.draw_without_rendering()  # a missing picture would be a warning, and so an error
    assert "□" in {text.get_text() for axes in figure.axes for text in axes.texts}
