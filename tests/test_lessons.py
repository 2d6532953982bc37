"""Every lesson keeps the form that teaches: a question, predictions, exercises that answer, a next.

The tour is no lesson: it shows everything once and asks nothing. Exercises are run here as a reader
would: the stub is not an answer, and the hidden solution is one, with nothing but the lesson's own
imports in scope.
"""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import jupytext
import nbformat
import pytest

from reformer_viz.lessons import Exercise, Verdict, checks
from reformer_viz.lessons.exercise import NOT_WRITTEN

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import list_hints  # noqa: E402 - a tool, not a package
import run_lessons  # noqa: E402
from run_lessons import RUN_TIME  # noqa: E402

CHECKS = [
    importlib.import_module(f"{checks.__name__}.{found.name}")
    for found in pkgutil.iter_modules(checks.__path__)
]
NOTEBOOKS = ROOT / "notebooks"
TOUR, *LESSONS = sorted(NOTEBOOKS.glob("[0-9]*.py"))
lessons = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)

SECTIONS = ("What surprised us", "Exercises", "Questionnaire", "Next")
EFFORT = re.compile(r"^\*Difficulty ([●○]{5}), importance ([●○]{5}), about \d+ minutes\.\*$", re.M)
EXPLORER = re.compile(r"^(?:(?P<name>\w+) = )?(?P<call>explore_\w+)\(", re.M)
TERM = re.compile(r"(?<!- )\*\*([\w -]+)\*\*")
"""What a lesson prints bold, sentences and the beginnings of list items left out."""
STRESSED = {
    "same vector",
    "checkpointing is often enough",
    "This is the assumption under the whole paper",
}
"""Bold for weight, and no words of their own."""
LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)?(#[^)\s]+)?\)")
SUMMARY = re.compile(r"<details>\s*<summary>(.*?)</summary>", re.DOTALL)


def cells_of(lesson: Path) -> list:
    return [cell for cell in jupytext.read(lesson).cells if cell.source.strip()]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def prose(cells: list) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def section(text: str, title: str) -> str:
    """Return what stands under a heading of the second level."""
    _, _, after = text.partition(f"\n## {title}\n")
    return re.split(r"^## ", after, maxsplit=1, flags=re.MULTILINE)[0]


# ------------------------------------------------------------------------------- form


def faults_of_form(cells: list) -> Iterator[str]:
    """Say what a reader would miss in a lesson."""
    text = prose(cells)
    if not (headings(text) or [""])[0].rstrip().endswith("?"):
        yield "the title is not a question"
    first = cells[0].source
    if "you can" not in first:
        yield "the first cell does not say what the reader can do afterwards"
    if not RUN_TIME.search(first):
        yield "the first cell has no line '*Runs in about N s on two cores.*'"
    for title in SECTIONS:
        if not section(text, title).strip():
            yield f"there is no section '{title}'"
    if len(SUMMARY.findall(section(text, "Questionnaire"))) < 6:
        yield "the questionnaire has fewer than six questions"
    yield from faults_of_explorers(cells)


def faults_of_explorers(cells: list) -> Iterator[str]:
    """Say which explorer asks for no prediction, is not moved by code, or not checked then.

    Checked is what a cell prints of a moved explorer where nbval compares: its sentence, or, where
    that holds times or losses, what of it does not change.
    """
    start = 0
    for place, cell in enumerate(cells):
        if cell.cell_type != "code" or not (call := EXPLORER.search(cell.source)):
            continue
        name, what = call["name"], call["call"]
        if "**Predict, then move.**" not in prose(cells[start:place]):
            yield f"{what} has no 'Predict, then move.' before it"
        start = place + 1
        later = [cell for cell in cells[start:] if cell.cell_type == "code"]
        moving = rf"\b{name}\.(controls\[.*\]\.value|place) = "
        moves = [i for i, cell in enumerate(later) if name and re.search(moving, cell.source)]
        if not moves:
            yield f"no cell moves {what}"
        elif not any(
            re.search(rf"\b{name}\b", cell.source) and "nbval-ignore-output" not in tags(cell)
            for cell in later[moves[0] :]
        ):
            yield f"no output that nbval compares is of {what} after it was moved"


def faults_of_exercises(cells: list) -> Iterator[str]:
    places = [i for i, cell in enumerate(cells) if "exercise" in tags(cell)]
    if not 3 <= len(places) <= 5:
        yield f"there are {len(places)} exercises, not three to five"
    for number, place in enumerate(places, start=1):
        task, after = cells[place - 1].source, [*cells[place + 1 : place + 2]]
        if not EFFORT.search(task):
            yield f"exercise {number} does not say its difficulty, importance and time"
        if sum("Hint" in summary for summary in SUMMARY.findall(task)) < 2:
            yield f"exercise {number} has fewer than two hints"
        if not any("solution" in tags(cell) and "```python" in cell.source for cell in after):
            yield f"exercise {number} has no solution after it"
    if len(places) != sum("solution" in tags(cell) for cell in cells):
        yield "there is a solution without its exercise"


@lessons
def test_a_lesson_has_the_form_of_a_lesson(lesson):
    cells = cells_of(lesson)
    assert "\n".join([*faults_of_form(cells), *faults_of_exercises(cells)]) == ""


def test_each_explorer_of_the_tour_is_predicted_moved_and_checked():
    assert "\n".join(faults_of_explorers(cells_of(TOUR))) == ""


@pytest.mark.parametrize("lesson", [TOUR, *LESSONS], ids=lambda lesson: lesson.stem)
def test_the_link_to_colab_and_the_set_up_cell_are_those_of_the_projects_address(lesson):
    text = lesson.read_text(encoding="utf-8")
    assert text.count(f"/notebooks/{lesson.stem}.ipynb)") == 1
    assert run_lessons.with_head(text, lesson) == text, "run `make notebooks`"


def test_another_address_is_found_everywhere(monkeypatch):
    monkeypatch.setattr(run_lessons, "address", lambda: "https://github.com/ada/engine")
    text = TOUR.read_text(encoding="utf-8")
    changed = run_lessons.with_head(text, TOUR)
    assert "colab.research.google.com/github/ada/engine/blob/main/notebooks/00_tour" in changed
    assert 'REPOSITORY = "https://github.com/ada/engine"' in changed
    assert run_lessons.with_head(changed, TOUR) == changed


def test_a_lesson_without_a_link_gets_one_below_its_title():
    source = NOTEBOOKS / "01_why.py"
    text = "# %% [markdown]\n# # Why?\n#\n# Because.\n"
    title, empty, link, *rest = run_lessons.with_head(text, source).splitlines()[1:]
    assert (title, empty) == ("# # Why?", "#")
    assert link == f"# {run_lessons.colab_link('01_why')}"
    assert rest == ["#", "# Because."]


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "10 s"), (31, "40 s"), (90, "90 s"), (91, "2 minutes")]
)
def test_a_run_time_is_rounded_up(seconds, words):
    assert run_lessons.in_words(seconds) == words
    assert RUN_TIME.search(f"*Runs in about {words} on two cores.*")


