"""Bad input, for every explorer at once: a sentence in the picture's place, an error underneath."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from reformer_core import ReformerConfig, ReformerLM, TrainConfig, plan_chunks, train
from reformer_core.tasks import Duplicate, TextBytes
from reformer_viz import (
    Recorder,
    explore_bucket_load,
    explore_bucketing,
    explore_bugs,
    explore_geometry,
    explore_leak,
    explore_memory,
    explore_misses,
    explore_model,
    explore_recall,
    explore_sparsity,
    explore_speed,
    explore_training,
    measure_bucketing,
    measure_bug,
    measure_collisions,
    measure_geometry,
    measure_memory,
    measure_microscope,
    measure_miss_cost,
    measure_misses,
    measure_quality,
    measure_recall,
    measure_reconstruction,
    measure_sparsity,
    measure_sparsity_per_head,
    measure_speed,
    measure_step_film,
    measure_training,
)
from reformer_viz.measure.hashing import apply_hash
from reformer_viz.measure.pairs import plan_by
from reformer_viz.measure.quality import read_quality
from reformer_viz.measure.recall import Setting, compare, look_at_all
from reformer_viz.measure.sequence import make_sequence, take_sequence
from reformer_viz.measure.speed import SpeedReading, read_speed
from reformer_viz.measure.training import describe_snapshot

SPEED = "tests/benchmarks/results/cpu.json"
TASK = Duplicate(vocab_size=6, length=16)
CONFIG = ReformerConfig(
    vocab_size=256,
    d_model=16,
    n_layers=2,
    n_heads=2,
    attention=("local", "lsh"),
    n_hashes=2,
    n_buckets=4,
    chunk_length=4,
    max_length=16,
)
VECTORS = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
NONE, ONE = VECTORS[:, :0], VECTORS[:, :1]
BROKEN = VECTORS.clone().index_fill_(1, torch.tensor([5]), torch.nan)
ONE_TOKEN = torch.tensor([7])
EVIL = "<img src=x onerror=alert(1)><b>&amp;</b></script>"


@cache
def model(**changes):
    torch.manual_seed(0)
    return ReformerLM(replace(CONFIG, **changes)).eval()


@cache
def without_buckets():
    return model(attention=("local", "full"))


@cache
def broken():
    torch.manual_seed(0)
    made = ReformerLM(CONFIG)
    made.layers[1].f.attention.qk.weight.data.fill_(torch.nan)
    return made


@cache
def trace(of=model):
    return of().trace(torch.arange(16)[None])


def broken_trace():
    layers = list(trace().layers)
    layers[1] = replace(layers[1], qk=layers[1].qk * torch.nan)
    return replace(trace(), layers=tuple(layers))


def floats(vectors):
    return vectors[..., 0]


@cache
def finished():
    """A finished run of one step, and its recording of two layers' worth of probe."""
    learner = model(vocab_size=6)
    recorder = Recorder(learner, torch.arange(6), at=[0, 1])
    how = TrainConfig(steps=1, batch_size=2, evaluation_batches=1)
    return measure_training(train(learner, TASK, how, on_step=recorder), recorder)


def plan(length=8):
    return plan_chunks(torch.zeros(1, 2, 1, length).long(), chunk_length=4, causal=True)


def panel(explore, *arguments, **options):
    return lambda: explore(*arguments, **options)


