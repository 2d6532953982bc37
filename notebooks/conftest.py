"""Run the lessons as their stored outputs were made: no progress bars, no GPU, no chatter.

Kernels inherit this environment, so that `pytest --nbval notebooks` is the whole command.
"""

import os

# On a new machine this builds the font cache, and tells whoever is first so on standard error.
import matplotlib.font_manager  # noqa: F401

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
if "PYTEST_XDIST_WORKER" in os.environ:  # several kernels at once: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
