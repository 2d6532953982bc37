"""Pictures of what a Reformer does: measure (numbers), figures (pictures), widgets (explorers)."""

from reformer_viz.figures.bucket_load import plot_bucket_load, plotly_bucket_load
from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.figures.collisions import plot_collisions, plotly_collisions
from reformer_viz.figures.geometry import plot_geometry, plotly_geometry
from reformer_viz.figures.memory import plot_memory
from reformer_viz.figures.speed import plot_speed, plotly_speed
from reformer_viz.measure.bucket_load import measure_bucket_load
from reformer_viz.measure.bucketing import measure_bucketing
from reformer_viz.measure.collisions import collision_probability, measure_collisions
from reformer_viz.measure.geometry import measure_geometry
from reformer_viz.measure.memory import measure_memory
from reformer_viz.measure.speed import measure_speed, read_speed
from reformer_viz.widgets.bucket_load import explore_bucket_load
from reformer_viz.widgets.bucketing import explore_bucketing
from reformer_viz.widgets.geometry import explore_geometry
from reformer_viz.widgets.speed import explore_speed

__all__ = [
    "collision_probability",
    "explore_bucket_load",
    "explore_bucketing",
    "explore_geometry",
    "explore_speed",
    "measure_bucket_load",
    "measure_bucketing",
    "measure_collisions",
    "measure_geometry",
    "measure_memory",
    "measure_speed",
    "plot_bucket_load",
    "plot_bucketing",
    "plot_collisions",
    "plot_geometry",
    "plot_memory",
    "plot_speed",
    "plotly_bucket_load",
    "plotly_collisions",
    "plotly_geometry",
    "plotly_speed",
    "read_speed",
]
