"""The microscope: measured against slow and obvious versions, and the same in the page."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_core import ReformerConfig, ReformerLM, lsh_attention
from reformer_viz.measure.bucketing import ELSEWHERE, FOUND, HIDDEN, LOST, SEEN
from reformer_viz.measure.microscope import (
    HALF_PERCENTS,
    copy_of,
    label_bytes,
    measure_microscope,
    take_specimen,
)
from tests import oracles

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


def test_the_plan_is_the_one_that_the_model_used():
    model, tokens = model_of(), tokens_of(50)
    plan = model.eval().trace(tokens[None]).layers[1].plan
    microscope = measure_microscope(model, tokens, head=1)
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


def test_a_copy_does_not_follow_the_model_and_has_no_dropout():
    model = model_of(dropout=0.5).train()
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
    assert small.labels is None
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
