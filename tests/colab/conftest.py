"""Classic Notebook with what Colab has, on a folder of its own, watched for errors."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import nbformat
import pytest

from tests.browser.conftest import REPOSITORY, Watch, free_port, wait_for
from tests.browser.conftest import browser as browser  # a fixture, for the tests here as well

# Classic Notebook asks for a file of the user's own styles and scripts, which need not be there.
MISSED = "/custom/custom."
# And it says at length that a page was left while it wrote to it.
LEFT_WHILE_TOLD = re.compile(
    r"Task exception was never retrieved\nfuture: .*WebSocketClosedError\(\)>\n"
    r"(?:.*\n){3,14}?tornado\.websocket\.WebSocketClosedError\n"
)
# And, where the page and these tests both end a session, that its kernel was gone already.
ENDED_TWICE = re.compile(
    r"\[E .*\] Uncaught exception DELETE /api/sessions/.*\n(?: {4}.*\n)+?"
    r" {4}asyncio\.exceptions\.InvalidStateError: Exception is not set\.\n"
)
READY = """() => {
  const notebook = window.Jupyter?.notebook, kernel = notebook?.kernel;
  return notebook?._fully_loaded && kernel?.widget_manager && kernel.is_connected();
}"""


class ClassicWatch(Watch):
    """A page of classic Notebook, where what its console calls an error counts as one."""

    def __init__(self, browser, home: str, **options):
        super().__init__(browser, home, **options)
        self.home = home

    def _hear(self, message) -> None:
        where = message.location.get("url", "")
        if message.type == "error" and MISSED not in where:
            self.errors.append(f"{message.text} ({where})")

    def open_notebook(self, name: str) -> None:
        self.page.goto(f"{self.home}/notebooks/{name}", wait_until="domcontentloaded")
        self.page.wait_for_function(READY)

    def run_all(self) -> None:
        self.page.evaluate("() => { Jupyter.notebook.execute_all_cells(); }")
        self.page.wait_for_selector('.rx-root[data-link="on"]', state="attached")

    def wait_until_idle(self) -> None:
        self.page.wait_for_function("() => !document.querySelector('.code_cell.running')")

    def save(self) -> None:
        self.wait_until_idle()
        self.page.evaluate("() => Jupyter.notebook.save_notebook().then(() => true)")

    @property
    def failures(self) -> list[str]:
        """What cells wrote to standard error, and where they stopped."""
        return self.page.locator(".output_stderr, .output_error").all_inner_texts()


@pytest.fixture(scope="session")
def classic(tmp_path_factory, chromium):
    """The address of a classic Notebook that has nothing of the user's, and its folder."""
    folder = tmp_path_factory.mktemp("classic")
    places = {
        "JUPYTER_CONFIG_DIR": ".config",
        "JUPYTER_DATA_DIR": ".data",
        "JUPYTER_RUNTIME_DIR": ".runtime",
        "IPYTHONDIR": ".ipython",
    }
    env = os.environ | {name: str(folder / place) for name, place in places.items()}
    env |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    port = free_port()
    command = [
        sys.executable,
        *["-m", "notebook", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"],
        *["--NotebookApp.port_retries=0", "--NotebookApp.token=", f"--notebook-dir={folder}"],
        "--NotebookApp.disable_check_xsrf=True",
    ]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    wait_for(address, server, folder / "server.log")
    yield address, folder
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(20)


@pytest.fixture(scope="session")
def notebook(browser, classic):
    """Write a notebook of some cells, and return a watched page and the notebook's file."""
    address, folder = classic

    def open_notebook(name: str, *sources: str):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = folder / f"{name}.ipynb"
        written = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(written, path)
        watched = ClassicWatch(browser, address)
        watched.open_notebook(path.name)
        return watched, path

    return open_notebook


@pytest.fixture(scope="session")
def shut_down(classic):
    """End the kernels of all notebooks."""
    address, _ = classic

    def end_all() -> None:
        with urllib.request.urlopen(f"{address}/api/sessions") as answer:
            sessions = json.load(answer)
        for session in sessions:
            where = f"{address}/api/sessions/{session['id']}"
            urllib.request.urlopen(urllib.request.Request(where, method="DELETE")).close()

    return end_all


@pytest.fixture(scope="session")
def server_log(classic):
    """Return what the server and its kernels have written so far, but for a page that was left."""
    _, folder = classic

    def read() -> str:
        return ENDED_TWICE.sub("", LEFT_WHILE_TOLD.sub("", (folder / "server.log").read_text()))

    return read
