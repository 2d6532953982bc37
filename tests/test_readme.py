"""The README is true: its code runs, its commands exist, and its tree is the tree."""

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PACKAGES = ("reformer_core", "reformer_viz")
EXTENSIONS = "py|ipynb|md|toml|txt|js|json|cff|yml|png|svg|cfg"


def readme() -> str:
    return README.read_text(encoding="utf-8")


def listed(complaints: Iterable[str]) -> str:
    return "\n".join(sorted(complaints))


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a language, each with the number of its first line."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, m.start(1)) + 1, m[1]) for m in fence.finditer(text)]


# ------------------------------------------------------------------------------- code


def run_blocks(text: str, name: str) -> dict:
    """Run the Python blocks in order and in one namespace; a traceback names the README's line."""
    namespace = {"__name__": "__main__"}
    for line, code in blocks(text, "python"):
        exec(compile("\n" * (line - 1) + code, name, "exec"), namespace)
    return namespace


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert blocks(readme(), "python")
    run_blocks(readme(), str(README))


def test_the_code_for_teachers_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "teaching.md"
    names = run_blocks(page.read_text(encoding="utf-8"), str(page))
    assert len(names["scenes"].captions) == 3
    assert (tmp_path / "rounds.html").stat().st_size > 10_000


def test_code_that_fails_is_found_with_its_line():
    text = "# Title\n\n```python\nx = 1\n```\n\ntext\n\n```python\ny = x\ny / 0\n```\n"
    with pytest.raises(ZeroDivisionError) as error:
        run_blocks(text, "README.md")
    assert error.traceback[-1].lineno + 1 == 11


# --------------------------------------------------------------------------- commands


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))


def commands(text: str) -> Iterator[str]:
    """Yield what a reader could type: every line of a shell block, and every `span` of code."""
    for language in ("sh", "bash", "shell", "console", "powershell"):
        for _, block in blocks(text, language):
            yield from (line.removeprefix("$ ").partition(" #")[0] for line in block.splitlines())
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def unknown_commands(text: str, root: Path) -> Iterator[str]:
    """Say which of the commands ask for a target, a module or a file that is not there."""
    targets = make_targets((root / "Makefile").read_text())
    for command in commands(text):
        match shlex.split(command, posix=False):
            case ["make", *words]:
                for word in words:
                    if "=" not in word and word not in targets:
                        yield f"{command}: the Makefile has no target {word!r}"
            case [python, "-m", module, *_] if "python" in python:
                if module != "venv" and importlib.util.find_spec(module) is None:
                    yield f"{command}: there is no module {module!r}"
        for file in re.findall(r"(?:-r|-c) (\S+\.txt)", command):
            if not (root / file).exists():
                yield f"{command}: there is no file {file!r}"


def test_the_commands_of_the_readme_exist():
    assert listed(unknown_commands(readme(), ROOT)) == ""


def test_the_two_commands_are_in_the_readme():
    assert {"make lab", "make test"} <= {command.strip() for command in commands(readme())}


@pytest.mark.parametrize(
    "command",
    ["make tea", "make lab tea", "python -m reformer_tea", "pip install -r tea.txt"],
)
def test_a_command_that_does_not_exist_is_found(command):
    assert "tea" in "".join(unknown_commands(f"```sh\n$ {command}  # now\n```\n", ROOT))
    assert "tea" in "".join(unknown_commands(f"Say `{command}` now.", ROOT))


# ----------------------------------------------------------------------------- memory


def test_the_readme_says_what_a_step_takes_and_where_checkpointing_is_faster():
    said = readme().partition("<!-- memory: made by")[2].partition("<!-- end of memory -->")[0]
    assert "(docs/memory.png)" in said
    for kind in ("checkpointed", "reversible", "reversible, chunked"):
        assert f"({kind})" in said
    assert re.search(r"Checkpointing is faster than reversing at [^.]* layers\.", said)


# ------------------------------------------------------------------------------- tree


def is_path(word: str) -> bool:
    known = rf"Makefile|LICENSE|\.ci/run|[\w./-]+/|[\w./-]*\.({EXTENSIONS})"
    return re.fullmatch(known, word) is not None


def named_paths(tree: str) -> Iterator[str]:
    """Read a tree: what begins a line, one name or several, below the last less indented folder.

    The first word that is no path begins the comment; a line of comment alone names nothing.
    """
    folders: list[tuple[int, str]] = []
    for line in tree.splitlines():
        plain = re.sub("[│├└─]", " ", line)
        indent = len(plain) - len(plain.lstrip())
        names = []
        for word in plain.split():
            if not is_path(word):
                break
            names.append(word)
        if names:
            folders = [(depth, folder) for depth, folder in folders if depth < indent]
        above = folders[-1][1] if folders else ""
        for name in names:
            yield above + name
            if name.endswith("/"):
                folders.append((indent, above + name))


def tree_of(text: str) -> set[str]:
    ((_, tree),) = blocks(text, "text")
    return set(named_paths(tree))


def expected_paths(root: Path) -> set[str]:
    """List what the tree must name: each file and folder at the top, and each module below it."""
    kept = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    files = [Path(line) for line in kept if line and (root / line).exists()]
    shown = [file for file in files if not file.parts[0].startswith(".")]
    top = {file.parts[0] + "/" * (len(file.parts) > 1) for file in shown}
    inner = {
        "/".join(file.parts[:2]) + "/" * (len(file.parts) > 2)
        for file in shown
        if file.parts[0] in PACKAGES and file.name != "__init__.py"
    }
    return top | inner


def test_every_path_in_the_readmes_tree_exists():
    assert listed(path for path in tree_of(readme()) if not (ROOT / path).exists()) == ""


def test_every_module_is_in_the_readmes_tree():
    assert listed(expected_paths(ROOT) - tree_of(readme())) == ""


def test_links_in_the_readme_lead_to_files_that_exist():
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|<img[^>]*src=\"([^\"]+)\"", readme())
    local = {link for pair in links for link in pair if link and "://" not in link}
    assert listed(link for link in local if not (ROOT / link).exists()) == ""


TREE = """
README.md            what it is, one picture
LICENSE CITATION.cff MIT, and how to cite
reformer_core/       the model; torch, einops
  config.py            checked options
  attention/           functions without weights
    dense.py             the definition:
                         softmax over the pairs that a plan shows
    chunked.py
  local.py             attention in a window
reformer_viz/
├── style.py           looks
├── measure/           numbers only: core objects -> arrays
│   ├── recall.py  sparsity.py
└── widgets/           controls + a view
notebooks/00_tour.py   the first lesson
.ci/run .github/workflows/test.yml   what runs where
"""


READ = """
README.md LICENSE CITATION.cff
reformer_core/ reformer_core/config.py
reformer_core/attention/ reformer_core/attention/dense.py reformer_core/attention/chunked.py
reformer_core/local.py
reformer_viz/ reformer_viz/style.py
reformer_viz/measure/ reformer_viz/measure/recall.py reformer_viz/measure/sparsity.py
reformer_viz/widgets/
notebooks/00_tour.py
.ci/run .github/workflows/test.yml
"""


def test_a_tree_is_read_as_a_person_reads_it():
    assert list(named_paths(TREE)) == READ.split()


def test_a_module_that_is_not_in_the_tree_is_found(tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for file in [
        "setup.py",
        "reformer_core/__init__.py",
        "reformer_core/a.py",
        "reformer_core/b/c.py",
    ]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / ".gitignore").write_text("setup.py")
    assert expected_paths(tmp_path) == {"reformer_core/", "reformer_core/a.py", "reformer_core/b/"}
