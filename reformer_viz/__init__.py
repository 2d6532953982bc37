"""Pictures of what a Reformer does: measure (numbers), figures (pictures), widgets (explorers)."""

from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.figures.memory import plot_memory
from reformer_viz.figures.misses import plot_miss_cost, plot_misses, write_miss_cost
from reformer_viz.figures.recall import plot_recall, plotly_recall
from reformer_viz.figures.speed import plot_speed, plotly_speed
from reformer_viz.measure.bucketing import measure_bucketing
from reformer_viz.measure.memory import measure_memory
from reformer_viz.measure.misses import measure_miss_cost, measure_misses
from reformer_viz.measure.recall import measure_recall
from reformer_viz.measure.speed import measure_speed, read_speed
from reformer_viz.widgets.bucketing import explore_bucketing
from reformer_viz.widgets.recall import explore_recall
from reformer_viz.widgets.speed import explore_speed

__all__ = [
    "explore_bucketing",
    "explore_recall",
    "explore_speed",
    "measure_bucketing",
    "measure_memory",
    "measure_miss_cost",
    "measure_misses",
    "measure_recall",
    "measure_speed",
    "plot_bucketing",
    "plot_memory",
    "plot_miss_cost",
    "plot_misses",
    "plot_recall",
    "plot_speed",
    "plotly_recall",
    "plotly_speed",
    "read_speed",
    "write_miss_cost",
]
