"""Let an environment use the torch that the chosen Python has, instead of installing another.

Run as `PYTHON tools/keep_torch.py ENVIRONMENT [PINS]`, before pip, as often as one likes. If that
Python imports a torch which is new enough, then afterwards the environment imports the same one,
pip takes it for installed and can neither replace nor remove it. ENVIRONMENT/constraints.txt is
what pip is to obey: the project's constraints, where torch is the kept one and exact versions in
the file PINS stand in place of the project's.

`venv --system-site-packages` would not do. It shows nothing of a Python that lives in an
environment itself, and it shows pip everything else: a JupyterLab found there is not installed
again, and then misses its own files.
"""

import re
import sys
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def numbers(version: str) -> tuple[int, int]:
    """Return a version's first two numbers, which is all that a floor needs."""
    major, minor = re.match(r"(\d+)\.(\d+)", version).groups()
    return int(major), int(minor)


def site_of(environment: Path) -> Path:
    """Return where an environment of this Python keeps its packages."""
    variables = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", "venv", variables))


def torch_to_keep(environment: Path):
    """Return this Python's torch, or None: it has none, or an old one, or ENVIRONMENT has one."""
    try:
        import torch
    except Exception as error:  # a broken installation raises OSError, or anything else
        print(f"{sys.executable} has no torch to keep ({error})")
        return None
    if (site_of(environment) / "torch").exists():
        return None
    floor = re.search(r"torch>=([\d.]+)", (PROJECT / "requirements.txt").read_text())[1]
    if numbers(torch.__version__) < numbers(floor):
        print(f"{sys.executable} has torch {torch.__version__}, older than {floor}: not kept")
        return None
    return torch


def places_of(torch, environment: Path) -> list[str]:
    """List where torch and what it needs lie: beside it, or elsewhere on this Python's path."""
    home = Path(torch.__file__).resolve().parents[1]
    path = [Path(place).resolve() for place in sys.path if place.endswith("-packages")]
    return [str(p) for p in dict.fromkeys([home, *path]) if environment not in p.parents]


def keep(torch, environment: Path) -> None:
    """Put torch on the environment's path, last, and its name among what pip finds installed.

    pip sees the name but not the path, and so makes the rest of the environment complete.
    """
    site = site_of(environment)
    for stale in site.glob("torch-*.dist-info/METADATA"):
        stale.unlink()
        stale.parent.rmdir()
    metadata = site / f"torch-{torch.__version__}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {torch.__version__}\n")
    (site / "kept_torch.pth").write_text(
        "import sys; any(w.endswith(('pip', '__pip-runner__.py')) for w in sys.orig_argv[1:3])"
        f" or sys.path.extend({places_of(torch, environment)!r})\n"
    )


def pinned(constraints: str, pins: str) -> str:
    """Return the constraints with the exact versions of `pins` in place of their own."""
    for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", pins):
        spelled = re.sub(r"[-_.]+", "[-_.]+", name)
        constraints = re.sub(rf"(?mi)^({spelled})==.*", rf"\g<1>=={version}", constraints)
    return constraints


def main(environment: Path, *pins: str) -> None:
    """Keep a torch where there is one, and write the constraints that go with it."""
    constraints = (PROJECT / "constraints.txt").read_text()
    for file in pins:
        constraints = pinned(constraints, Path(file).read_text())
    torch = torch_to_keep(environment)
    if torch is not None:
        print(f"keeping torch {torch.__version__}, {Path(torch.__file__).parent}")
        keep(torch, environment)
        constraints = re.sub(r"(?m)^torch==.*", f"torch=={torch.__version__}", constraints)
    (environment / "constraints.txt").write_text(constraints)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *sys.argv[2:])
