"""The arrows of the design, read from the sources: a module imports only from its left.

Nothing is imported here but the standard library, so that a broken module cannot hide.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From left to right. A topic may import every topic on a line above its own, and itself; topics
# on one line know nothing of each other, so that each can be read and tried alone.
ARROWS = """
    core.autograd core.graphs core.linear viz.style
    core.hashing core.bucketing core.feed_forward core.positions core.reversible core.tasks
    core.attention core.local core.config
    core.layers
    core.models
    core.generation core.checkpoints core.compat
    core.training
    core.__init__ core.__main__
    viz.measure
    viz.figures
    viz.widgets
    viz.__init__
    viz.lessons
"""

# (who, what it never imports, why); a name covers everything below it.
NEVER = [
    ("core", "reformer_viz matplotlib plotly ipywidgets anywidget", "the model draws nothing"),
    ("core.attention", "reformer_core.config", "config stops at models.py"),
    ("core.local", "reformer_core.config", "config stops at models.py"),
    ("core.layers", "reformer_core.config", "config stops at models.py"),
    ("viz.measure", "matplotlib plotly ipywidgets anywidget", "measure returns numbers only"),
    ("viz.figures", "torch reformer_core", "a figure is made from a measurement alone"),
    ("viz.figures", "ipywidgets anywidget", "a figure has no controls"),
    ("viz.style", "torch reformer_core ipywidgets anywidget", "style is for looks only"),
    ("viz", "matplotlib.pyplot pylab", "pyplot keeps figures in a global state"),
    ("core", "__future__.annotations", "it switches the shape checker off"),
    ("viz", "__future__.annotations", "it switches the shape checker off"),
    ("tests.oracles", "reformer_core reformer_viz", "an oracle shares nothing with what it checks"),
]

SHORT = {"core": "reformer_core", "viz": "reformer_viz"}


def full(name: str) -> str:
    """Spell out `core.hashing` as `reformer_core.hashing`."""
    package, _, rest = name.partition(".")
    return SHORT.get(package, package) + ("." + rest if rest else "")


COLUMN = {
    full(topic): column
    for column, line in enumerate(ARROWS.strip().splitlines())
    for topic in line.split()
}


def covers(name: str, module: str) -> bool:
    return module == name or module.startswith(name + ".")


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Yield the dotted name and the syntax tree of every file that the rules speak about."""
    files = [f for package in SHORT.values() for f in (root / package).rglob("*.py")]
    files += [f for f in [root / "tests" / "oracles.py"] if f.exists()]
    for file in sorted(files):
        yield ".".join(file.relative_to(root).with_suffix("").parts), ast.parse(file.read_text())


