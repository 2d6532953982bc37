"""Draw every picture on two contact sheets, to be looked at: `make sheet`.

`python -m tools.contact_sheet FOLDER` also keeps every picture there as a file of its own.
"""

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from reformer_viz.figures.still import draw_still
from tools.gallery import Gallery

DOCS = Path(__file__).resolve().parents[1] / "docs"
STEPS = 300
WIDTH, COLUMNS = 1560, 3  # of a sheet, in pixels
COLOURS = 128  # of a sheet's file
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
READY = "() => document.querySelector('.rx-root [role=status]')?.innerText"
LIVE = "() => document.querySelector('.rx-chart .main-svg') || !document.querySelector('.rx-chart')"
STYLE = """
body{margin:16px;font:15px system-ui,sans-serif;columns:%d;column-gap:14px;background:#eceff2}
figure{margin:0 0 14px;break-inside:avoid}
img{width:100%%;display:block;background:#fff}
figcaption{padding:3px 0;color:#1f2328}
"""


def draw_all(folder: Path) -> None:
    """Draw every picture into the folder, and docs/contact_sheet_*.png of them."""
    gallery = Gallery(STEPS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        for name, pictures in (
            ("figures", draw_figures(gallery, folder)),
            ("explorers", photograph(gallery, folder, browser)),
        ):
            sheet = DOCS / f"contact_sheet_{name}.png"
            save_sheet(sheet, arrange(browser, dict(pictures), folder / f"{name}.html"))
            print(sheet, f"{sheet.stat().st_size:,} bytes")
        browser.close()


def draw_figures(gallery: Gallery, folder: Path) -> Iterator[tuple[str, Path]]:
    """Draw what Matplotlib draws, and Plotly's figures as still pictures."""
    for name, figure in gallery.figures().items():
        path = folder / f"{_file_name(name)}.png"
        figure().savefig(path, dpi=110)
        yield name, path
    for name, chart in gallery.charts().items():
        path = folder / f"{_file_name(name)}.svg"
        path.write_text(draw_still(chart()), "utf-8")
        yield f"{name}, still", path


def photograph(gallery: Gallery, folder: Path, browser: Browser) -> Iterator[tuple[str, Path]]:
    """Open every explorer's exported page, on a light and on a dark page."""
    for name, explorer in gallery.explorers().items():
        page = explorer().save_html(folder / f"{_file_name(name)}.html")
        for scheme in ("light", "dark"):
            path = page.with_name(f"{page.stem}_{scheme}.png")
            path.write_bytes(_photograph(browser, page, color_scheme=scheme))
            yield f"{name}, {scheme}", path


def _photograph(browser: Browser, page: Path, width: int = 800, **options: Any) -> bytes:
    view = browser.new_page(
        viewport={"width": width, "height": 600}, reduced_motion="reduce", **options
    )
    view.goto(page.as_uri())
    if "color_scheme" in options:
        view.wait_for_function(READY)
        view.wait_for_function(LIVE)
        view.wait_for_timeout(300)  # until Plotly has drawn its text
    picture = view.screenshot(full_page=True)
    view.close()
    return picture


def arrange(browser: Browser, pictures: dict[str, Path], page: Path) -> bytes:
    """Put pictures with their names into columns, and photograph that."""
    figures = "".join(
        f'<figure><img src="{path.name}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, path in pictures.items()
    )
    page.write_text(f"<!doctype html><style>{STYLE % COLUMNS}</style>{figures}", "utf-8")
    return _photograph(browser, page, WIDTH)


def save_sheet(path: Path, picture: bytes) -> None:
    """Write a sheet with few colours, in a small file."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def _file_name(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


def find_browser() -> str:
    """Return the path of a browser, or end and say what is missing."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit(f"needs a browser: install one of {', '.join(BROWSERS)}")
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        kept = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        kept.mkdir(parents=True, exist_ok=True)
        draw_all(kept)
