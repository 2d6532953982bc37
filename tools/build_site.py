"""Make the site: every lesson as a page with living explorers, an index, and the API's reference.

    python tools/build_site.py FOLDER

The pages are the stored notebooks: nothing is run. They hold all they need, so that they open from
disk and ask nobody for anything: equations become MathML, and no script comes from elsewhere.
"""

import base64
import html
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pdoc
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("reformer_core", "reformer_core.tasks", "reformer_viz", "reformer_viz.lessons")
STYLE = (Path(__file__).parent / "site.css").read_text(encoding="utf-8")

# Code is left alone: a fenced block, or a span between backticks.
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_MATH = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$]+?)\$", re.DOTALL)
_STORED_SVG = re.compile(r'<img[^>]+src="data:image/svg\+xml(;base64)?(?:;[^,]*)?,([^"]+)"')


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A stored notebook, and what the index says of it."""

    name: str
    notebook: nbformat.NotebookNode

    @property
    def title(self) -> str:
        """Return the first heading."""
        return re.search(r"^# (.+)$", self.notebook.cells[0].source, re.MULTILINE)[1]

    @property
    def summary(self) -> str:
        """Return the first paragraph that is neither the title nor the link to Colab."""
        paragraphs = self.notebook.cells[0].source.split("\n\n")
        return next(text for text in paragraphs if not text.startswith(("#", "[Open in Colab]")))


def main(folder: str) -> None:
    """Write the site into a folder."""
    site = Path(folder)
    (site / "thumbnails").mkdir(parents=True, exist_ok=True)
    lessons = [read_lesson(path) for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    for place, lesson in enumerate(lessons):
        around = lessons[place - 1 : place] + lessons[place + 1 : place + 2]
        (site / f"{lesson.name}.html").write_text(lesson_page(lesson, around), encoding="utf-8")
    (site / "index.html").write_text(index_page(lessons, site), encoding="utf-8")
    for document in sorted((ROOT / "docs").glob("*.md")):
        text = document.read_text(encoding="utf-8")
        body = f"<main>{to_pages(markdown2html(with_mathml(text)))}</main>"
        (site / f"{document.stem}.html").write_text(page(document.stem, body), encoding="utf-8")
    write_reference(site / "api")
    print(f"{len(lessons)} lessons and the reference: open {site / 'index.html'}")


def read_lesson(path: Path) -> Lesson:
    """Read a stored notebook."""
    return Lesson(name=path.stem, notebook=nbformat.read(path, as_version=4))


# ------------------------------------------------------------------------------- a lesson


def lesson_page(lesson: Lesson, around: list[Lesson]) -> str:
    """Turn a notebook into a page, with links to the lessons around it."""
    notebook = nbformat.from_dict(lesson.notebook)
    notebook.cells = [cell for cell in notebook.cells if "setup" not in tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    body, _ = exporter.from_notebook_node(notebook)
    links = [f'<a href="{other.name}.html">{html.escape(other.title)}</a>' for other in around]
    nav = " · ".join(['<a href="index.html">All lessons</a>', *links])
    return page(lesson.title, f"<nav>{nav}</nav><main>{to_pages(body)}</main><nav>{nav}</nav>")


def tags(cell: nbformat.NotebookNode) -> set[str]:
    """Return a cell's tags."""
    return set(cell.metadata.get("tags", []))


def with_mathml(text: str) -> str:
    """Replace a text's equations by MathML, which browsers draw by themselves."""
    parts = _CODE.split(text)
    return "".join(part if odd else _MATH.sub(_mathml, part) for part, odd in alternating(parts))


def alternating(parts: list[str]) -> Iterator[tuple[str, int]]:
    """Number parts 0, 1, 0, 1: the odd ones are what a text was split at."""
    return ((part, place % 2) for place, part in enumerate(parts))


def _mathml(match: re.Match) -> str:
    display = "block" if match["block"] else "inline"
    equation = convert(" ".join((match["block"] or match["inline"]).split()), display=display)
    # Markdown would read these as emphasis.
    return equation.replace("*", "&#42;").replace("_", "&#95;")


def to_pages(body: str) -> str:
    """Let links to notebooks and documents lead to their pages, which all stand in one folder."""
    link = r'(href=")(?:\.\./(?:docs|notebooks)/)?([\w-]+)\.(?:ipynb|md)\b'
    return re.sub(link, r"\1\2.html", body)


def page(title: str, body: str) -> str:
    """Put a body into a whole page."""
    highlighted = HtmlFormatter(style="default").get_style_defs(".highlight")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{highlighted}\n{STYLE}</style></head>"
        f"<body>{body}</body></html>"
    )


# ------------------------------------------------------------------------------- the index


def index_page(lessons: list[Lesson], site: Path) -> str:
    """List the lessons, each with its first picture."""
    cards = []
    for lesson in lessons:
        picture = write_thumbnail(lesson, site / "thumbnails")
        image = f'<img src="thumbnails/{picture}" alt="">' if picture else ""
        cards.append(
            f'<a class="card" href="{lesson.name}.html">{image}<strong>{html.escape(lesson.title)}'
            f"</strong><span>{html.escape(plain(lesson.summary))}</span></a>"
        )
    body = (
        "<main><h1>The Reformer, by moving it</h1><p>Lessons with pictures that move, also without "
        "Python. To run them, see the project's README. Beside them: the "
        '<a href="glossary.html">glossary</a>, a page <a href="teaching.html">for teachers</a>, '
        'and the code\'s <a href="api/index.html">reference</a>, made from its docstrings.</p>'
        f"<div class=cards>{''.join(cards)}</div></main>"
    )
    return page("The Reformer, by moving it", body)


def plain(text: str) -> str:
    """Take the marks out of a paragraph."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    return " ".join(re.sub(r"[*`$]", "", text).split())


def write_thumbnail(lesson: Lesson, folder: Path) -> str | None:
    """Write a lesson's first picture into a file and return its name."""
    for cell in lesson.notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                name, content = f"{lesson.name}.png", base64.b64decode(data["image/png"])
            elif stored := _STORED_SVG.search(data.get("text/html", "")):
                name = f"{lesson.name}.svg"
                text = html.unescape(stored[2])
                content = base64.b64decode(text) if stored[1] else unquote(text).encode()
            else:
                continue
            (folder / name).write_bytes(content)
            return name
    return None


# --------------------------------------------------------------------------- the reference


def write_reference(folder: Path) -> None:
    """Write the API's reference, made from the docstrings."""
    pdoc.render.configure(docformat="markdown", show_source=True, search=True)
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