def imported(module: str, tree: ast.Module) -> set[str]:
    """Collect the dotted names that a module imports, anywhere in it and in whatever way."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                start = module.split(".")[: -node.level] if node.level else []
                source = ".".join(start + ([node.module] if node.module else []))
                names |= {f"{source}.{alias.name}" for alias in node.names}
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if "import" in ast.dump(
                node.func
            ):
                names.add(name)
            case ast.Attribute(attr="pyplot"):
                names.add("matplotlib.pyplot")
    return names


def topic_of(name: str) -> str | None:
    """Return the topic on the arrows that a dotted name belongs to, or None."""
    return next((topic for topic in COLUMN if covers(topic, name)), None)


def source_of(name: str) -> str | None:
    """Return the topic that an import takes a name from: the package itself, if no topic of it."""
    package = name.partition(".")[0]
    return topic_of(name) or (f"{package}.__init__" if package in SHORT.values() else None)


def wrong_arrows(root: Path) -> Iterator[str]:
    """Say of every module which of its imports do not come from its left."""
    for module, tree in modules(root):
        own = topic_of(module)
        if own is None and module.startswith("reformer"):
            yield f"{module} has no place on the arrows: give its topic one"
        if own is None:
            continue
        for name in imported(module, tree):
            theirs = source_of(name)
            if theirs not in (None, own) and COLUMN[theirs] >= COLUMN[own]:
                yield f"{module} imports {name}, which is not on its left"


def forbidden_imports(root: Path) -> Iterator[str]:
    """Say of every module which of its imports break a rule of NEVER, and why there is one."""
    for module, tree in modules(root):
        names = imported(module, tree)
        for who, never, why in NEVER:
            for name in names if covers(full(who), module) else ():
                if any(covers(taboo, name) for taboo in never.split()):
                    yield f"{module} imports {name}, but {why}"


def undocumented(root: Path) -> Iterator[str]:
    """Name every module, and every public function and class in it, that has no docstring."""
    for module, tree in modules(root):
        if tree.body and not ast.get_docstring(tree):
            yield f"{module} does not say its idea in its first line"
        for node in tree.body:
            is_named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_named and not node.name.startswith("_") and not ast.get_docstring(node):
                yield f"{module}.{node.name} has no docstring"


def listed(complaints: Iterable[str]) -> str:
    return "\n".join(sorted(set(complaints)))


def test_a_module_imports_only_from_its_left():
    assert listed(wrong_arrows(ROOT)) == ""


def test_no_module_imports_what_its_layer_must_not_know():
    assert listed(forbidden_imports(ROOT)) == ""


def test_every_module_and_every_public_name_is_documented():
    assert listed(undocumented(ROOT)) == ""


def test_every_source_file_is_looked_at():
    looked_at = {module for module, _ in modules(ROOT)}
    assert {"reformer_core.hashing", "reformer_core.attention.dense", "tests.oracles"} <= looked_at
    assert len(looked_at) == 1 + sum(len(list((ROOT / p).rglob("*.py"))) for p in SHORT.values())


# ------------------------------------------------- the checks can fail: one broken tree per rule

ALLOWED = [
    ("reformer_core/layers.py", "from reformer_core.attention import lsh_attention"),
    ("reformer_core/models.py", "from reformer_core.config import ReformerConfig"),
    ("reformer_core/attention/chunked.py", "from .dense import keys_from"),
    ("reformer_core/__init__.py", "from reformer_core.models import ReformerLM"),
    ("reformer_viz/measure/recall.py", "import torch\nfrom reformer_core import hash_vectors"),
    ("reformer_viz/figures/recall.py", "from reformer_viz.measure.recall import Recall"),
    ("reformer_viz/figures/recall.py", "from matplotlib.figure import Figure"),
    ("reformer_viz/figures/recall.py", "from reformer_viz import style"),
    ("reformer_viz/widgets/recall.py", "from reformer_viz.figures.recall import plot_recall"),
    ("tests/oracles.py", "import numpy"),
]

BROKEN = [
    ("reformer_core/hashing.py", "from reformer_core.bucketing import BucketPlan", "on its left"),
    ("reformer_core/bucketing.py", "from reformer_core import layers", "on its left"),
    ("reformer_core/layers.py", "from .models import ReformerLM", "on its left"),
    ("reformer_core/attention/dense.py", "from .. import local", "on its left"),
    ("reformer_core/models.py", "def f():\n    import reformer_core.training", "on its left"),
    ("reformer_core/training.py", "import reformer_core", "on its left"),
    ("reformer_viz/measure/recall.py", "import reformer_viz.figures.recall", "on its left"),
    ("reformer_viz/figures/recall.py", "from reformer_viz import widgets", "on its left"),
    ("reformer_core/brand_new.py", "", "no place on the arrows"),
    ("reformer_core/training.py", "import reformer_viz.style", "draws nothing"),
    ("reformer_core/training.py", "from matplotlib import figure", "draws nothing"),
    ("reformer_core/layers.py", "from reformer_core.config import X", "config stops at models"),
    ("reformer_core/attention/dense.py", "from ..config import X", "config stops at models"),
    ("reformer_viz/measure/recall.py", "import plotly.graph_objects as go", "numbers only"),
    ("reformer_viz/figures/recall.py", "import torch.nn", "from a measurement alone"),
    ("reformer_viz/figures/recall.py", "from reformer_core import ReformerLM", "measurement alone"),
    ("reformer_viz/figures/recall.py", "import_module('torch')", "from a measurement alone"),
    ("reformer_viz/figures/recall.py", "import ipywidgets as w", "no controls"),
    ("reformer_viz/style.py", "import torch", "looks only"),
    ("reformer_viz/widgets/panel.py", "import matplotlib.pyplot as plt", "global state"),
    ("reformer_viz/widgets/panel.py", "import matplotlib\nmatplotlib.pyplot.plot()", "global"),
    ("reformer_core/layers.py", "from __future__ import annotations", "shape checker off"),
    ("tests/oracles.py", "from reformer_core.hashing import hash_vectors", "shares nothing"),
]


def complaints(root: Path) -> str:
    return listed([*wrong_arrows(root), *forbidden_imports(root)])


def tree_with(root: Path, file: str, source: str) -> Path:
    path = root / file
    path.parent.mkdir(parents=True)
    path.write_text(source + "\n")
    return root


@pytest.mark.parametrize(("file", "source"), ALLOWED)
def test_imports_from_the_left_are_allowed(tmp_path, file, source):
    assert not complaints(tree_with(tmp_path, file, source))


@pytest.mark.parametrize(("file", "source", "complaint"), BROKEN)
def test_a_broken_rule_is_found_and_named(tmp_path, file, source, complaint):
    assert complaint in complaints(tree_with(tmp_path, file, source))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1", "first line"),
        ('"""Idea."""\ndef f(): ...', "hashing.f has no docstring"),
        ('"""Idea."""\nclass C: ...', "hashing.C has no docstring"),
    ],
)
def test_a_missing_docstring_is_found(tmp_path, source, complaint):
    assert complaint in listed(
        undocumented(tree_with(tmp_path, "reformer_core/hashing.py", source))
    )


def test_private_names_and_empty_modules_need_no_docstring(tmp_path):
    tree_with(tmp_path, "reformer_core/__init__.py", "")
    (tmp_path / "reformer_core" / "hashing.py").write_text('"""Idea."""\ndef _f(): ...\n')
    assert not list(undocumented(tmp_path))


def test_shapes_are_checked_in_this_very_run():
    import torch
    from jaxtyping import TypeCheckError

    from reformer_core.attention.dense import keys_from

    with pytest.raises(TypeCheckError, match="batch"):
        keys_from(torch.zeros(3))
