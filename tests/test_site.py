"""The site's index: each lesson by its own words, and a way to the pages beside the lessons."""

import html
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import build_site  # noqa: E402 - a tool, not a package

LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    (site / "thumbnails").mkdir()
    return build_site.index_page([build_site.read_lesson(path) for path in LESSONS], site)


def test_every_card_says_what_its_own_lesson_is_about(index):
    texts = [html.unescape(text) for text in re.findall(r"<span>(.*?)</span></a>", index)]
    assert len(set(texts)) == len(LESSONS)
    assert [text for text in texts if "Colab" in text or len(text) < 40] == []


def test_the_index_leads_to_every_page_of_the_documents(index):
    links = set(re.findall(r'href="([\w-]+)\.html"', index))
    assert {"glossary", "teaching", *(path.stem for path in LESSONS)} <= links
