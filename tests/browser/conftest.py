"""JupyterLab on a folder of its own, in a browser without a window, watched for errors."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install it")

REPOSITORY = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
THEMES = ("JupyterLab Dark", "JupyterLab Light")  # in this order, as the last one stays
PATIENCE = 120_000  # ms: a test machine may be slow and shared

# JupyterLab's own widget manager asks a notebook's kernel for a thread of its own. A kernel that is
# shut down before it has answered leaves this in the page, and nothing of ours waits for it.
CANCELED = "Canceled future for create_subshell_request message before replies were done"
# A page that is left while its websocket is being opened leaves this in the server's log: a race in
# jupyter_server, which asks the connection that it has just put away for its protocol.
LEFT_WHILE_OPENING = re.compile(
    r"Traceback \(most recent call last\):\n(?: {5,}.*\n)*"
    r" {4}AttributeError: 'NoneType' object has no attribute 'kernel_ws_protocol'\n"
)
# Whether nothing that the page asked of the kernel is still open, at ten looks one after another.
AT_REST = """() => {
  const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
  const rests = kernel.status === 'idle' && kernel._futures.size === 0;
  window.restedFor = rests ? (window.restedFor ?? 0) + 1 : 0;
  return window.restedFor === 10;
}"""

FIRST_CELL = "from reformer_viz import explore_bucketing\npanel = explore_bucketing()\npanel"

# Ends when the page has answered while this cell was running, and says what the kernel then knows.
BUSY_CELL = """\
import time
until = time.time() + 30
while time.time() < until and (panel.state["noise"] == 0.4 or panel.place["token"] is None):
    time.sleep(0.05)
print(f"noise {panel.state['noise']:.2f} while running: {panel!r}")"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with one notebook that has not run."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source) for source in (FIRST_CELL, BUSY_CELL)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "live.ipynb")
    return folder


@pytest.fixture(scope="session")
def lab(folder, chromium):
    """The address of a JupyterLab that serves the folder."""
    with serving(folder) as address:
        yield address


@contextmanager
def serving(folder):
    """Start a JupyterLab that serves a folder and nothing of the user's."""
    settings = folder / ".settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    places = {
        "JUPYTERLAB_SETTINGS_DIR": ".settings",
        "JUPYTERLAB_WORKSPACES_DIR": ".workspaces",
        "JUPYTER_CONFIG_DIR": ".config",
        "JUPYTER_DATA_DIR": ".data",
        "JUPYTER_RUNTIME_DIR": ".runtime",
        "IPYTHONDIR": ".ipython",
    }
    env = os.environ | {name: str(folder / place) for name, place in places.items()}
    env |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    port = free_port()
    command = [
        sys.executable,
        *["-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"],
        *[
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            f"--ServerApp.root_dir={folder}",
        ],
        *["--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True"],
    ]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    wait_for(address, server, folder / "lab.log")
    yield address
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(20)
    assert tracebacks(folder) == []  # of a kernel, in any test


def tracebacks(folder: Path) -> list[str]:
    """Return every traceback in the log of a JupyterLab, but those of a page that was left."""
    log = LEFT_WHILE_OPENING.sub("", (folder / "lab.log").read_text())
    return re.findall(r"Traceback.*(?:\n .*)*(?:\n.*)?", log)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def browser(chromium):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Watch:
    """A page, and what went wrong in it.

    That is `errors`, `complaints` in its console, and requests that are `foreign`: to anywhere but
    its own server.
    """

    def __init__(self, browser, home: str, **options):
        options = {
            "viewport": {"width": 1200, "height": 1400},
            "reduced_motion": "reduce",
        } | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.errors, self.requests, self.complaints = [], [], []
        self._forgiven = None
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self._allowed = (home, home.replace("http", "ws"), "data:", "blob:", "about:")

    def _note(self, error: str) -> None:
        if self._forgiven is None or self._forgiven not in error:
            self.errors.append(error)

    def _hear(self, message) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    @property
    def foreign(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(self._allowed)]

    def open_notebook(self, lab: str, name: str) -> None:
        self.page.goto(f"{lab}/lab/tree/{name}?reset", wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator", state="attached")
        self.page.wait_for_selector('[data-status="idle"]', state="attached")
        # A command that comes before the session is lost, or asks which kernel to use.
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady"
        )
        self.page.wait_for_timeout(800)

    def command(self, name: str, **arguments) -> None:
        """Run a command of JupyterLab's and do not wait: its promise may never come back."""
        self.page.evaluate(
            "([name, args]) => { window.jupyterapp.commands.execute(name, args); }",
            [name, arguments],
        )

    def shut_down_kernel(self) -> None:
        """Take the notebook's kernel away once it has answered all that the page asked it.

        What comes too late all the same, on a machine that was stopped in between, is forgiven by
        its exact words.
        """
        self.page.wait_for_function(AT_REST, polling=100)
        self._forgiven = CANCELED
        self.command("kernelmenu:shutdown")
        self.page.wait_for_function(
            "() => !window.jupyterapp.shell.currentWidget.sessionContext.session"
        )

    def save_and_leave(self, lab: str) -> None:
        """Save the notebook, close its page, and end every session that the server has."""
        self.command("docmanager:save")
        self.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
        self.page.goto("about:blank")
        with urllib.request.urlopen(f"{lab}/api/sessions") as answer:
            sessions = json.load(answer)
        for session in sessions:
            address = f"{lab}/api/sessions/{session['id']}"
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()

    def use_theme(self, theme: str) -> None:
        """Show JupyterLab in one of its themes."""
        self.command("apputils:change-theme", theme=theme)
        light = str(theme == "JupyterLab Light").lower()
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")

    def serious(self, context: str = ".rx-root") -> list:
        """Return what axe finds serious or worse in a part of the page."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, context=context).response["violations"]
        return [
            (violation["id"], [node["html"] for node in violation["nodes"]])
            for violation in found
            if violation["impact"] in ("serious", "critical")
        ]

    def status(self) -> str:
        return self.page.locator(".rx-root [role=status]").inner_text()

    def wait_for_status(self, words: str) -> None:
        self.page.wait_for_function(
            "words => document.querySelector('.rx-root [role=status]')?.innerText.includes(words)",
            arg=words,
        )


@pytest.fixture(scope="session")
def watch(browser, lab):
    """Make watched pages, which may ask nobody but the test's own JupyterLab."""
    return lambda **options: Watch(browser, lab, **options)


@pytest.fixture(scope="session")
def watch_alone(browser):
    """Make watched pages that have no JupyterLab and no network: for exported files."""
    return lambda **options: Watch(browser, "file:", offline=True, **options)
