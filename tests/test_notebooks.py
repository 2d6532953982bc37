"""What strict nbval does not see: it compares the outputs of executed cells, and nothing else.

A notebook that was never executed passes it. So here: every lesson is a pair in sync, executed from
top to bottom, small, and at home on any machine; its first cell works in Colab; and a single wrong
number in a stored output is found.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
LARGEST = 1_000_000  # bytes
MACHINE_PATH = re.compile(
    r"(/home/\w|/root/|/Users/\w|/tmp/|/work/|[A-Z]:\\\\?Users|site-packages)"
)

lessons = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)


def read(lesson: Path) -> nbformat.NotebookNode:
    return nbformat.read(lesson.with_suffix(".ipynb"), as_version=nbformat.NO_CONVERT)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


# ------------------------------------------------------------------------ what is stored


def faults(notebook) -> Iterator[str]:
    """Say what must not be stored in a lesson, or is missing from it."""
    if "widgets" in notebook.metadata:
        yield "metadata holds the state of widgets"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    counts = [cell.execution_count for cell in code_cells(notebook) if not skipped(cell)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the cells were not run once each from top to bottom, but as {counts}"
    for number, cell in enumerate(code_cells(notebook)):
        for fault in faults_of(cell):
            yield f"code cell {number} {fault}"


def skipped(cell) -> bool:
    return "skip-execution" in tags(cell)


def faults_of(cell) -> Iterator[str]:
    if MACHINE_PATH.search(cell.source):
        yield "names a path of one machine"
    for output in cell.outputs:
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            yield f"stopped with {output.ename}"
        if output.get("name") == "stderr":
            yield f"wrote to stderr: {output.text[:80]!r}"
        if MACHINE_PATH.search(words_of(output)):
            yield f"shows a path of one machine: {MACHINE_PATH.search(words_of(output))[0]!r}"
        if "data" in output and not output.data.get("text/plain", "").strip():
            yield "shows something that has no words (text/plain)"


def words_of(output) -> str:
    """Return everything in an output that a reader could read."""
    shown = {mime: data for mime, data in output.get("data", {}).items() if "image/" not in mime}
    return json.dumps([output.get("text"), output.get("traceback"), shown])


def test_every_lesson_has_a_source_and_a_notebook():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {lesson.stem for lesson in LESSONS}


@lessons
def test_the_source_and_the_notebook_say_the_same(lesson):
    command = ["jupytext", "--to", "py:percent", "--output", "-", "--quiet"]
    result = subprocess.run(
        [sys.executable, "-m", *command, str(lesson.with_suffix(".ipynb"))],
        capture_output=True,
        text=True,
        check=True,
    )
    how = f"the notebook is not that of its source: run `make notebooks LESSON={lesson.stem[:2]}`"
    assert result.stdout == lesson.read_text(), how


@lessons
def test_a_lesson_is_executed_small_and_at_home_anywhere(lesson):
    notebook = read(lesson)
    nbformat.validate(notebook)
    assert "\n".join(faults(notebook)) == ""
    assert lesson.with_suffix(".ipynb").stat().st_size < LARGEST


# ------------------------------------------------------------- the checks above can fail


def small_notebook(*outputs, source: str = "6 * 7", **cell) -> nbformat.NotebookNode:
    """Make a notebook of one executed cell that has no fault, unless told otherwise."""
    shown = outputs or [nbformat.v4.new_output("stream", name="stdout", text="42\n")]
    code = nbformat.v4.new_code_cell(source, outputs=list(shown), **{"execution_count": 1} | cell)
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=[code], metadata={"kernelspec": spec})


def output(kind: str, **fields) -> nbformat.NotebookNode:
    return nbformat.v4.new_output(kind, **fields)


STDERR = output("stream", name="stderr", text="UserWarning: careful\n")
ERROR = output("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])
WORDLESS = output("display_data", data={"text/html": "<svg/>"})
PATH = output("display_data", data={"text/plain": "/home/ada/reformer/run"})


@pytest.mark.parametrize(
    ("notebook", "fault"),
    [
        (small_notebook(execution_count=None), "not run once each from top to bottom"),
        (small_notebook(execution_count=7), "not run once each from top to bottom"),
        (small_notebook(STDERR), "code cell 0 wrote to stderr: 'UserWarning"),
        (small_notebook(ERROR), "code cell 0 stopped with ZeroDivisionError"),
        (small_notebook(WORDLESS), "code cell 0 shows something that has no words"),
        (small_notebook(PATH), "code cell 0 shows a path of one machine: '/home/a'"),
        (small_notebook(source="open('/tmp/x')"), "code cell 0 names a path of one machine"),
    ],
)
def test_a_fault_in_a_notebook_is_found(notebook, fault):
    assert fault in "\n".join(faults(notebook))


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [({"widgets": {}}, "state of widgets"), ({"kernelspec": {"name": "mine"}}, "not python3")],
)
def test_a_fault_in_a_notebooks_metadata_is_found(metadata, fault):
    notebook = small_notebook()
    notebook.metadata.update(metadata)
    assert fault in "\n".join(faults(notebook))


def test_what_is_tagged_may_fail_or_be_skipped():
    error = small_notebook(ERROR, metadata={"tags": ["raises-exception"]})
    unrun = small_notebook(execution_count=None, metadata={"tags": ["skip-execution"]})
    assert [*faults(error), *faults(unrun)] == []


def nbval(folder: Path) -> str:
    """Check a folder's notebooks as `pytest --nbval notebooks` checks the lessons."""
    options = ["--nbval", f"--rootdir={folder}", f"-c{ROOT}/pyproject.toml", "-pno:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_one_wrong_number_in_a_stored_output_is_found(tmp_path):
    notebook = small_notebook(source="print(6 * 7)")
    nbformat.write(notebook, tmp_path / "right.ipynb")
    notebook.cells[0].outputs[0].text = "43\n"
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    said = nbval(tmp_path)
    assert re.search(r"FAILED \S*wrong.ipynb::Cell 0", said)
    assert "1 failed, 1 passed" in said


# ---------------------------------------------------------------------- the first cell, in Colab

# Runs the set-up cell twice, as in a kernel of Colab that has google.colab and not our packages,
# and prints what the cell asked for each time. Nothing is installed: the request is enough.
COLAB = r"""
import importlib.abc, importlib.util, io, json, os, subprocess, sys, types

PACKAGES = ("reformer_core", "reformer_viz")
asked, enabled, real_run, real_find_spec = [], [], subprocess.run, importlib.util.find_spec

class NotInstalledYet(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(PACKAGES) and not asked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def find_spec(name, package=None):
    return None if name.startswith(PACKAGES) and not asked else real_find_spec(name, package)

def is_installation(command):
    words = command.split() if isinstance(command, str) else list(map(str, command))
    return {"pip", "uv", "git", "apt", "apt-get"} & {word.rpartition("/")[2] for word in words}

def listening(real):
    def run(command, *args, **options):
        if not is_installation(command):
            return real(command, *args, **options)
        asked.append(command.split() if isinstance(command, str) else list(map(str, command)))
        return subprocess.CompletedProcess(command, 0, "", "")
    return run

for name in ("run", "call", "check_call", "check_output"):
    setattr(subprocess, name, listening(getattr(subprocess, name)))
os.system = listening(os.system)

if "COLAB_RELEASE_TAG" in os.environ:
    sys.meta_path.insert(0, NotInstalledYet())
    importlib.util.find_spec = find_spec
    google, colab, output = map(types.ModuleType, ("google", "google.colab", "google.colab.output"))
    output.enable_custom_widget_manager = lambda: enabled.append(True)
    google.colab, colab.output = colab, output
    sys.modules |= {"google": google, "google.colab": colab, "google.colab.output": output}

cell, requests, namespace = sys.stdin.read(), [], {"__name__": "__main__"}
for _ in range(2):
    before = len(asked)
    exec(compile(cell, "the set-up cell", "exec"), namespace)
    requests.append(asked[before:])
print(json.dumps({"requests": requests, "enabled": bool(enabled)}))
"""

# Colab imports these before a lesson does: another version means restarting the runtime.
LEFT_ALONE = {
    *["torch", "numpy", "ipywidgets", "ipython", "ipykernel", "tornado", "pyzmq", "traitlets"],
    *["jupyterlab", "notebook", "requirements.txt"],
}
UPGRADES = {"-U", "--upgrade", "--force-reinstall", "-I", "--ignore-installed"}


def setup_cell(lesson: Path) -> str:
    """Return the one cell that makes a lesson run anywhere: its first, tagged `setup`."""
    first, *rest = code_cells(read(lesson))
    assert "setup" in tags(first), "the first code cell must be the set-up, tagged `setup`"
    assert not [cell for cell in rest if "setup" in tags(cell)], "only the first cell is the set-up"
    return first.source


def run_twice(cell: str, folder: Path, **environment: str) -> dict:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", COLAB],
        input=cell,
        cwd=folder,
        env=environment_of(**environment),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def environment_of(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "COLAB_RELEASE_TAG"}
    return kept | changes


def names_in(word: str) -> set[str]:
    """Return what a word of a command could name: a requirement, or the last part of a path."""
    return {re.split(r"[<>=!~\[ @]", part)[0].lower() for part in (word, word.rpartition("/")[2])}


def upgrades(commands: list[list[str]]) -> set[str]:
    """Return the words of the commands that would replace what Colab has."""
    words = {word for command in commands for word in command}
    return {word for word in words if word in UPGRADES or names_in(word) & LEFT_ALONE}


@lessons
def test_the_set_up_cell_installs_the_project_once_in_colab_and_upgrades_nothing(lesson, tmp_path):
    said = run_twice(setup_cell(lesson), tmp_path, COLAB_RELEASE_TAG="release")
    first, second = said["requests"]
    assert first, "in Colab the project is not there yet: the set-up must install it"
    assert second == []
    assert upgrades(first) == set()
    assert said["enabled"], "in Colab widgets need output.enable_custom_widget_manager()"


@lessons
def test_the_set_up_cell_asks_for_nothing_at_home(lesson, tmp_path):
    assert run_twice(setup_cell(lesson), tmp_path)["requests"] == [[], []]


GOOD = """
import importlib.util, os, subprocess, sys
IN_COLAB = "COLAB_RELEASE_TAG" in os.environ
if IN_COLAB and importlib.util.find_spec("reformer_core") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "reformer-notebooks"], check=True)
if IN_COLAB:
    from google.colab import output
    output.enable_custom_widget_manager()
import reformer_core
"""


def test_the_emulation_of_colab_sees_what_a_set_up_cell_asks_for(tmp_path):
    said = run_twice(GOOD, tmp_path, COLAB_RELEASE_TAG="release")
    assert [len(requests) for requests in said["requests"]] == [1, 0]
    assert said["enabled"]
    assert upgrades(said["requests"][0]) == set()
    assert run_twice(GOOD, tmp_path) == {"requests": [[], []], "enabled": False}


def test_the_emulation_of_colab_has_no_packages_of_ours_at_first(tmp_path):
    with pytest.raises(AssertionError, match="No module named 'reformer_core'"):
        run_twice("import reformer_core", tmp_path, COLAB_RELEASE_TAG="release")


@pytest.mark.parametrize(
    "command",
    [
        "pip install -U reformer-notebooks",
        "pip install torch==2.13.0",
        "pip install ipywidgets>=8",
        "pip install -r requirements.txt",
        "pip install -r /content/reformer/requirements.txt",
        "pip install torch@https://example.org/torch.whl",
    ],
)
def test_an_upgrade_is_found(command):
    assert upgrades([command.split()])
