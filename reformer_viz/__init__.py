"""Pictures of what a Reformer does: measure (numbers), figures (pictures), widgets (explorers)."""

from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.figures.memory import plot_memory
from reformer_viz.figures.speed import plot_speed, plotly_speed
from reformer_viz.measure.bucketing import measure_bucketing
from reformer_viz.measure.memory import measure_memory
from reformer_viz.measure.speed import measure_speed, read_speed
from reformer_viz.widgets.bucketing import explore_bucketing
from reformer_viz.widgets.scenes import SceneList
from reformer_viz.widgets.speed import explore_speed

__all__ = [
    "SceneList",
    "explore_bucketing",
    "explore_speed",
    "measure_bucketing",
    "measure_memory",
    "measure_speed",
    "plot_bucketing",
    "plot_memory",
    "plot_speed",
    "plotly_speed",
    "read_speed",
]
