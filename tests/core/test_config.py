"""ReformerConfig: its defaults, what it works out, and what it refuses."""

import dataclasses

import pytest

from reformer_core.config import ReformerConfig

DEFAULTS = {
    "d_model": 256,
    "n_layers": 2,
    "n_heads": 4,
    "d_head": None,
    "d_ff": None,
    "activation": "gelu",
    "attention": ("lsh",),
    "n_hashes": 4,
    "n_buckets": None,
    "chunk_length": 64,
    "chunks_before": 1,
    "chunks_after": None,
    "local_chunk_length": None,
    "window": "chunks",
    "within_bucket": True,
    "count_repeats": False,
    "causal": True,
    "max_length": 1024,
    "axial_shape": None,
    "axial_dims": None,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "ff_chunks": 1,
    "loss_chunks": 1,
    "reversible": True,
    "kept_layers": 0,
    "hash_seed": 0,
}


def test_only_the_vocabulary_must_be_said_and_the_rest_has_these_defaults():
    config = ReformerConfig(vocab_size=10)
    assert dataclasses.asdict(config) == {"vocab_size": 10} | DEFAULTS
    with pytest.raises(TypeError, match="vocab_size"):
        ReformerConfig()


def test_a_config_is_keyword_only_frozen_and_hashable():
    with pytest.raises(TypeError, match="positional"):
        ReformerConfig(10)
    config = ReformerConfig(vocab_size=10)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.d_model = 3
    assert hash(config) == hash(ReformerConfig(vocab_size=10))
    assert config == ReformerConfig(vocab_size=10)


def test_what_is_none_stays_none_and_is_worked_out_elsewhere():
    config = ReformerConfig(vocab_size=10, d_model=64, n_heads=8, max_length=256, chunk_length=16)
    assert config.d_head is None
    assert config.n_buckets is None
    assert config.resolved_d_head() == 8
    assert config.resolved_n_buckets() == 32
    said = dataclasses.replace(config, d_head=5, n_buckets=(4, 6))
    assert said.resolved_d_head() == 5
    assert said.resolved_n_buckets() == (4, 6)


def test_the_number_of_buckets_depends_on_the_longest_length_alone():
    sizes = [(1, 2), (64, 2), (65, 4), (1000, 32), (4096, 128)]
    for max_length, n_buckets in sizes:
        config = ReformerConfig(vocab_size=10, max_length=max_length)
        assert config.resolved_n_buckets() == n_buckets
    factors = ReformerConfig(vocab_size=10, max_length=16_384).resolved_n_buckets()
    assert factors[0] * factors[1] == 512


def test_the_attention_pattern_repeats_over_the_layers():
    config = ReformerConfig(vocab_size=10, n_layers=5, attention=("local", "lsh"))
    kinds = [config.attention_of(layer) for layer in range(5)]
    assert kinds == ["local", "lsh", "local", "lsh", "local"]


@pytest.mark.parametrize(
    "name",
    [
        "vocab_size",
        "d_model",
        "n_layers",
        "n_heads",
        "d_head",
        "d_ff",
        "n_hashes",
        "chunk_length",
        "local_chunk_length",
        "max_length",
        "ff_chunks",
        "loss_chunks",
    ],
)
@pytest.mark.parametrize("number", [0, -4])
def test_a_size_below_one_is_refused_by_name(name, number):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {number}"):
        ReformerConfig(**{"vocab_size": 10, name: number})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kept_layers": -1}, "kept_layers must be 0 to n_layers = 2, got -1"),
        ({"kept_layers": 3}, "kept_layers must be 0 to n_layers = 2, got 3"),
        ({"d_model": 30}, "d_model must be a multiple of n_heads, got 30 and 4: .*d_head"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        ({"attention_dropout": 1.5}, r"attention_dropout must be in \[0, 1\), got 1.5"),
        ({"dropout": float("nan")}, r"dropout must be in \[0, 1\), got nan"),
        ({"activation": "tanh"}, "activation must be one of .*got 'tanh'"),
        ({"attention": ()}, r"attention must be a tuple .*got \(\)"),
        ({"n_buckets": 7}, "n_buckets must be even and positive, got 7"),
        ({"n_buckets": (8, 3)}, "n_buckets must be even and positive, got 3"),
        ({"n_buckets": ()}, "n_buckets must have at least one factor"),
        ({"chunks_before": -1}, "chunks_before must not be negative, got -1"),
        ({"chunks_after": 1}, "chunks_after must be 0 when causal, got 1"),
        ({"window": "sliding", "chunks_before": 0}, "sliding window of no slots"),
        (
            {"window": "sliding", "chunks_before": 0, "chunks_after": 0, "causal": False},
            "sliding window of no slots",
        ),
        (
            {"axial_shape": (16, 16), "axial_dims": (128, 128)},
            r"axial_shape must multiply to max_length = 1024, got \(16, 16\) = 256",
        ),
        (
            {"axial_shape": (32, 32), "axial_dims": (128, 64)},
            r"axial_dims must add up to d_model = 256, got \(128, 64\) = 192",
        ),
        ({"axial_shape": (32, 32)}, "axial_shape and axial_dims .*say both or neither"),
        ({"axial_dims": (128, 128)}, "axial_shape and axial_dims .*say both or neither"),
        (
            {"axial_shape": (32, 32), "axial_dims": (256,)},
            "axial_shape and axial_dims need one entry per axis",
        ),
        ({"axial_shape": (-32, -32), "axial_dims": (128, 128)}, "axial_shape .*at least 1"),
        ({"axial_shape": (32, 32), "axial_dims": (0, 256)}, "axial_dims .*at least 1"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_with_rule_value_and_way_out(fields, message):
    with pytest.raises(ValueError, match=message):
        ReformerConfig(**{"vocab_size": 10} | fields)


def test_combinations_at_the_edge_of_the_rules_are_accepted():
    ReformerConfig(vocab_size=1, d_model=1, n_heads=1, n_layers=1, max_length=1, chunk_length=1)
    ReformerConfig(vocab_size=10, d_model=30, d_head=7)
    ReformerConfig(vocab_size=10, chunks_before=0)
    ReformerConfig(vocab_size=10, causal=False, chunks_after=2)
    ReformerConfig(vocab_size=10, axial_shape=(4, 16, 16), axial_dims=(64, 64, 128))


def test_a_bidirectional_sliding_window_that_looks_only_ahead_is_a_window():
    # chunks_after=None means 1 when not causal, so this window is not empty.
    ReformerConfig(vocab_size=10, causal=False, window="sliding", chunks_before=0)
