"""Pictures of measurements: `plot_*` with Matplotlib. No model and no arithmetic here."""
