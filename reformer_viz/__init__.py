"""Pictures of what a Reformer does: measure (numbers), figures (pictures), widgets (explorers)."""

from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.figures.memory import plot_memory
from reformer_viz.figures.speed import plot_speed, plotly_speed
from reformer_viz.figures.training import plot_training, plotly_training
from reformer_viz.measure.bucketing import measure_bucketing
from reformer_viz.measure.memory import measure_memory
from reformer_viz.measure.recording import Recorder, load_recording
from reformer_viz.measure.speed import measure_speed, read_speed
from reformer_viz.measure.training import measure_training
from reformer_viz.widgets.bucketing import explore_bucketing
from reformer_viz.widgets.speed import explore_speed
from reformer_viz.widgets.training import explore_training, watch_training

__all__ = [
    "Recorder",
    "explore_bucketing",
    "explore_speed",
    "explore_training",
    "load_recording",
    "measure_bucketing",
    "measure_memory",
    "measure_speed",
    "measure_training",
    "plot_bucketing",
    "plot_memory",
    "plot_speed",
    "plot_training",
    "plotly_speed",
    "plotly_training",
    "read_speed",
    "watch_training",
]
