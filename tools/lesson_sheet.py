"""Run every lesson in JupyterLab and photograph each explorer in its place: `make lesson-sheet`.

`python -m tools.lesson_sheet FOLDER` also keeps every picture there as a file of its own.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import FLAGS, Watch, serving
from tools.contact_sheet import DOCS, arrange, find_browser, save_sheet

NOTEBOOKS = DOCS.parent / "notebooks"
WINDOW = {"width": 1060, "height": 2200}
PATIENCE_S = 600
TRACKER = ".settings/@jupyterlab/notebook-extension"
WAITING = """() => [...document.querySelectorAll('.jp-InputPrompt')]
  .filter(prompt => prompt.textContent.includes('*')).length"""
LIVE = """root => {
  const chart = root.querySelector('.rx-chart');
  return root.querySelector('[role=status]')?.innerText
    && (!chart || chart.querySelector('.js-plotly-plot .main-svg'));
}"""
# From the cell above, which asks for a prediction, to the end of the explorer's own.
PLACE = """root => {
  const cell = root.closest('.jp-Cell');
  const above = cell.previousElementSibling ?? cell;
  above.scrollIntoView({block: 'start'});
  const [top, end] = [above, cell].map(each => each.getBoundingClientRect());
  return {x: end.x, y: top.top, width: end.width, height: end.bottom - top.top};
}"""


def photograph_all(folder: Path) -> None:
    """Photograph the explorers of every lesson into the folder, and a sheet of them into docs/."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        home = Path(name)
        for lesson in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
            shutil.copy(lesson, home)
        (home / TRACKER).mkdir(parents=True)
        shown = json.dumps({"windowingMode": "none"})  # else cells out of sight are not there
        (home / TRACKER / "tracker.jupyterlab-settings").write_text(shown)
        browser = driver.chromium.launch(executable_path=find_browser(), args=FLAGS)
        with serving(home) as lab:
            pictures = {}
            for lesson in sorted(home.glob("[0-9]*.ipynb")):
                watched = Watch(browser, lab, viewport=WINDOW)
                pictures |= dict(photograph(watched, lab, lesson.name, folder))
                if watched.errors:
                    sys.exit(f"{lesson.name}: {watched.errors}")
                watched.save_and_leave(lab)
                watched.context.close()
        sheet = DOCS / "contact_sheet_lessons.png"
        save_sheet(sheet, arrange(browser, pictures, folder / "lessons.html"))
        print(sheet.relative_to(DOCS.parent), f"{sheet.stat().st_size:,} bytes")
        browser.close()


def photograph(watched: Watch, lab: str, name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Run a lesson, and yield a picture of each of its explorers once it is alive."""
    page, began = watched.page, time.monotonic()
    watched.open_notebook(lab, name)
    watched.use_theme("JupyterLab Light")
    watched.command("notebook:run-all-cells")
    page.wait_for_timeout(1500)  # until its cells have been queued
    page.wait_for_function(f"() => ({WAITING})() === 0", timeout=1000 * PATIENCE_S, polling=500)
    roots = page.locator(".rx-root").all()
    print(f"{name}: {len(roots)} explorers after {time.monotonic() - began:.0f} s", flush=True)
    for number, root in enumerate(roots):
        root.scroll_into_view_if_needed()
        page.wait_for_function(LIVE, arg=root.element_handle())
        page.wait_for_timeout(700)  # until Plotly has drawn its text
        place = root.evaluate(PLACE)
        place["height"] = min(place["height"], WINDOW["height"] - place["y"])
        path = folder / f"{Path(name).stem}_{number}.png"
        page.screenshot(path=path, clip=place)
        yield f"{Path(name).stem}, explorer {number}", path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        kept = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        kept.mkdir(parents=True, exist_ok=True)
        photograph_all(kept)
