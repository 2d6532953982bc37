"""Explore why neighbours share a bucket: turn the sphere, widen an angle, draw other directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from ipywidgets import Dropdown, Widget
from matplotlib.figure import Figure
from torch import Tensor

from reformer_viz.figures.geometry import plot_geometry, plotly_geometry
from reformer_viz.measure.collisions import Collisions, measure_collisions
from reformer_viz.measure.geometry import (
    Geometry,
    GeometryReading,
    measure_geometry,
    turn_pair,
)
from reformer_viz.measure.hashing import Hash
from reformer_viz.measure.sequence import VectorSequence, make_sequence, take_sequence
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import STYLE, noise_and_rotations, slider
from reformer_viz.widgets.panel import Panel

_ROUNDS, _PAIRS, _ANGLES = (1, 4), 400, tuple(range(0, 181, 15))
_OF_ROTATIONS, _OF_MADE_UP = ("n_buckets", "rotations", "new_rotations"), ("dimension", "n_points")
DEFAULT_BUCKETS, DEFAULT_NOISE, DEFAULT_SEED = 8, 0.3, 155
_START = {2: (0.9, 0.3), 3: (0.8, 0.5, 0.4)}
"""Where the marked pair begins: fixed, so that the camera can face it and stay."""


def explore_geometry(
    vectors: Tensor | np.ndarray | Sequence | None = None,
    *,
    dimension: int = 3,
    n_points: int = 120,
    n_buckets: int | None = None,
    angle: float | int = 30,
    noise: float | int | None = None,
    rotations: int = 0,
    hash: Hash | None = None,
    seed: int = DEFAULT_SEED,
    place: Mapping | None = None,
) -> Panel:
    """Show vectors among the regions of the buckets, in the plane or on a sphere.

    Two vectors at a chosen angle are marked, and how likely such two share a bucket is measured
    beside theory. Without `vectors` they are made up: eight letters, each a direction plus `noise`.
    With them, "length dimension" of two or three numbers, they are yours, and `noise` starts at 0.
    `rotations` numbers the random directions; `hash` is a function of your own in their place
    (`reformer_viz.measure.hashing.Hash`). No model and no global state is touched.
    """
    own_buckets = n_buckets

    @cache
    def sequence(dimension: int, n_points: int) -> VectorSequence:
        if vectors is None:
            return make_sequence(n_points, seed, dimension)
        return take_sequence(vectors, seed)

    def vectors_and_start(
        dimension: int, n_points: int, noise: float | int
    ) -> tuple[Tensor, Tensor | None]:
        points = sequence(dimension, n_points).noisy(head=0, noise=noise)
        return points, torch.tensor(_START[points.shape[1]]) if points.shape[1] in _START else None

    @lru_cache(maxsize=8)  # the angle moves nothing but the pair
    def around(
        dimension: int, n_points: int, noise: float | int, n_buckets: int, draw: int
    ) -> tuple[Geometry, dict]:
        points, start = vectors_and_start(dimension, n_points, noise)
        drawn = sequence(dimension, n_points).rotations(
            n_buckets=n_buckets, seed=seed, round=0, draw=draw
        )
        how = {"rotations": drawn[0, 0], "start": start}
        return measure_geometry(points, **how), how

    @lru_cache(maxsize=256)
    def collisions(d_head: int, n_buckets: int, angles: tuple) -> Collisions:
        ways = {"d_head": d_head, "n_pairs": _PAIRS, "seed": seed, "hash": hash}
        return measure_collisions([n_buckets], _ROUNDS, angles, **ways)

    def measure(
        *,
        angle: float | int,
        noise: float | int,
        dimension: int = dimension,
        n_points: int = n_points,
        n_buckets: int = DEFAULT_BUCKETS,
        rotations: int = 0,
    ) -> GeometryReading:
        if hash is None:
            geometry, how = around(dimension, n_points, noise, n_buckets, rotations)
            geometry = turn_pair(geometry, angle=angle, **how)
        else:
            points, start = vectors_and_start(dimension, n_points, noise)
            how = {"hash": hash, "n_buckets": own_buckets, "start": start}
            geometry = measure_geometry(points, angle=angle, **how)
        d_head = geometry.dimension
        return GeometryReading(
            geometry=geometry,
            at_angle=collisions(d_head, n_buckets, (angle,)),
            collisions=collisions(d_head, n_buckets, _ANGLES),
        )

    if noise is None:
        noise = 0.0 if vectors is not None else DEFAULT_NOISE
    controls = _controls(dimension, n_points, n_buckets, angle, noise, rotations)
    given = {"vectors": vectors, "seed": seed}
    if hash is not None:
        given |= {"hash": hash, "n_buckets": n_buckets}
    left_out = _OF_ROTATIONS if hash is not None else ()
    left_out += _OF_MADE_UP if vectors is not None else ()
    controls = {name: control for name, control in controls.items() if name not in left_out}
    return Panel(GeometryView(), measure, controls, place, Call(explore_geometry, given))


@dataclass(frozen=True)
class GeometryView:
    """The plane or the sphere, and the probability of sharing a bucket against the angle."""

    title = "Why neighbours share a bucket"

    def describe(self, data: GeometryReading, place: Mapping) -> str:
        """Say what this round did, then what to expect of any."""
        return data.describe()

    def plotly(self, data: GeometryReading, place: Mapping) -> Any:
        """Draw both with Plotly."""
        return plotly_geometry(data.geometry, data.collisions)

    def plot(self, data: GeometryReading, place: Mapping) -> Figure:
        """Draw both with Matplotlib."""
        return plot_geometry(data.geometry, data.collisions)


def _controls(
    dimension: int,
    n_points: int,
    n_buckets: int | None,
    angle: float | int,
    noise: float | int,
    rotations: int,
) -> dict[str, Widget]:
    spaces = [("plane", 2), ("sphere", 3)]
    if dimension not in (2, 3):  # the panel then says what is wrong with it
        spaces.append((str(dimension), dimension))
    count = DEFAULT_BUCKETS if n_buckets is None else n_buckets
    return {
        "dimension": Dropdown(description="space", options=spaces, value=dimension, style=STYLE),
        "n_points": slider("vectors", n_points, 8, 400, step=8),
        "n_buckets": slider("buckets", count, 2, 16, step=2),
        "angle": slider("angle", angle, 0, 180),
        **noise_and_rotations(noise, rotations),
    }
