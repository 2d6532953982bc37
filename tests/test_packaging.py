"""The ground under the project: its requirements, its exact versions, and a torch that is kept."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED_FOR = ["jupyterlab", "torch", "matplotlib", "plotly", "ipywidgets", "jupytext", "nbval"]


def lines_of(file: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


OWN = [Requirement(line) for line in PROJECT["dependencies"]]
FOR_NOTEBOOKS = [Requirement(line) for line in lines_of("requirements.txt")]
FOR_TESTS = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"]]
ALL = {f"{r.name} {r.specifier}": r for r in [*OWN, *FOR_NOTEBOOKS, *FOR_TESTS]}
PINS = dict(line.split("==") for line in lines_of("constraints.txt"))
COLABS_OWN = dict(
    line.split("==") for line in lines_of("tests/colab/requirements.txt") if "==" in line
)
# What Colab has in its kernel before a lesson runs (August 2026). A range that refused one of these
# would replace it, and the reader would have to restart the runtime.
COLAB = {
    **COLABS_OWN,
    "torch": "2.11.0",
    "einops": "0.8.2",
    "jupytext": "1.19.5",
    "pytest": "8.4.2",
}


@pytest.mark.parametrize("requirement", ALL.values(), ids=ALL)
def test_the_tested_version_lies_in_every_range(requirement):
    assert requirement.specifier.contains(PINS[requirement.name])


@pytest.mark.parametrize("requirement", ALL.values(), ids=ALL)
def test_a_range_admits_what_colab_has(requirement):
    assert requirement.specifier.contains(COLAB.get(requirement.name, PINS[requirement.name]))


def test_one_requirement_has_one_range_wherever_it_stands():
    ranges = {}
    for requirement in [*OWN, *FOR_NOTEBOOKS, *FOR_TESTS]:
        ranges.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert {name: found for name, found in ranges.items() if len(found) > 1} == {}


def test_the_requirements_are_the_packages_that_were_asked_for_and_the_project_itself():
    assert [requirement.name for requirement in FOR_NOTEBOOKS] == ASKED_FOR
    assert "-e ." in (ROOT / "requirements.txt").read_text().splitlines()


def test_the_package_itself_asks_for_no_jupyterlab_and_no_test_tools():
    assert {r.name for r in OWN} & {"jupyterlab", "jupytext", "nbval", "pytest"} == set()


def test_the_tested_torch_names_no_build_so_that_any_machine_finds_it():
    assert PINS["torch"] == "2.13.0"
    assert not [pin for pin in PINS.values() if "+" in pin]


def test_what_the_tests_on_colabs_versions_install_is_exact_here_or_in_the_constraints():
    asked = [Requirement(line) for line in lines_of("tests/colab/requirements.txt")]
    loose = {requirement.name for requirement in asked if not requirement.specifier}
    assert loose <= set(PINS)
    assert {f"{name}=={version}" for name, version in COLABS_OWN.items()} == {
        str(requirement) for requirement in asked if requirement.specifier
    }


# ------------------------------------------------------- a torch that the chosen Python has


def python_of(environment: Path) -> Path:
    return environment / ("Scripts" if os.name == "nt" else "bin") / "python"


def run(*command) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def ask(environment: Path, code: str) -> str:
    return run(python_of(environment), "-c", code).strip()


def site_of(environment: Path) -> Path:
    return Path(ask(environment, "import sysconfig; print(sysconfig.get_path('purelib'))"))


def pip(environment: Path, *arguments) -> str:
    """Run this environment's pip for another one, asking no registry."""
    options = ["--disable-pip-version-check", "--python", python_of(environment)]
    return run(sys.executable, "-m", "pip", *options, *arguments)


def new_environment(path: Path, python: Path | str = sys.executable) -> Path:
    run(python, "-m", "venv", "--without-pip", path)
    return path


def install_fake(environment: Path, name: str, version: str) -> None:
    """Put a package of one line, and what pip would note about it, into an environment."""
    site = site_of(environment)
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(f"__version__ = {version!r}\n")
    metadata = site / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def keep_torch(chosen: Path, environment: Path, *pins: Path) -> str:
    return run(python_of(chosen), ROOT / "tools" / "keep_torch.py", environment, *pins)


@pytest.fixture
def chosen(tmp_path) -> Path:
    """Make the Python that a person chose: itself an environment, with a torch and a JupyterLab."""
    environment = new_environment(tmp_path / "chosen")
    install_fake(environment, "torch", "2.9.0+theirs")
    install_fake(environment, "jupyterlab", PINS["jupyterlab"])
    return environment


@pytest.fixture
def made(tmp_path, chosen) -> Path:
    """Make the project's environment with the chosen Python, empty so far."""
    return new_environment(tmp_path / "made", python_of(chosen))


def torch_line(environment: Path) -> list[str]:
    return re.findall(r"(?m)^torch==.*", (environment / "constraints.txt").read_text())


