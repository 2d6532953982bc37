"""Pictures of what a Reformer does: measure (numbers), figures (pictures), widgets (explorers)."""

from reformer_viz.figures.bucket_load import plot_bucket_load, plotly_bucket_load
from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.figures.bugs import plot_bug, plotly_bug
from reformer_viz.figures.collisions import plot_collisions, plotly_collisions
from reformer_viz.figures.geometry import plot_geometry, plotly_geometry
from reformer_viz.figures.leak import plot_leak, plotly_leak
from reformer_viz.figures.memory import plot_memory, plotly_memory
from reformer_viz.figures.microscope import plot_microscope
from reformer_viz.figures.misses import plot_miss_cost, plot_misses, write_miss_cost
from reformer_viz.figures.misses_plotly import plotly_miss_cost, plotly_misses
from reformer_viz.figures.paper_memory import plot_attention_memory, plot_memory_of_paper
from reformer_viz.figures.quality import plot_quality, plotly_quality
from reformer_viz.figures.recall import plot_recall, plotly_recall
from reformer_viz.figures.reconstruction import plot_reconstruction, plotly_reconstruction
from reformer_viz.figures.sparsity import plot_sparsity, plot_sparsity_per_head
from reformer_viz.figures.speed import plot_speed, plotly_speed
from reformer_viz.figures.step_film import plot_step_film, plotly_step_film
from reformer_viz.figures.training import plot_training, plotly_training
from reformer_viz.figures.transfer import plot_transfer
from reformer_viz.measure.attention_memory import measure_attention_memory
from reformer_viz.measure.bucket_load import measure_bucket_load
from reformer_viz.measure.bucketing import measure_bucketing
from reformer_viz.measure.bugs import BUGS, measure_bug
from reformer_viz.measure.collisions import collision_probability, measure_collisions
from reformer_viz.measure.geometry import measure_geometry
from reformer_viz.measure.leak import measure_leak
from reformer_viz.measure.memory import measure_memory
from reformer_viz.measure.microscope import measure_microscope
from reformer_viz.measure.misses import measure_miss_cost, measure_misses
from reformer_viz.measure.quality import measure_quality, read_quality
from reformer_viz.measure.recall import measure_recall
from reformer_viz.measure.reconstruction import measure_reconstruction
from reformer_viz.measure.recording import Recorder, load_recording
from reformer_viz.measure.sparsity import measure_sparsity, measure_sparsity_per_head
from reformer_viz.measure.speed import measure_speed, read_speed
from reformer_viz.measure.step_film import measure_step_film
from reformer_viz.measure.training import measure_training
from reformer_viz.measure.transfer import measure_transfer, transfer_of_paper
from reformer_viz.widgets.bucket_load import explore_bucket_load
from reformer_viz.widgets.bucketing import explore_bucketing
from reformer_viz.widgets.bugs import explore_bugs
from reformer_viz.widgets.geometry import explore_geometry
from reformer_viz.widgets.leak import explore_leak
from reformer_viz.widgets.memory import explore_memory
from reformer_viz.widgets.microscope import explore_model
from reformer_viz.widgets.misses import explore_misses
from reformer_viz.widgets.recall import explore_recall
from reformer_viz.widgets.scenes import SceneList
from reformer_viz.widgets.sparsity import explore_sparsity
from reformer_viz.widgets.speed import explore_speed
from reformer_viz.widgets.training import explore_training, watch_training

__all__ = [
    "BUGS",
    "Recorder",
    "SceneList",
    "collision_probability",
    "explore_bucket_load",
    "explore_bucketing",
    "explore_bugs",
    "explore_geometry",
    "explore_leak",
    "explore_memory",
    "explore_misses",
    "explore_model",
    "explore_recall",
    "explore_sparsity",
    "explore_speed",
    "explore_training",
    "load_recording",
    "measure_attention_memory",
    "measure_bucket_load",
    "measure_bucketing",
    "measure_bug",
    "measure_collisions",
    "measure_geometry",
    "measure_leak",
    "measure_memory",
    "measure_microscope",
    "measure_miss_cost",
    "measure_misses",
    "measure_quality",
    "measure_recall",
    "measure_reconstruction",
    "measure_sparsity",
    "measure_sparsity_per_head",
    "measure_speed",
    "measure_step_film",
    "measure_training",
    "measure_transfer",
    "plot_attention_memory",
    "plot_bucket_load",
    "plot_bucketing",
    "plot_bug",
    "plot_collisions",
    "plot_geometry",
    "plot_leak",
    "plot_memory",
    "plot_memory_of_paper",
    "plot_microscope",
    "plot_miss_cost",
    "plot_misses",
    "plot_quality",
    "plot_recall",
    "plot_reconstruction",
    "plot_sparsity",
    "plot_sparsity_per_head",
    "plot_speed",
    "plot_step_film",
    "plot_training",
    "plot_transfer",
    "plotly_bucket_load",
    "plotly_bug",
    "plotly_collisions",
    "plotly_geometry",
    "plotly_leak",
    "plotly_memory",
    "plotly_miss_cost",
    "plotly_misses",
    "plotly_quality",
    "plotly_recall",
    "plotly_reconstruction",
    "plotly_speed",
    "plotly_step_film",
    "plotly_training",
    "read_quality",
    "read_speed",
    "transfer_of_paper",
    "watch_training",
    "write_miss_cost",
]
