"""Make lessons anew from their sources: head, outputs, and the run time that they state.

A lesson whose kernel needs more memory than the course promises is refused.

    python tools/run_lessons.py             every lesson
    python tools/run_lessons.py 02 05       those whose names begin so

Run it by `make notebooks`, which sets the environment in which stored outputs are made. A lesson's
head (the link to Colab, the set-up cell) follows from the project's address and from the tour.
"""

import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
TOUR = NOTEBOOKS / "00_tour.py"
RUN_TIME = re.compile(r"\*Runs in about (?P<time>\d+ s|\d+ minutes?) on two cores\.\*")
_COLAB = re.compile(r"^\[Open in Colab\]\([^)]*\)$", re.MULTILINE)
_SETUP = re.compile(r'^# %% tags=\["setup"\]\n.*?(?=^# %%)', re.MULTILINE | re.DOTALL)
LARGEST = 3e9  # bytes: every lesson runs on a machine with 3 GB to spare
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_TOLERANCE = 1.6  # a stated time within this factor of the measured one stays as it is


def main(*beginnings: str) -> None:
    """Make the chosen lessons anew, and say how long each took."""
    chosen = [p for p in sources() if not beginnings or p.name.startswith(beginnings)]
    if not chosen:
        names = ", ".join(path.stem for path in sources())
        raise SystemExit(f"a lesson's name must begin with {' or '.join(beginnings)}; of {names}")
    for source in chosen:
        source.write_text(with_head(source.read_text(encoding="utf-8"), source), encoding="utf-8")
        seconds, peak = run(source)
        state_time(source, seconds)
        size = source.with_suffix(".ipynb").stat().st_size
        print(f"{source.stem}: {seconds:.0f} s, {size:,} B, kernel's peak {peak / 1e9:.2f} GB")
        refuse_too_large(source, peak)


def sources() -> list[Path]:
    """List the lessons' sources."""
    return sorted(NOTEBOOKS.glob("[0-9]*.py"))


def address() -> str:
    """Return the project's address: pyproject.toml is the only place where it is chosen."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def colab_link(name: str) -> str:
    """Write the link that opens a lesson in Colab."""
    repository = address().removeprefix("https://github.com/")
    base = "https://colab.research.google.com/github"
    return f"[Open in Colab]({base}/{repository}/blob/main/notebooks/{name}.ipynb)"


def set_up_cell() -> str:
    """Return the tour's set-up cell, with the project's address in it."""
    cell = _SETUP.search(TOUR.read_text(encoding="utf-8"))[0]
    return re.sub(r'^REPOSITORY = ".*"$', f'REPOSITORY = "{address()}"', cell, flags=re.MULTILINE)


def with_head(text: str, source: Path) -> str:
    """Give a lesson's source the link below its title, and the set-up cell of all."""
    link = f"# {colab_link(source.stem)}"
    if _COLAB.search(text.replace("# [", "[")):
        text = re.sub(r"^# \[Open in Colab\]\([^)]*\)$", link, text, flags=re.MULTILINE)
    else:
        text = re.sub(r"^(# # .+\n)#\n", rf"\1#\n{link}\n#\n", text, count=1, flags=re.MULTILINE)
    return _SETUP.sub(lambda _: set_up_cell(), text, count=1)


class Measured(ExecutePreprocessor):
    """Executes a notebook, and looks after each cell at the most memory its kernel has had."""

    peak = 0

    def preprocess_cell(self, cell, resources, index):
        """Execute one cell."""
        result = super().preprocess_cell(cell, resources, index)
        self.peak = max(self.peak, peak_of(self.km.provisioner.pid))
        return result


def peak_of(pid: int) -> int:
    """Return the most memory in bytes that a process has had; 0 where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    found = _PEAK.search(status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def refuse_too_large(source: Path, peak: int) -> None:
    """Stop where a lesson needs more memory than was promised."""
    if peak > LARGEST:
        raise SystemExit(
            f"{source.name} took {peak / 1e9:.2f} GB of memory, more than the {LARGEST / 1e9:.0f} "
            f"that the course may take: make the lengths, depths or batches in it smaller, then "
            f"run `make notebooks LESSON={source.stem[:2]}` again"
        )


def run(source: Path) -> tuple[float, int]:
    """Make a lesson's notebook from its source and execute it; return seconds and peak bytes."""
    target = source.with_suffix(".ipynb")
    convert = ["jupytext", "--quiet", "--to", "ipynb", "--update", str(source)]
    subprocess.run([sys.executable, "-m", *convert], check=True, cwd=ROOT)
    notebook = nbformat.read(target, as_version=nbformat.NO_CONVERT)
    execute = Measured(
        timeout=None, store_widget_state=False, record_timing=False, kernel_name="python3"
    )
    start = time.perf_counter()
    try:
        execute.preprocess(notebook, {"metadata": {"path": str(NOTEBOOKS)}})
    except CellExecutionError as error:
        raise SystemExit(
            f"{source.name} stopped:\n{error}\nMend the cell in {source.name}, then run "
            f"`make notebooks LESSON={source.stem[:2]}` again"
        ) from None
    nbformat.write(notebook, target)
    return time.perf_counter() - start, execute.peak


def state_time(source: Path, seconds: float) -> None:
    """Let the lesson say how long it runs, unless what it says is near enough."""
    stated = RUN_TIME.search(source.read_text(encoding="utf-8"))
    if stated is None or _near(stated["time"], seconds):
        return
    for path in (source, source.with_suffix(".ipynb")):
        text = path.read_text(encoding="utf-8")
        line = f"*Runs in about {in_words(seconds)} on two cores.*"
        path.write_text(RUN_TIME.sub(line, text, count=1), encoding="utf-8")


def in_words(seconds: float) -> str:
    """Round a time up: to ten seconds, from two minutes on to minutes."""
    if seconds <= 90:
        return f"{10 * max(1, -(-int(seconds) // 10))} s"
    return f"{-(-int(seconds) // 60)} minutes"


def _near(stated: str, seconds: float) -> bool:
    said = int(stated.split()[0]) * (1 if stated.endswith(" s") else 60)
    return 1 / _TOLERANCE < said / max(seconds, 10) < _TOLERANCE


if __name__ == "__main__":
    main(*sys.argv[1:])
