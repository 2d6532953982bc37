"""A chart in an explorer's page: a still picture, and one live figure where there is a kernel."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ipywidgets import Widget

from reformer_viz import style
from reformer_viz.figures.still import draw_still
from reformer_viz.figures.table import rows_of

CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,
    "responsive": True,
    "plotGlPixelRatio": 1,
}
"""Nothing leaves the machine: Plotly's button that uploads the chart is off.

What WebGL draws has the pixels of the page, not four for each: without a GPU they take long.
"""

_RANGE = re.compile(r"([xy]axis\d*)\.range$")


class Chart:
    """The chart of a panel, as a still picture and as a live figure, which is made when asked for.

    Live, one figure follows the controls: only what differs is changed, in one batch, so that zoom,
    camera and focus stay and nothing flickers.
    """

    def __init__(self):
        self.dark = False
        self._live: Any = None
        self._first: Any = None
        self._figure: Any = None

    def show(self, figure: Any) -> None:
        """Show another figure."""
        figure.layout.uirevision = "kept"  # zoom and camera are the reader's
        if figure.layout.template != style.plotly_template(self.dark):  # setting it takes a while
            figure.layout.template = style.plotly_template(self.dark)
        if self._live is not None:
            _change(self._live, self._first, self._figure, figure)
        self._figure = figure

    def follow_theme(self, dark: bool) -> None:
        """Colour text and grid for a light or a dark page."""
        self.dark = dark
        if self._figure is not None:
            self.show(type(self._figure)(self._figure))

    def ship(self, sentence: str) -> dict:
        """Return what the page needs beside its picture: the sentence and the table."""
        return {"sentence": sentence, "rows": rows_of(self._figure)}

    def picture(self) -> str:
        """Return the still picture."""
        return draw_still(self._figure)

    def live(self) -> Widget | None:
        """Return the live figure, always the same one; None where Plotly cannot make one."""
        import plotly.graph_objects as go  # slow to import, and a picture may never come to live

        if self._live is None and self._figure is not None:
            try:
                self._live, self._first = go.FigureWidget(self._figure), self._figure
            except ImportError:  # Plotly's extra needs are not installed
                return None
            if self._live.has_trait("_config"):  # of Plotly 6 and later
                self._live._config = CONFIG
        return self._live

    def close(self) -> None:
        """Cut the live figure from its page."""
        if self._live is not None:
            self._live.close()

    def exported(self) -> dict:
        """Return what draws the chart in a page that has plotly.js, in both themes."""
        import plotly.io  # as slow as above

        figure = type(self._figure)(self._figure)
        figure.layout.template = None
        templates = [style.plotly_template(dark).to_plotly_json() for dark in (False, True)]
        return {
            "chart": plotly.io.to_json(figure, validate=False),
            "templates": templates,
            "config": CONFIG,
        }


def _change(live: Any, first: Any, old: Any, new: Any) -> None:
    """Make a live figure, which showed the first one and shows the old one, show the new one."""
    common = _common_traces(old, new)
    kept, left = _zooms(
        *(dict(_leaves(figure.layout.to_plotly_json())) for figure in (live, first, old, new))
    )
    if len(old.data) > common:
        live.data = live.data[:common]
    with live.batch_update():
        for shown, before, after in zip(
            live.data[:common], old.data[:common], new.data[:common], strict=True
        ):
            _set(shown, before.to_plotly_json(), after.to_plotly_json())
        _set(live.layout, old.layout.to_plotly_json(), new.layout.to_plotly_json(), kept)
        for axis in left:
            range = new.layout[axis].range
            live.layout[axis].update(range=range, autorange=True if range is None else None)
    if len(new.data) > common:
        live.add_traces(new.data[common:])


def _common_traces(old: Any, new: Any) -> int:
    """Count the traces at the start that can be changed into each other."""
    for place, (before, after) in enumerate(zip(old.data, new.data, strict=False)):
        if before.type != after.type:
            return place
    return min(len(old.data), len(new.data))


def _zooms(shown: Mapping, first: Mapping, old: Mapping, new: Mapping) -> tuple[set, set]:
    """Name the ranges that the reader chose and keeps, and the axes where something else comes.

    The reader chose what neither the old figure says nor the first one, to which a double click
    leads back. Something else comes where an axis gets another title.
    """
    kept, left = set(), set()
    for axis in filter(None, map(_RANGE.match, shown)):
        path, title = axis[0], f"{axis[1]}.title.text"
        if not any(_same_range(shown[path], known.get(path)) for known in (first, old)):
            same = old.get(title) == new.get(title) and (path in old) == (path in new)
            (kept if same else left).add(path if same else axis[1])
    return kept, left


def _same_range(one: Sequence | None, other: Sequence | None) -> bool:
    return one is None or (other is not None and list(one) == list(other))


def _set(shown: Any, before: Mapping, after: Mapping, kept: Collection[str] = ()) -> None:
    """Set what differs, and take away what is no longer there, but for what is kept."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for path in {**old, **new}:
        if path in kept:
            continue
        if path not in old or path not in new or not _same(old[path], new[path]):
            shown[path] = new.get(path)


def _leaves(properties: Mapping, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in properties.items():
        if isinstance(value, dict) and name != "template":
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        one, other = np.asarray(one), np.asarray(other)
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and one.tolist() == other.tolist()
    return one == other
