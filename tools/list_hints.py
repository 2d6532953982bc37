"""List for teachers what people answer to each exercise, and the hint that each answer gets.

`make hints` writes docs/hints.md from the checkers themselves.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType

from reformer_viz.lessons import Exercise, checks

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "hints.md"
HEAD = """\
# What goes wrong, and what the checkers say

Every exercise knows the answers below, wrong ones that people give; a test hands each of them in
and reads its own hint back. This page is made from the checkers by `make hints`.
"""


def make_page() -> str:
    """Return the page, lesson by lesson."""
    parts = [HEAD]
    for lesson in sorted((ROOT / "notebooks").glob("[0-9]*.py")):
        text = lesson.read_text("utf-8")
        for name in re.findall(rf"from {checks.__name__} import (\w+)", text):
            parts += _section(lesson, text, importlib.import_module(f"{checks.__name__}.{name}"))
    return _formatted("\n".join(parts))


def _formatted(page: str) -> str:
    """Lay out the page's code as `make test` demands: unparsed, it is one long line."""
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PAGE), "-"]
    return subprocess.run(ruff, input=page, capture_output=True, text=True, check=True).stdout


def _section(lesson: Path, text: str, module: ModuleType) -> Iterator[str]:
    title = re.search(r"^# # (.+)$", text, re.MULTILINE)[1]
    yield f"## {lesson.stem[:2]} [{title}](../notebooks/{lesson.stem}.ipynb)\n"
    sources = _sources(module)
    for name, exercise in vars(module).items():
        if isinstance(exercise, Exercise):
            yield f"### `{name}`\n"
            yield from _answers(exercise, sources.get(name, []))


def _answers(exercise: Exercise, sources: list[str]) -> Iterator[str]:
    for number, mistake in enumerate(exercise.mistakes):
        source = sources[number] if len(sources) == len(exercise.mistakes) else None
        yield f"- {mistake.hint}\n"
        yield f"{_as_block(source or _shown(mistake.answer))}\n"


def _as_block(code: str) -> str:
    return "\n".join("  " + line for line in ["```python", *code.splitlines(), "```"])


def _shown(answer: object) -> str:
    return dedent(inspect.getsource(answer)).strip() if callable(answer) else repr(answer)


def _sources(module: ModuleType) -> dict[str, list[str]]:
    """Return what stands in the module for the answer of each mistake, of each exercise there."""
    text = inspect.getsource(module)
    functions = {
        node.name: ast.unparse(node) for node in ast.parse(text).body if hasattr(node, "name")
    }
    return {
        node.targets[0].id: [
            functions.get(ast.unparse(call.args[0]), ast.unparse(call.args[0]))
            for call in ast.walk(node.value)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Mistake"
        ]
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


if __name__ == "__main__":
    PAGE.write_text(make_page(), "utf-8")