def test_a_stated_time_changes_only_when_it_is_far_off(tmp_path):
    lesson = tmp_path / "01_why.py"
    for seconds, stated in ((25, "20 s"), (70, "70 s")):
        for path in (lesson, lesson.with_suffix(".ipynb")):
            path.write_text("*Runs in about 20 s on two cores.*")
        run_lessons.state_time(lesson, seconds)
        assert lesson.read_text() == f"*Runs in about {stated} on two cores.*"
        assert lesson.with_suffix(".ipynb").read_text() == lesson.read_text()


def test_a_lesson_that_takes_too_much_memory_is_refused():
    assert run_lessons.peak_of(os.getpid()) > 1e7
    run_lessons.refuse_too_large(TOUR, int(2.9e9))
    with pytest.raises(SystemExit, match=r"00_tour.py took 3.10 GB .* more than the 3 that"):
        run_lessons.refuse_too_large(TOUR, int(3.1e9))


def test_the_peak_of_a_kernel_is_seen_and_the_notebook_is_as_without_looking(tmp_path):
    cells = [nbformat.v4.new_code_cell(code) for code in ("x = b'x' * 300_000_000", "del x; 6 * 7")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    execute = run_lessons.Measured(kernel_name="python3", record_timing=False)
    execute.preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    assert execute.peak > 3e8
    assert [cell.execution_count for cell in notebook.cells] == [1, 2]


# -------------------------------------------------------------------------- exercises


def imports_of(cells: list) -> str:
    """Collect what a lesson imports, in order."""
    found = []
    for cell in cells:
        if cell.cell_type == "code" and "setup" not in tags(cell):
            tree = ast.parse(cell.source)
            found += [
                ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)
            ]
    return "\n".join(found)


def verdict_on(imports: str, code: str, last_line: str) -> Verdict:
    namespace = {"__name__": "lesson"}
    exec(imports, namespace)
    exec(code, namespace)
    return eval(last_line, namespace)


def solution_in(cell) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL))


def exercises_of(lesson: Path) -> Iterator[tuple]:
    cells = cells_of(lesson)
    for cell, solution in pairwise(cells):
        if "exercise" in tags(cell):
            *before, last_line = cell.source.rstrip().split("\n")
            yield imports_of(cells), "\n".join(before), last_line, solution_in(solution)