# What is bad, whose it is, the explorer that is given it, and the functions underneath.
TABLE = [
    # ------------------------------------------------------------ empty and one-token sequences
    (
        "must not be empty",
        [
            panel(explore_bucketing, NONE),
            panel(explore_bucket_load, NONE),
            panel(explore_leak, NONE),
            panel(explore_bugs, NONE[0]),
            panel(explore_geometry, NONE[0]),
            panel(explore_sparsity, NONE),
        ],
        [lambda: take_sequence(NONE, 0)],
    ),
    ("not empty", [panel(explore_recall, NONE)], [lambda: measure_recall(NONE)]),
    (
        "n_tokens must be at least 1, got 0",
        [
            panel(explore_bucketing, n_tokens=0),
            panel(explore_bucket_load, n_tokens=0),
            panel(explore_leak, n_tokens=0),
            panel(explore_sparsity, n_tokens=0),
        ],
        [lambda: make_sequence(0, 0)],
    ),
    (
        "needs at least 2 tokens, got [01]",
        [
            panel(explore_bucketing, ONE),
            panel(explore_bucket_load, ONE),
            panel(explore_leak, ONE),
            panel(explore_recall, ONE),
            panel(explore_model, model(), ""),
            panel(explore_model, model(), "a"),
            panel(explore_misses, model(), ""),
            panel(explore_misses, model(), [3]),
        ],
        [
            lambda: measure_recall(ONE),
            lambda: measure_microscope(model(), "a"),
            lambda: Recorder(model(), ONE_TOKEN, at=[0]),
        ],
    ),
    (
        "two tokens that are not padding, got 1",
        [panel(explore_sparsity, ONE)],
        [lambda: measure_sparsity(plan(1))],
    ),
    (
        "at least 2 tokens, got",
        [
            panel(explore_memory, CONFIG, length=1),
            panel(explore_memory, CONFIG, length=-1),
            panel(explore_memory, CONFIG, length=-1, show="lengths"),
            panel(explore_memory, CONFIG, length=0, show="reconstruction"),
        ],
        [
            lambda: measure_miss_cost(model(), ONE_TOKEN),
            lambda: measure_step_film(CONFIG, length=-1),
            lambda: measure_step_film(CONFIG, batch_size=0),
            lambda: measure_memory(CONFIG, lengths=[1], repeats=0),
            lambda: measure_step_film(CONFIG, length=1),
            lambda: measure_reconstruction(CONFIG, length=1),
        ],
    ),
    ("lengths must be at least 1", [], [lambda: measure_speed([0])]),
    # ------------------------------------------------------------ numbers of rounds that are none
    (
        "n_hashes must be whole numbers from 1 on, each larger than the one before, got",
        [
            panel(explore_recall, VECTORS, n_hashes=()),
            panel(explore_recall, VECTORS, n_hashes=0),
            panel(explore_recall, VECTORS, n_hashes=(0, 1)),
            panel(explore_recall, VECTORS, n_hashes=(2, 1)),
        ],
        [lambda: compare(look_at_all(VECTORS), [Setting(4, 4)], n_hashes=())],
    ),
    # ------------------------------------------------------------ vectors that are none
    (
        "vectors must be (numbers, got str|rows of equal length)",
        [
            panel(explore_bucketing, "text"),
            panel(explore_bucket_load, [[1.0, 2.0], [3.0]]),
            panel(explore_leak, [[1.0, 2.0], [3.0]]),
            panel(explore_geometry, "text"),
            panel(explore_sparsity, [[1.0, 2.0], [3.0]]),
        ],
        [lambda: take_sequence("text", 0)],
    ),
    # ------------------------------------------------------------ more rounds than were measured
    (
        r"n_hashes must be in 1\.\.4, got 9: as many rounds were measured",
        [panel(explore_misses, model(), "a text", n_hashes=9)],
        [
            lambda: measure_misses(model(), TASK, max_hashes=4, n_sequences=1).describe(9),
            lambda: measure_miss_cost(model(), torch.arange(9), max_hashes=4).describe(9),
        ],
    ),
    (
        r"n_hashes must be one of .*, got 9: no other number of rounds was measured",
        [panel(explore_speed, SPEED, n_hashes=9)],
        [lambda: SpeedReading(measurement=read_speed(SPEED), n_hashes=9)],
    ),
    (
        r"round(s)? must be in",
        [],
        [
            lambda: measure_microscope(model(), "a text").under(rounds=3),
            lambda: measure_bucketing(plan()).describe(1),
            lambda: describe_snapshot(finished().recording, 0, 0, 0, 2),
        ],
    ),
    (
        "bug must be 'none' or one of .*, got 'typo'",
        [panel(explore_bugs, bug="typo")],
        [lambda: measure_bug(torch.ones(4, 2), "typo")],
    ),
    # ------------------------------------------------------------ a model without LSH layers
    (
        "without LSH layers has no buckets",
        [panel(explore_model, without_buckets(), "a text")],
        [lambda: measure_microscope(without_buckets(), "a text")],
    ),
    (
        "must have an LSH layer",
        [
            panel(explore_misses, without_buckets(), "a text"),
            panel(explore_misses, without_buckets(), TASK),
            panel(explore_sparsity, trace(without_buckets)),
        ],
        [
            lambda: measure_misses(without_buckets(), TASK),
            lambda: measure_miss_cost(without_buckets(), torch.arange(9)),
            lambda: measure_sparsity_per_head(trace(without_buckets)),
            lambda: Recorder(without_buckets(), torch.arange(9), at=[0]),
        ],
    ),
    (
        'config must have "lsh" in its attention',
        [],
        [
            lambda: measure_quality(
                without_buckets().config, TextBytes(16), [1], train=TrainConfig(steps=1)
            )
        ],
    ),
    # ------------------------------------------------------------ NaN activations
    (
        r"must be finite, got NaN|must have a direction, got \[nan",
        [
            panel(explore_bucketing, BROKEN),
            panel(explore_bucket_load, BROKEN),
            panel(explore_leak, BROKEN),
            panel(explore_bugs, BROKEN[0]),
            panel(explore_geometry, BROKEN[0]),
            panel(explore_sparsity, BROKEN),
            panel(explore_sparsity, broken_trace()),
            panel(explore_recall, BROKEN),
            panel(explore_model, broken(), "a text"),
            panel(explore_misses, broken(), "a text"),
            panel(explore_misses, broken(), TASK),
        ],
        [
            lambda: take_sequence(BROKEN, 0),
            lambda: measure_recall(BROKEN),
            lambda: measure_geometry(BROKEN[0], torch.ones(3, 2)),
            lambda: measure_sparsity(trace().layers[1].plan, broken_trace().layers[1].qk),
            lambda: measure_sparsity_per_head(broken_trace()),
            lambda: measure_microscope(broken(), "a text"),
            lambda: measure_misses(broken(), TASK),
            lambda: measure_miss_cost(broken(), torch.arange(9)),
            lambda: measure_step_film(broken(), length=9),
            lambda: measure_reconstruction(broken(), length=9),
            lambda: Recorder(broken(), torch.arange(9), at=[0]),
        ],
    ),
    # ------------------------------------------------------------ a layer or head out of range
    (
        r"head must be in 0\.\.1, got (2|-1)",
        [
            panel(explore_bucketing, VECTORS, head=2),
            panel(explore_bucketing, VECTORS, head=-1),
            panel(explore_bucket_load, VECTORS, head=2),
            panel(explore_leak, VECTORS, head=2),
            panel(explore_bucket_load, VECTORS, head=-1),
            panel(explore_leak, VECTORS, head=-1),
            panel(explore_sparsity, VECTORS, head=2),
            panel(explore_sparsity, VECTORS, head=-1),
            panel(explore_sparsity, trace(), head=2),
            panel(explore_model, model(), "a text", head=2),
            panel(explore_model, model(), "a text", head=-1),
        ],
        [
            lambda: measure_bucketing(plan(), head=2),
            lambda: measure_sparsity(plan(), head=2),
            lambda: take_sequence(VECTORS, 0).noisy(head=2, noise=0),
            lambda: measure_microscope(model(), "a text", head=2),
            lambda: describe_snapshot(finished().recording, 0, 0, 2, 0),
        ],
    ),
    (
        r"head must be in 0\.\.0, got 3: there are 1",
        [
            panel(explore_bucketing, VECTORS[0], head=3),
            panel(explore_bucketing, head=3),
            panel(explore_bucket_load, VECTORS[0], head=3),
            panel(explore_leak, VECTORS[0], head=3),
            panel(explore_sparsity, VECTORS[0], head=3),
        ],
        [lambda: take_sequence(VECTORS[0], 0).noisy(head=3, noise=0)],
    ),
    # ------------------------------------------------------------ noise that is none
    (
        "noise must be at least 0 and finite, got -1",
        [
            panel(explore_bucketing, VECTORS, noise=-1),
            panel(explore_bucket_load, VECTORS, noise=-1.0),
            panel(explore_leak, VECTORS, noise=-1.0),
            panel(explore_geometry, VECTORS[0], noise=-1),
            panel(explore_sparsity, VECTORS, noise=-1),
        ],
        [lambda: take_sequence(VECTORS, 0).noisy(head=0, noise=-1)],
    ),
    (
        r"layer must be .*, got (0|9|-1)",
        [
            panel(explore_sparsity, trace(), layer=9),
            panel(explore_sparsity, trace(), layer=-1),
            panel(explore_sparsity, trace(), layer=0),
            panel(explore_model, model(), "a text", layer=9),
            panel(explore_model, model(), "a text", layer=0),
            panel(explore_misses, model(), "a text", layer=9),
            panel(explore_misses, model(), TASK, layer=0),
        ],
        [
            lambda: measure_microscope(model(), "a text", -1),
            lambda: measure_misses(model(), TASK, layer=9),
            lambda: measure_miss_cost(model(), torch.arange(9), layer=0),
            lambda: describe_snapshot(finished().recording, 0, 9, 0, 0),
        ],
    ),
    # ------------------------------------------------------------ a hash that returns floats
    (
        "hash must return whole numbers, got float32: a bucket is a choice",
        [
            panel(explore_bucketing, VECTORS, hash=floats),
            panel(explore_bucket_load, VECTORS, hash=floats),
            panel(explore_leak, VECTORS, hash=floats),
            panel(explore_geometry, VECTORS[0], hash=floats),
        ],
        [
            lambda: apply_hash(floats, VECTORS[None]),
            lambda: measure_geometry(VECTORS[0], hash=floats),
            lambda: measure_collisions(hash=floats, n_pairs=2),
        ],
    ),
    # ------------------------------------------------------------ bytes outside the vocabulary
    (
        "token ids must be 0 to vocab_size - 1 = 255, got (256|-1)",
        [
            panel(explore_model, model(), [1, 256]),
            panel(explore_misses, model(), [1, 256]),
            panel(explore_misses, model(), [-1, 1]),
        ],
        [
            lambda: measure_microscope(model(), [1, 256]),
            lambda: measure_miss_cost(model(), torch.tensor([1, 256])),
            lambda: measure_miss_cost(model(), [-1, 1]),
        ],
    ),
    (
        "tokens must be integers, got torch.float",
        [panel(explore_misses, model(), torch.rand(4))],
        [lambda: measure_miss_cost(model(), torch.rand(4))],
    ),
    (
        "text needs a model of bytes, whose vocab_size is 256, got 6",
        [
            panel(explore_model, model(vocab_size=6), "é"),
            panel(explore_misses, model(vocab_size=6), "é"),
        ],
        [
            lambda: measure_microscope(model(vocab_size=6), "é"),
            lambda: measure_miss_cost(model(vocab_size=6), "é"),
        ],
    ),
    # ------------------------------------------------------------ files that are none
    (
        "must be a JSON file of make bench: .*(No such file|Extra data)",
        [panel(explore_speed, "missing.json"), panel(explore_speed, __file__)],
        [lambda: read_speed("missing.json"), lambda: read_speed(__file__)],
    ),
    (
        "must be a JSON file of Quality.save: .*No such file",
        [panel(explore_speed, SPEED, quality="missing.json")],
        [lambda: read_quality("missing.json")],
    ),
    # ------------------------------------------------------------ names that no rule or place has
    (
        "a rule has chunk_length, causal, .*, padding, got windows",
        [
            panel(explore_bucketing, windows=1),
            panel(explore_bucket_load, windows=1),
            panel(explore_leak, windows=1),
            panel(explore_sparsity, windows=1),
            panel(explore_recall, VECTORS, windows=1),
        ],
        [
            lambda: plan_by(torch.zeros(1, 1, 1, 2).long(), windows=1),
            lambda: measure_recall(VECTORS, windows=1),
        ],
    ),
    (
        "a place here has round, token, .*, got rund",
        [
            panel(explore_bucketing, place={"rund": 1}),
            panel(explore_model, model(), "a text", place={"rund": 1}),
        ],
        [],
    ),
    (
        "a place here has no names, got round",
        [
            panel(explore_recall, VECTORS, place={"round": 1}),
            panel(explore_geometry, place={"round": 1}),
        ],
        [],
    ),
    (
        "a place's (round|token|snapshot|rounds) must be a whole number( or None)?, got",
        [
            panel(explore_bucketing, place={"round": "a"}),
            panel(explore_bucketing, place={"round": None}),
            panel(explore_bucketing, place={"token": 1.5}),
            panel(explore_sparsity, place={"rounds": "a"}),
            panel(explore_model, model(), "a text", place={"token": "a"}),
            panel(explore_training, finished(), place={"snapshot": "a"}),
        ],
        [],
    ),
    (
        "a place's (window|columns) must be one of .*, got 'typo'",
        [
            panel(explore_sparsity, place={"window": "typo"}),
            panel(explore_model, model(), "a text", place={"window": "typo"}),
            panel(explore_training, finished(), place={"columns": "typo"}),
        ],
        [],
    ),
    (
        "training must be what measure_training returns, got NoneType",
        [panel(explore_training, None)],
        [],
    ),
]


