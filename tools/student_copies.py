"""Copy the lessons for students: everything but the solutions.

    python tools/student_copies.py FOLDER

Hints stay, and so do the outputs: pictures are there before anything has run.
"""

import sys
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def main(folder: str) -> None:
    """Write a copy of every lesson into a folder, and refuse to overwrite one that is there."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    lessons = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if there := [lesson.name for lesson in lessons if (target / lesson.name).exists()]:
        raise SystemExit(
            f"{target} must not hold lessons yet, but has {', '.join(there)}: students may have "
            f"worked in them; name another folder"
        )
    for lesson in lessons:
        notebook = without_solutions(nbformat.read(lesson, as_version=nbformat.NO_CONVERT))
        nbformat.write(notebook, target / lesson.name)
    print(f"{len(lessons)} lessons without solutions in {target}")


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out the cells that are tagged `solution`."""
    copy = nbformat.from_dict(notebook)
    copy.cells = [c for c in copy.cells if "solution" not in c.metadata.get("tags", [])]
    return copy


if __name__ == "__main__":
    main(*sys.argv[1:])
