"""Numbers only: `measure_*` takes what the model used and returns frozen NumPy records."""