@lessons
def test_a_stub_is_no_answer_and_the_solution_is_one(lesson):
    for imports, stub, last_line, solution in exercises_of(lesson):
        assert verdict_on(imports, stub, last_line).words == NOT_WRITTEN
        verdict = verdict_on(imports, stub + "\n" + solution, last_line)
        assert verdict.passed, f"{last_line}: {verdict.words}"


# --------------------------------------------------------------------- students' copies


def student_copies(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "student_copies.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def test_students_get_the_lessons_without_solutions_and_keep_what_they_wrote(tmp_path):
    assert student_copies(tmp_path / "class").returncode == 0
    for lesson in [TOUR, *LESSONS]:
        whole, copy = (
            nbformat.read(folder / f"{lesson.stem}.ipynb", as_version=nbformat.NO_CONVERT)
            for folder in (NOTEBOOKS, tmp_path / "class")
        )
        nbformat.validate(copy)
        assert not [cell for cell in copy.cells if "solution" in tags(cell)]
        assert [c for c in whole.cells if "solution" not in tags(c)] == copy.cells
    again = student_copies(tmp_path / "class")
    assert again.returncode == 1
    assert "name another folder" in again.stderr


# ------------------------------------------------------------------------------ links


def anchors(lesson: Path) -> set[str]:
    """Return the anchors that JupyterLab and GitHub give to a notebook's headings."""
    titles = headings(prose(cells_of(lesson)))
    return {f"#{title.strip().replace(' ', '-')}" for title in titles} | {
        "#" + re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles
    }


def broken_links(source: Path, text: str) -> Iterator[str]:
    for target, anchor in LINK.findall(text):
        file = source.parent / target if target else source
        if not file.exists():
            yield f"{source.name} links to {target}, which is not there"
        elif anchor and anchor not in anchors(file.with_suffix(".py")):
            yield f"{source.name} links to {target}{anchor}: no heading is called so"


@pytest.mark.parametrize("lesson", [TOUR, *LESSONS], ids=lambda lesson: lesson.stem)
def test_links_lead_somewhere(lesson):
    assert "\n".join(broken_links(lesson, prose(cells_of(lesson)))) == ""


def test_each_lesson_links_to_the_one_after_it():
    for lesson, following in pairwise([TOUR, *LESSONS]):
        end = prose(cells_of(lesson)[-3:])
        assert f"]({following.stem}.ipynb)" in end, f"{lesson.stem} does not lead to the next"


# --------------------------------------------------------------------------- glossary


def glossary_entries() -> set[str]:
    """Return every word that the glossary explains, in lower case."""
    page = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    words = page.partition("## Letters")[0]
    first = re.findall(r"^\| ([^|]+) \|", words, re.MULTILINE)
    return {word.strip(" `").lower() for entry in first for word in entry.split(",")}


def unexplained(text: str) -> Iterator[str]:
    """Say which bold words of a text have no entry; a plural needs none of its own."""
    known = glossary_entries()
    for term in sorted(set(TERM.findall(text)) - STRESSED):
        if not {term.lower(), term.lower().removesuffix("s")} & known:
            yield f"'{term}' is not in docs/glossary.md"


@pytest.mark.parametrize("lesson", [TOUR, *LESSONS], ids=lambda lesson: lesson.stem)
def test_the_glossary_has_every_bold_word_and_every_lesson_leads_there(lesson):
    text = prose(cells_of(lesson))
    assert "\n".join(unexplained(text)) == ""
    assert "](../docs/glossary.md)" in text


def test_the_glossary_leads_to_lessons_that_use_its_words():
    page = ROOT / "docs" / "glossary.md"
    text = page.read_text("utf-8")
    assert "\n".join(broken_links(page, text)) == ""
    for entry, where in re.findall(r"^\| ([^|]+) \|[^|]+\|([^|]+)\|$", text, re.MULTILINE):
        words = [word.strip("` ").lower() for word in entry.split(",")]
        for lesson in re.findall(r"\]\(\.\./notebooks/(\w+)\.ipynb\)", where):
            said = " ".join(prose(cells_of(NOTEBOOKS / f"{lesson}.py")).lower().split())
            assert any(word in said for word in words), f"{lesson} never says {entry}"


# ------------------------------------------------------------- the checks above can fail

WHOLE = """\
# %% [markdown]
# # Does it?
# After this lesson you can see.
#
# *Runs in about 20 s on two cores.*

# %%
from math import sqrt
from reformer_viz.lessons import Exercise

# %% [markdown]
# ## What surprised us
# Little.
#
# ## Exercises
# Double it.
#
# *Difficulty ●●○○○, importance ●○○○○, about 5 minutes.*
#
# <details><summary>Hint 1</summary> x </details><details><summary>Hint 2</summary> y </details>

# %% tags=["exercise"]
double = Exercise(right=lambda x: 2 * x, cases=lambda: [(3,)], mistakes=[])

def twice(x):
    raise NotImplementedError

double(twice)

# %% [markdown] tags=["solution"]
# ```python
# def twice(x):
#     return sqrt(4) * x
# ```

# %% [markdown]
# ## Questionnaire
# QUESTIONS
#
# ## Next
# [On](00_tour.ipynb)
""".replace("QUESTIONS", "<details><summary>?</summary></details>" * 6)


def lesson_from(text: str) -> list:
    return jupytext.reads(text, fmt="py:percent").cells


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Does it?", "It does", "the title is not a question"),
        ("you can see", "you see", "what the reader can do afterwards"),
        ("about 20 s", "20 s", "no line '*Runs in about"),
        ("## Next\n", "## Then\n", "there is no section 'Next'"),
        ("<summary>?</summary>", "", "fewer than six questions"),
        ("from math", "explore_bucketing()\nfrom math", "has no 'Predict, then move.' before"),
        ("from math", "explore_bucketing()\nfrom math", "no cell moves explore_bucketing"),
        ("●●○○○", "hard", "exercise 1 does not say its difficulty"),
        ("Hint 2", "More", "exercise 1 has fewer than two hints"),
        ("```python", "```", "exercise 1 has no solution after it"),
        ('tags=["exercise"]', "", "there is a solution without its exercise"),
    ],
)
def test_a_fault_of_form_is_found(old, new, fault):
    whole = [*faults_of_form(lesson_from(WHOLE)), *faults_of_exercises(lesson_from(WHOLE))]
    assert whole == ["there are 1 exercises, not three to five"]
    assert old in WHOLE
    cells = lesson_from(WHOLE.replace(old, new))
    assert fault in "\n".join([*faults_of_form(cells), *faults_of_exercises(cells)])


