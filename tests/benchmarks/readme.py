"""Write the README's section on speed, and draw its figures, from the results: `make pictures`."""

import re
from pathlib import Path

from reformer_viz import plot_speed
from reformer_viz.measure.speed import read_speed
from tests.benchmarks.record import LOCAL, RESULTS
from tests.benchmarks.tables import summary

ROOT = Path(__file__).resolve().parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"
_MARKED = re.compile(r"(<!-- speed: made by `make pictures` -->\n).*?(<!-- end of speed -->)", re.S)


def results() -> list[Path]:
    """List the files of results that the README shows."""
    return sorted(path for path in RESULTS.glob("*.json") if path.stem != LOCAL)


def figure_of(path: Path) -> Path:
    """Return where the figure of a file of results belongs."""
    return DOCS / f"speed_{path.stem}.png"


def section() -> str:
    """Return what stands between the README's two comments."""
    parts = []
    for path in results():
        picture = figure_of(path).relative_to(ROOT).as_posix()
        parts += [summary(path), f"![Time and extra memory against length]({picture})"]
    return "\n\n".join(parts)


def with_section(readme: str) -> str:
    """Return the README with its section made anew."""
    if not _MARKED.search(readme):
        raise ValueError("README.md must have the two comments that the speed's section is between")
    return _MARKED.sub(lambda found: f"{found[1]}\n{section()}\n\n{found[2]}", readme)


def main() -> None:
    """Write the section and the figures."""
    README.write_text(with_section(README.read_text()))
    for path in results():
        plot_speed(read_speed(path)).savefig(figure_of(path), dpi=110)
        print(figure_of(path).relative_to(ROOT))


if __name__ == "__main__":
    main()