def test_a_torch_of_the_chosen_python_is_kept(chosen, made):
    assert "keeping torch 2.9.0+theirs" in keep_torch(chosen, made)
    assert Path(ask(made, "import torch; print(torch.__file__)")).is_relative_to(chosen)
    assert torch_line(made) == ["torch==2.9.0+theirs"]


def test_pip_takes_the_kept_torch_for_installed_and_sees_nothing_else_of_the_chosen_python(
    chosen, made
):
    keep_torch(chosen, made)
    constraint = ("-c", made / "constraints.txt")
    assert "already satisfied" in pip(made, "install", "--no-index", *constraint, "torch>=2.6")
    assert [line.split()[0] for line in pip(made, "list").splitlines()[2:]] == ["torch"]


def test_a_pip_of_the_environments_own_does_not_see_the_chosen_python_either(chosen, made):
    keep_torch(chosen, made)
    install_fake(made, "pip", "26.0")
    (site_of(made) / "pip" / "__main__.py").write_text("import sys; print(sys.path)\n")
    assert str(chosen) not in run(python_of(made), "-m", "pip", "install", "torch")
    assert str(chosen) in ask(made, "import sys; print(sys.path)")


def test_keeping_twice_is_keeping_once_whichever_of_the_two_pythons_asks(chosen, made):
    keep_torch(chosen, made)
    once = {file: file.read_bytes() for file in made.rglob("*torch*") if file.is_file()}
    for python in (chosen, made):
        keep_torch(python, made)
        assert torch_line(made) == ["torch==2.9.0+theirs"]
        assert {f: f.read_bytes() for f in made.rglob("*torch*") if f.is_file()} == once


def test_a_newer_torch_of_the_chosen_python_takes_the_place_of_the_kept_one(chosen, made):
    keep_torch(chosen, made)
    (site_of(chosen) / "torch" / "__init__.py").write_text("__version__ = '2.10.1'\n")
    keep_torch(chosen, made)
    assert ask(made, "from importlib.metadata import version; print(version('torch'))") == "2.10.1"
    assert torch_line(made) == ["torch==2.10.1"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("__version__ = '2.5.1'", "older than 2.6: not kept"),
        ("raise OSError('libcudart.so not found')", "has no torch to keep"),
    ],
)
def test_an_old_or_broken_torch_is_not_kept(chosen, made, source, reason):
    (site_of(chosen) / "torch" / "__init__.py").write_text(source + "\n")
    assert reason in keep_torch(chosen, made)
    assert torch_line(made) == ["torch==" + PINS["torch"]]
    assert not list(site_of(made).glob("*torch*"))


def test_an_environment_with_its_own_torch_stays_as_it_is(chosen, made):
    install_fake(made, "torch", PINS["torch"])
    keep_torch(chosen, made)
    assert Path(ask(made, "import torch; print(torch.__file__)")).is_relative_to(made)
    assert torch_line(made) == ["torch==" + PINS["torch"]]


def test_other_exact_versions_stand_in_place_of_the_projects_and_the_kept_torch_stays(
    chosen, made, tmp_path
):
    pins = tmp_path / "pins.txt"
    pins.write_text("-e .\n# older\nIPython==7.34.0\njupyterlab-widgets==3.0.16\nbackcall==0.2.0\n")
    keep_torch(chosen, made, pins)
    lines = set((made / "constraints.txt").read_text().splitlines())
    wanted = {"ipython": "7.34.0", "jupyterlab_widgets": "3.0.16", "torch": "2.9.0+theirs"}
    assert lines - set((ROOT / "constraints.txt").read_text().splitlines()) == {
        f"{name}=={version}" for name, version in wanted.items()
    }
    assert not any(line.startswith(f"{name}=={PINS[name]}") for line in lines for name in wanted)


# --------------------------------------------------------- what a machine cannot run, it says

STRANGERS = """
import pytest, warnings

@pytest.mark.browser
def test_page():
    pytest.skip("no page today")

@pytest.mark.gpu
def test_kernel():
    raise AssertionError("ran without a GPU")

def test_warning():
    warnings.warn("careful")
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Return a function that runs STRANGERS beside a copy of our conftest, and its output."""

    def run_strangers(**environment: str) -> str:
        folder = tmp_path_factory.mktemp("strangers")
        (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
        (folder / "test_strangers.py").write_text(STRANGERS)
        options = [
            "-rsf",
            "-p",
            "no:cacheprovider",
            f"--rootdir={folder}",
            f"-c{ROOT}/pyproject.toml",
        ]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, str(folder)],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    return run_strangers


def test_what_a_machine_cannot_run_is_skipped_with_its_reason(outcome):
    output = outcome(PATH="", REFORMER_REQUIRE_BROWSER="")
    assert "needs a browser, and none of chromium" in output
    assert "needs CUDA, and torch sees no such device here" in output
    assert "2 skipped" in output
    assert "1 failed" in output  # the warning


def test_a_browser_test_that_is_skipped_fails_where_a_browser_is_required(outcome):
    output = outcome(REFORMER_REQUIRE_BROWSER="1")
    assert "REFORMER_REQUIRE_BROWSER is set" in output
    assert "2 failed, 1 skipped" in output
