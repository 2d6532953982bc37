"""What every test relies on: seeds, threads, and an honest reason for what a machine cannot run."""

import os
import shutil

if "PYTEST_XDIST_WORKER" in os.environ:  # several at once: one thread each, set before torch starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_IS_REQUIRED = bool(os.environ.get("REFORMER_REQUIRE_BROWSER"))

# The same examples in every run and on every machine, however slow it is.
hypothesis.settings.register_profile(
    "reformer", derandomize=True, deadline=None, database=None, max_examples=50
)
hypothesis.settings.load_profile("reformer")


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from the same global generator, whichever tests ran before."""
    torch.manual_seed(0)


def find_chromium() -> str | None:
    """Return the path of a Chromium that is installed, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser that tests marked `browser` drive."""
    path = find_chromium()
    if path is None:
        pytest.skip(f"needs a browser, and none of {', '.join(BROWSERS)} is installed")
    return path


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs CUDA, and torch sees no such device here")
    if item.get_closest_marker("browser") and find_chromium() is None:
        pytest.skip(f"needs a browser, and none of {', '.join(BROWSERS)} is installed")


def _fail_if_required(report):
    """Turn a skip into a failure that keeps the skip's reason."""
    if BROWSER_IS_REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, although REFORMER_REQUIRE_BROWSER is set: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return _fail_if_required(report) if item.get_closest_marker("browser") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Count a whole file that skips itself, for want of Playwright say, like its tests."""
    report = yield
    return _fail_if_required(report) if "browser" in collector.path.parts else report