def rows(column):
    return [
        pytest.param(rule, case, id=f"{rule}, {number}")
        for rule, *columns in TABLE
        for number, case in enumerate(columns[column])
    ]


@pytest.mark.parametrize(("rule", "make"), rows(0))
def test_every_explorer_says_what_is_wrong_where_the_picture_would_be(rule, make):
    made = make()
    with pytest.raises(ValueError, match=rule):
        _ = made.figure
    assert repr(made) == made.problem
    html = made._html().split("<script")[0]
    assert "<p>" in html
    assert "<img" not in html
    assert "<svg" not in html
    made.close()


@pytest.mark.parametrize(("rule", "measure"), rows(1))
def test_every_function_underneath_refuses_with_the_rule_and_the_value(rule, measure):
    with pytest.raises(ValueError, match=rule):
        measure()


@pytest.mark.parametrize("explore", [explore_bucketing, explore_bucket_load, explore_sparsity])
def test_lists_of_numbers_are_vectors_as_well(explore):
    assert repr(explore(VECTORS.tolist(), head=1)) == repr(explore(VECTORS, head=1))


def test_a_head_that_cannot_be_shown_is_what_the_line_of_code_says():
    assert "head=5" in explore_bucketing(VECTORS, head=5).code
    assert "head=3" in explore_bucket_load(VECTORS[0], head=3).code