SHOWN = """\
# %% [markdown]
# > **Predict, then move.** What comes?

# %% tags=["nbval-ignore-output"]
one = explore_speed(speed)
one

# %% tags=["nbval-ignore-output"]
one.controls["n_hashes"].value = 1
print(one)

# %%
print(str(one).partition(":")[0])
"""


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ("", "", []),
        ("then move", "then look", ["explore_speed has no 'Predict, then move.' before it"]),
        ('one.controls["n_hashes"].value = 1', "", ["no cell moves explore_speed"]),
        ("one = ", "", ["no cell moves explore_speed"]),
        (
            "print(str(one)",
            "print(str(two)",
            ["no output that nbval compares is of explore_speed after it was moved"],
        ),
    ],
)
def test_a_fault_of_an_explorer_is_found(old, new, faults):
    assert [*faults_of_explorers(lesson_from(SHOWN.replace(old, new)))] == faults


def test_every_explorer_needs_its_own_prediction():
    second = SHOWN.replace("one", "two").partition("# %% tags")[2]
    said = [*faults_of_explorers(lesson_from(SHOWN + "\n# %% tags" + second))]
    assert said == ["explore_speed has no 'Predict, then move.' before it"]


def test_a_wrong_solution_is_found(tmp_path):
    lesson = tmp_path / "lesson.py"
    for text, passed in ((WHOLE, True), (WHOLE.replace("sqrt(4)", "sqrt(9)"), False)):
        lesson.write_text(text)
        ((imports, stub, last_line, solution),) = exercises_of(lesson)
        assert verdict_on(imports, stub + "\n" + solution, last_line).passed == passed


def test_a_broken_link_is_found():
    said = [*broken_links(TOUR, "[a](01_nothing.ipynb), [b](00_tour.ipynb#No-such-heading)")]
    assert len(said) == 2
    assert [*broken_links(TOUR, "[a](00_tour.ipynb#5.-Real-text), [b](https://example.org)")] == []


def test_a_bold_word_that_nobody_explains_is_found():
    text = "A **bucket**, its **buckets**, an **ermine**, **as said.**\n- **lists** begin so"
    assert [*unexplained(text)] == ["'ermine' is not in docs/glossary.md"]


def test_the_teachers_page_of_hints_is_what_the_checkers_say():
    page = list_hints.make_page()
    assert (ROOT / "docs" / "hints.md").read_text("utf-8") == page, "run `make hints`"
    every = [hint for module in CHECKS for hint in hints_of(module)]
    assert len(every) > 3 * len(LESSONS)
    assert [hint for hint in every if hint not in page] == []


def hints_of(module) -> list[str]:
    exercises = [value for value in vars(module).values() if isinstance(value, Exercise)]
    return [mistake.hint for exercise in exercises for mistake in exercise.mistakes]
