"""A chart in a real JupyterLab: live and moved by keys, saved, without a kernel, exported."""

import nbformat
import pytest

from reformer_viz.measure.speed import SpeedMeasurement, read_speed

pytestmark = pytest.mark.browser

NAME = "chart.ipynb"
CELL = "from reformer_viz import explore_speed\npanel = explore_speed({path!r})\npanel"
DRAWN = """() => document.querySelector('.rx-root .js-plotly-plot').data.map(
  ({ name, x, y, xaxis }) => ({ name, x: [...x], y: [...y], xaxis: xaxis ?? 'x' }))"""
LIVE = ".rx-root .rx-chart .js-plotly-plot .main-svg"
SERIOUS = ("serious", "critical")
RESULTS = "results.json"


@pytest.fixture(scope="module")
def live(watch, lab, folder, results):
    """The notebook, running, with its chart alive."""
    (folder / RESULTS).write_bytes(results.read_bytes())
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(CELL.format(path=RESULTS))]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / NAME)
    watched = watch()
    watched.open_notebook(lab, NAME)
    watched.command("notebook:run-all-cells")
    watched.page.wait_for_selector(LIVE, state="attached")
    yield watched
    watched.context.close()


@pytest.fixture(scope="module")
def results():
    from pathlib import Path

    return Path(__file__).parents[1] / "benchmarks" / "results" / "cpu.json"


@pytest.fixture(scope="module")
def measurement(results) -> SpeedMeasurement:
    return read_speed(results)
