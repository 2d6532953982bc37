"""Scene lists for the projector, ready to be shown: each tells one thing in a few pictures."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from reformer_viz import (
    SceneList,
    explore_bucket_load,
    explore_bucketing,
    explore_geometry,
    explore_leak,
    explore_sparsity,
)
from reformer_viz.lessons.example import WORDS, sixteen_tokens


def _hashing() -> SceneList:
    return SceneList(
        explore_geometry(n_buckets=8, angle=30),
        [
            ({}, "Eight buckets: eight regions of the sphere"),
            ({"angle": 90}, "At a right angle two vectors still meet by chance"),
            ({"angle": 180}, "Opposite vectors never share a bucket"),
            ({"n_buckets": 16}, "More buckets: neighbours are divided more often"),
            ({"n_buckets": 2}, "Two buckets: one plane"),
        ],
    )


def _steps() -> SceneList:
    words = explore_bucketing(
        sixteen_tokens()[0, 0], labels=WORDS, n_buckets=4, n_hashes=2, chunk_length=4
    )
    return SceneList(
        words,
        [
            ({"step": 0}, "Sixteen words"),
            ({"step": 1}, "Hash: every word gets a bucket"),
            ({"step": 2}, "Sort: bucket-mates stand together"),
            ({"step": 3}, "Cut: chunks of four, wherever the borders fall"),
            ({"step": 4}, "Look: one's own chunk and the one before, bucket-mates only"),
            ({"step": 4, "token": 15}, "The last word, and whom it sees"),
            ({"step": 4, "token": 15, "round": 1}, "Another round shows it others"),
        ],
    )


def _rounds() -> SceneList:
    return SceneList(
        explore_bucketing(n_tokens=64, n_buckets=8, n_hashes=4, chunk_length=8),
        [
            ({"rounds": 1}, "Eight buckets, one round"),
            ({"rounds": 4}, "More rounds see more"),
            ({"n_buckets": 2}, "Two buckets: longer than the window, so pairs are lost"),
            ({"n_buckets": 2, "chunk_length": 32}, "Longer chunks lose fewer, and cost more"),
        ],
    )


def _window() -> SceneList:
    return SceneList(
        explore_sparsity(n_tokens=64, n_buckets=4, n_hashes=4, chunk_length=8),
        [
            ({"rounds": 1}, "Chunks: the window begins at a border"),
            ({"rounds": 1, "window": "sliding"}, "Sliding: it begins a chunk before the query"),
            ({"rounds": 4}, "Four rounds: the colour says which saw a pair first"),
        ],
    )


def _leak() -> SceneList:
    return SceneList(
        explore_leak(n_tokens=256),
        [
            ({}, "The later half is replaced: pairs of the earlier half come and go"),
            ({"cut": 255}, "One other token, the last one, is enough"),
            ({"cut": 128, "chunk_length": 32}, "Longer chunks cut off fewer pairs"),
        ],
    )


def _load() -> SceneList:
    return SceneList(
        explore_bucket_load(n_tokens=1024, n_buckets=16, n_hashes=2, chunk_length=16),
        [
            ({}, "Buckets longer than the window lose pairs"),
            ({"n_hashes": 8}, "More rounds lose the same share"),
            ({"chunk_length": 32}, "Longer chunks lose less"),
        ],
    )


SCENES: Mapping[str, Callable[[], SceneList]] = MappingProxyType(
    {
        "hashing": _hashing,
        "steps": _steps,
        "rounds": _rounds,
        "window": _window,
        "leak": _leak,
        "load": _load,
    }
)
"""What can be shown, by name, in the order in which one would tell it."""


def scenes(name: str) -> SceneList:
    """Make one of the scene lists: as a cell's last line it plays by the arrow keys.

    Raises ValueError for a name that is not among `SCENES`.
    """
    if name not in SCENES:
        raise ValueError(f"name must be one of {', '.join(SCENES)}, got {name!r}")
    return SCENES[name]()
