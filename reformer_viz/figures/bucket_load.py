"""Draw how evenly buckets fill, which are the longest, and the pairs that they lose."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reformer_viz.measure.bucket_load import BucketLoad
from reformer_viz.style import INK, MUTED, PALETTE, RC, SHADE, dress, new_figure

_SEEN, _LOST = PALETTE[0], PALETTE[5]
_MOST_BARS = 40
_SMALL = RC["font.size"] - 1


def plot_bucket_load(load: BucketLoad, n_longest: int = 12) -> Figure:
    """Draw a histogram of the buckets' sizes, the longest buckets, and the pairs that each loses.

    A pair is lost when the two tokens of one bucket stand too far apart for the window. Left of the
    dotted line no bucket loses any.
    """
    if n_longest < 1:
        raise ValueError(f"n_longest must be at least 1, got {n_longest}")
    figure = new_figure(10.2, 3.9)
    sizes, longest, lost = figure.subplots(1, 3, width_ratios=[1.0, 1.15, 1.0])
    _plot_sizes(sizes, load)
    _plot_longest(longest, load, n_longest)
    _plot_lost(lost, load)
    for axes in (sizes, longest, lost):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return figure


def _plot_sizes(axes: Axes, load: BucketLoad) -> None:
    """Draw how many buckets have how many tokens."""
    largest = int(load.sizes.max())
    width = -(-(largest + 1) // _MOST_BARS)
    edges = np.arange(0, largest + width + 1, width) - 0.5
    axes.hist(load.sizes.ravel(), edges, color=_SEEN, edgecolor="white", linewidth=0.5)
    axes.axvline(load.even, color=INK, linewidth=1.2, linestyle="--", label="shared evenly")
    _mark_safe(axes, load)
    axes.legend(frameon=False, fontsize=_SMALL, labelcolor=INK, loc="upper right")
    dress(axes, "How many tokens a bucket holds", "tokens in a bucket", "buckets")


def _plot_longest(axes: Axes, load: BucketLoad, n_longest: int) -> None:
    """Draw the longest buckets' pairs, seen and lost."""
    found = load.longest(n_longest)
    pairs, lost, sizes = (
        of[*zip(*found, strict=True)] for of in (load.pairs, load.lost, load.sizes)
    )
    rows = np.arange(len(found))
    axes.barh(rows, pairs - lost, color=_SEEN, label="seen")
    axes.barh(rows, lost, left=pairs - lost, color=_LOST, label="lost to the window")
    names = [
        f"{load.name(*place)}: {size:,} tokens" for place, size in zip(found, sizes, strict=True)
    ]
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=_SMALL, labelcolor=INK, loc="lower right")
    dress(axes, "The longest buckets", "pairs in one bucket")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.get_major_locator().set_params(nbins=4)


def _plot_lost(axes: Axes, load: BucketLoad) -> None:
    """Draw for every bucket the share of its pairs that is lost, against its size."""
    some = load.pairs > 0
    shares = 100 * load.lost[some] / load.pairs[some]
    axes.scatter(load.sizes[some], shares, s=16, color=_LOST, alpha=0.6, linewidths=0)
    _mark_safe(axes, load)
    axes.grid(axis="y", color=SHADE, linewidth=0.8)
    axes.set_ylim(-2, 102)
    axes.set_xlim(left=0)
    title = f"Of pairs in one bucket {load.lost.sum() / max(1, load.pairs.sum()):.0%} are lost"
    dress(axes, title, "tokens in a bucket", "of its pairs lost, %")


def _mark_safe(axes: Axes, load: BucketLoad) -> None:
    """Mark the longest bucket that loses nothing, if the picture reaches there."""
    if load.sizes.max() >= load.safe:
        label = f"up to {load.safe:,}: none lost"
        axes.axvline(load.safe, color=MUTED, linewidth=1.2, linestyle=":", label=label)
