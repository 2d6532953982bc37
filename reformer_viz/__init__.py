"""Pictures of what a Reformer does: measure (numbers), figures (pictures), widgets (explorers)."""

from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.figures.memory import plot_memory
from reformer_viz.figures.microscope import plot_microscope
from reformer_viz.figures.speed import plot_speed, plotly_speed
from reformer_viz.measure.bucketing import measure_bucketing
from reformer_viz.measure.memory import measure_memory
from reformer_viz.measure.microscope import measure_microscope
from reformer_viz.measure.speed import measure_speed, read_speed
from reformer_viz.widgets.bucketing import explore_bucketing
from reformer_viz.widgets.microscope import explore_model
from reformer_viz.widgets.speed import explore_speed

__all__ = [
    "explore_bucketing",
    "explore_model",
    "explore_speed",
    "measure_bucketing",
    "measure_memory",
    "measure_microscope",
    "measure_speed",
    "plot_bucketing",
    "plot_memory",
    "plot_microscope",
    "plot_speed",
    "plotly_speed",
    "read_speed",
]