def test_more_rounds_than_a_page_has_are_the_most_that_it_has():
    looked_at = explore_model(model(), "a text", place={"rounds": 9, "round": 9})
    assert repr(looked_at) == measure_microscope(model(), "a text").describe(1)
    replayed = explore_training(
        finished(), place={"round": 9, "head": 9, "layer": 9, "snapshot": 9}
    )
    assert repr(replayed) == describe_snapshot(finished().recording, 1, 0, 1, 1)


@pytest.mark.parametrize(
    "make",
    [
        panel(explore_bucketing, VECTORS[0], labels=[EVIL] * 8),
        panel(explore_sparsity, VECTORS[0], labels=[EVIL] * 8),
        panel(explore_sparsity, trace(), labels=[EVIL] * 16),
        panel(explore_model, model(max_length=64), EVIL),
        panel(explore_model, model(), [1, 2, 3], decode=lambda _: EVIL),
        panel(explore_misses, model(max_length=64), EVIL),
        panel(explore_misses, model(), [1, 2, 3], labels=[EVIL] * 3),
        panel(explore_training, finished()),
    ],
)
def test_text_that_contains_html_stays_text(make):
    made = make()
    if "recording" in dir(made.data):
        evil = replace(made.data.recording, labels=(EVIL,) * 6)
        made = explore_training(replace(made.data, recording=evil))
    page = made._html()
    assert page.count("</script>") == 1
    assert "<img src=x" not in page
    assert "<b>" not in page.replace("make('b'", "")
    assert made.figure is not None
    made.close()


def test_the_table_speaks_of_every_explorer():
    import reformer_viz

    named = {
        cell.cell_contents.__name__
        for _, panels, _ in TABLE
        for case in panels
        for cell in case.__closure__
        if callable(cell.cell_contents)
    }
    explorers = {name for name in reformer_viz.__all__ if name.startswith("explore_")}
    assert named | {"explore_training"} == explorers  # which takes what is measured already
