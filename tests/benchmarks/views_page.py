"""How long a key takes on the screen: in an exported page, and in JupyterLab with its kernel.

The page itself takes the time, from the event of the key to the frame after the one in which the
picture changed.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import nbformat

from tests.benchmarks.explorers import EXPLORERS
from tests.browser.conftest import FLAGS, Watch, serving

MOVES, PATIENCE_MS, QUIET_MS = 7, 30_000, 500
_END_MS = 5000  # a picture that has not moved by then is at an end of what the key can reach
_LONG_MS = 240_000  # Torch and Plotly are imported, and Plotly's five megabytes sent
_CELL = """\
from pathlib import Path
from tests.benchmarks.explorers import EXPLORERS
key, length = Path("which.txt").read_text().split()
panel = EXPLORERS[key].make(int(length))
panel"""

# Waits for the next key. Its picture has moved when anything but the controls, the words for screen
# readers, and the focus has changed in the explorer; `last` is when a chart has come to rest.
WATCH = """quiet => {
  const root = document.querySelector('.rx-root'), moved = { done: false };
  const chart = root.querySelector('.js-plotly-plot');
  let timer;
  const changed = () => requestAnimationFrame(() => requestAnimationFrame(() => {
    moved.last = performance.now() - moved.start;
    moved.first ??= moved.last;
    clearTimeout(timer);
    timer = setTimeout(() => { moved.done = true; observer.disconnect(); }, quiet);
  }));
  const aside = node =>
    (node.closest ? node : node.parentElement)?.closest('.rx-controls, [role=status]');
  const observer = new MutationObserver(records => {
    if (moved.start !== undefined && records.some(({ target }) => !aside(target))) changed();
  });
  observer.observe(root, { subtree: true, childList: true, attributes: true, characterData: true });
  const isTimed = () => moved.start !== undefined && !moved.done;
  chart?.on?.('plotly_afterplot', () => { if (isTimed()) changed(); });
  const begin = event => { moved.start = event.timeStamp; };
  document.addEventListener('keydown', begin, { capture: true, once: true });
  window.__moved = moved;
}"""

# Everything in a place that a key moves: what it is called, and the keys that move it, in turn. A
# picture is moved along, and up and down: at an end that would paint the same once more.
CONTROLS = """place => {
  const nameOf = node => node.getAttribute('aria-label')
    ?? node.closest('.widget-inline-hbox')?.querySelector('.widget-label')?.textContent
    ?? [...node.closest('label')?.childNodes ?? []].map(part => part.nodeValue ?? '').join('');
  const keysOf = node => node.tagName === 'SELECT' ? ['ArrowDown']
    : node.type === 'number' ? ['ArrowUp'] : node.type === 'checkbox' ? ['Space'] : ['ArrowRight'];
  const nodes = [...document.querySelectorAll(place)].filter(node => node.offsetParent);
  nodes.forEach((node, k) => node.setAttribute('data-timed', k));
  return nodes.flatMap((node, k) => {
    const name = nameOf(node).trim(), one = { k, name, keys: keysOf(node) };
    if (node.tagName !== 'CANVAS') return [one];
    return [one, { k, name: `${name}, up and down`, keys: ['ArrowUp', 'ArrowDown'] }];
  });
}"""
_BACK = {"ArrowRight": "ArrowLeft", "ArrowDown": "ArrowUp", "ArrowUp": "ArrowDown"}
IN_PAGE = ".rx-live :is(canvas[tabindex], input, select)"
IN_CONTROLS = ".rx-controls :is([role=slider], input[type=number], select)"


def press(watched: Watch, key: str, patience: int = PATIENCE_MS) -> dict | None:
    """Press a key and return when the picture had moved, or None where nothing moves."""
    from playwright.sync_api import TimeoutError as TooLong

    watched.page.evaluate(WATCH, QUIET_MS)
    watched.page.keyboard.press(key)
    try:
        watched.page.wait_for_function("() => window.__moved.done", timeout=patience)
    except TooLong:
        return None
    return watched.page.evaluate("() => window.__moved")


def times_of(watched: Watch, control: dict, moves: int) -> Iterator[dict]:
    """Press a control's keys again and again, and where one leads no further, the opposite one."""
    keys = control["keys"]
    for move in range(moves):
        watched.page.locator(f'[data-timed="{control["k"]}"]').focus()
        moved = press(watched, keys[move % len(keys)], _END_MS)
        if moved is None and keys[0] in _BACK:
            keys = [_BACK[key] for key in keys]
            moved = press(watched, keys[0])
        if moved is None:
            return
        yield moved


def keys_in(watched: Watch, place: str, is_chart: bool, again=lambda: None) -> Iterator[dict]:
    """Time every control in a part of the page; the first time warms up.

    `again` brings the page to where it was before, if that is quickly done.
    """
    for control in watched.page.evaluate(CONTROLS, place):
        again()
        watched.page.evaluate(CONTROLS, place)
        found = list(times_of(watched, control, 1 + MOVES))[1:]
        seconds = [moved["last" if is_chart else "first"] / 1000 for moved in found]
        if seconds:
            yield {"control": control["name"], "seconds": seconds}


@contextlib.contextmanager
def chromium(path: str) -> Iterator:
    """Start a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def exported(browser, key: str, length: int, folder: Path) -> Iterator[dict]:
    """Time the keys of an explorer's exported page, if a script draws it."""
    panel = EXPLORERS[key].make(length)
    if panel._chart is not None:
        return
    path = panel.save_html(folder / f"{key}.html")
    watched = Watch(browser, "file:", offline=True)

    def fresh() -> None:
        watched.page.goto(path.as_uri())
        watched.wait_for_status(" ")

    fresh()
    yield from keys_in(watched, IN_PAGE, False, fresh)
    watched.context.close()


def live(browser, keys: list[str], length: int, folder: Path) -> Iterator[tuple[str, dict]]:
    """Time the kernel's controls in JupyterLab, one explorer after the other in one notebook."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(_CELL)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "views.ipynb")
    with serving(folder) as lab:
        watched = Watch(browser, lab)
        watched.open_notebook(lab, "views.ipynb")
        for key in keys:
            (folder / "which.txt").write_text(f"{key} {length}")
            is_chart = show(watched)
            for found in keys_in(watched, IN_CONTROLS, is_chart):
                yield key, found
        watched.context.close()


def show(watched: Watch) -> bool:
    """Run the cell again and wait for its explorer; return whether it is a chart."""
    watched.page.evaluate("() => document.querySelector('.rx-root')?.remove()")
    watched.command("notebook:run-all-cells")
    watched.page.wait_for_selector('.rx-root[data-link="on"]', timeout=_LONG_MS)
    is_chart = watched.page.locator(".rx-root .rx-chart").count() > 0
    if is_chart:
        plot = ".rx-root .js-plotly-plot .main-svg"
        watched.page.wait_for_selector(plot, state="attached", timeout=_LONG_MS)
    watched.page.wait_for_timeout(1500)
    return is_chart
