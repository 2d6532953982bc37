"""Write what the README says about speed, and draw its figures, from results: `make pictures`."""

import re
from pathlib import Path

from reformer_viz import plot_speed
from reformer_viz.measure.speed import read_speed
from tests.benchmarks import views_table
from tests.benchmarks.record import LOCAL, RESULTS, VIEWS
from tests.benchmarks.tables import summary

ROOT = Path(__file__).resolve().parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"


def results() -> list[Path]:
    """List the files of results that the README shows."""
    return sorted(path for path in RESULTS.glob("*.json") if path.stem not in (LOCAL, VIEWS))


def figure_of(path: Path) -> Path:
    """Return where the figure of a file of results belongs."""
    return DOCS / f"speed_{path.stem}.png"


def section() -> str:
    """Return what stands between the README's two comments on speed."""
    parts = []
    for path in results():
        picture = figure_of(path).relative_to(ROOT).as_posix()
        parts += [summary(path), f"![Time and extra memory against length]({picture})"]
    return "\n\n".join(parts)


def explorers_section() -> str:
    """Return what stands between the README's two comments on explorers."""
    return views_table.section(RESULTS / f"{VIEWS}.json")


def with_section(readme: str, name: str = "speed", words: str | None = None) -> str:
    """Return the README with one of its sections made anew."""
    start, end = f"<!-- {name}: made by `make pictures` -->\n", f"<!-- end of {name} -->"
    marked = re.compile(f"({re.escape(start)}).*?({re.escape(end)})", re.S)
    if not marked.search(readme):
        raise ValueError(
            f"README.md must have the two comments that the section on {name} is between"
        )
    words = section() if words is None else words
    return marked.sub(lambda found: f"{found[1]}\n{words}\n\n{found[2]}", readme)


def main() -> None:
    """Write the sections and the figures."""
    text = with_section(README.read_text(), "speed", section())
    README.write_text(with_section(text, "explorers", explorers_section()))
    for path in results():
        plot_speed(read_speed(path)).savefig(figure_of(path), dpi=110)
        print(figure_of(path).relative_to(ROOT))


if __name__ == "__main__":
    main()
