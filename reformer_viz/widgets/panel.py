"""One display for an explorer: controls, a page that outlives its kernel, a picture, a sentence."""

import hashlib
import itertools
import json
import pathlib
import re
import sys
import threading
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote

import anywidget
import matplotlib
import traitlets
from IPython import get_ipython
from IPython.display import display
from ipywidgets import Widget
from matplotlib.figure import Figure

from reformer_viz.widgets.call import Call
from reformer_viz.widgets.chart import Chart
from reformer_viz.widgets.place import checked

_HERE = pathlib.Path(__file__).parent


@runtime_checkable
class View(Protocol):
    """How a measurement is shown, and where the reader stands in it.

    A view in which one can stand has `place`, where its reader is at first.
    """

    title: str

    def describe(self, data: Any, place: Mapping) -> str:
        """Say in words what is shown."""

    def plot(self, data: Any, place: Mapping) -> Figure:
        """Draw it for print."""


class ScriptView(View, Protocol):
    """A view that a script draws: it moves without a kernel."""

    script: str
    """A file beside this one that has `mount(root, data)`; it may import others from here."""

    def ship(self, data: Any) -> dict:
        """Return what the script needs of the measurement, as JSON."""

    def draw_svg(self, data: Any, place: Mapping) -> str:
        """Draw it for pages without scripts, the same bytes everywhere."""


class ChartView(View, Protocol):
    """A view that Plotly draws: live with a kernel, a still picture without one."""

    def plotly(self, data: Any, place: Mapping) -> Any:
        """Return the chart as Plotly's `Figure`, of kinds of traces that `draw_still` draws."""


@runtime_checkable
class LateView(ScriptView, Protocol):
    """A view some of whose numbers take longer: they follow when the page has drawn the rest."""

    def ship_late(self, data: Any) -> dict:
        """Return what follows, as JSON; its `version` will say which data it belongs to."""


@runtime_checkable
class AskedView(LateView, Protocol):
    """A view whose page asks about one token what it does not store of all of them."""

    def answer(self, data: Any, token: int) -> dict:
        """Return the answer, as JSON; its `version` and `token` will say to what."""


class Link(anywidget.AnyWidget):
    """Carry data from the kernel to the page, and the reader's place back.

    What the notebook stores is plain HTML, which needs no widget. The link, which is not displayed,
    finds that HTML by its key and puts the controls into it.
    """

    _esm = _HERE / "link.js"
    key = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    place = traitlets.Dict().tag(sync=True)
    controls = traitlets.List().tag(sync=True)
    wanted = traitlets.Int(-1).tag(sync=True)
    """The version of the data for which a page waits to hear the rest."""
    late = traitlets.Dict().tag(sync=True)
    question = traitlets.Dict().tag(sync=True)
    """The token about which a page asks, and the version of the data that it shows."""
    answer = traitlets.Dict().tag(sync=True)
    asked = traitlets.Bool().tag(sync=True)
    """Whether a page wants the live chart."""
    chart = traitlets.Unicode().tag(sync=True)
    """The live chart's model, once there is one."""
    shown = traitlets.Bool().tag(sync=True)
    """Whether a page shows the live chart, so that it needs no picture."""
    dark = traitlets.Bool().tag(sync=True)
    scene = traitlets.Int(-1).tag(sync=True)
    """Where the reader of a scene list went last."""
    settled = traitlets.Int(-1).tag(sync=True)
    """The last scene that the kernel has followed to: until then the page knows better."""


class Panel:
    """An explorer: as a cell's last line it shows itself, and `repr` says what it shows.

    `data` is the measurement, or None while the controls ask for something impossible; then
    `problem` says what. `controls` are ipywidgets, by name, which code may move as well. `place` is
    where the reader stands, `state` all that leads back here, `figure` the same picture for print.

    The browser draws it. A notebook that was saved and is opened without a kernel still moves, or,
    if Plotly draws the view, shows a picture; what needs the kernel then says so. The file stores
    the state at the time of display.
    """

    def __init__(
        self,
        view: ScriptView | ChartView,
        measure: Callable[..., Any],
        controls: Mapping[str, Widget],
        place: Mapping[str, Any] | None,
        call: Call,
    ):
        self.controls = dict(controls)
        self.data: Any = None
        self.problem: str | None = None
        self._view, self._measure, self._call = view, measure, call
        self._version = 0
        self._chart = Chart() if hasattr(view, "plotly") else None
        # While a cell runs, callbacks run on a second thread.
        self._lock = threading.RLock()
        self._tickets = itertools.count()
        self._newest = next(self._tickets)
        self._holds = False  # while several controls are moved as one
        self._link: Link | None = None
        self._places = getattr(view, "place", {})
        self._misplaced: str | None = None  # what is wrong with a place that was asked for
        try:
            self._first_place = {**self._places, **checked(place or {}, self._places)}
        except ValueError as error:
            self._first_place, self._misplaced = dict(self._places), str(error)
        shipped = self._refresh()
        self._key = _keys.claim(json.dumps(shipped), self)
        self._link = Link(
            key=self._key,
            data=shipped,
            place=self._first_place,
            controls=[control.model_id for control in self.controls.values()],
        )
        for widget in (self._link, *self.controls.values()):
            _answer_while_cells_run(widget)
        self._link.observe(self._send_late, "wanted")
        self._link.observe(self._send_answer, "question")
        for control in self.controls.values():
            if control.has_trait("value"):
                control.observe(self._changed, "value")
        if self._chart is not None:
            self._link.observe(self._changed, "place")
            self._link.observe(self._make_asked, "asked")
            self._link.observe(self._themed, "dark")

    @property
    def place(self) -> dict[str, Any]:
        """Where the reader stands in the data. Assign to it, in part, to move the page."""
        return dict(self._first_place if self._link is None else self._link.place)

    @place.setter
    def place(self, place: Mapping[str, Any]) -> None:
        self._link.place = {**self._link.place, **checked(place, self._places)}
        if self._misplaced:
            self._misplaced = None
            self._changed()

    @property
    def state(self) -> dict[str, Any]:
        """What the controls say, and the reader's place. Assign to it, in part, to move both."""
        return {**self._values(), **self.place}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        unknown = [name for name in state if name not in self.state]
        if unknown:
            raise ValueError(f"a state has {', '.join(self.state)}, got {', '.join(unknown)}")
        values = {name: value for name, value in state.items() if name in self.controls}
        place = checked({name: x for name, x in state.items() if name not in values}, self._places)
        with self._lock:
            self._holds = True
            try:
                for name, value in values.items():
                    self.controls[name].value = value
                self.place = place
            finally:
                self._holds = False
            self._changed()

    @property
    def code(self) -> str:
        """The line that makes an explorer which shows the same."""
        return self._call.code(self._values(), self.place)

    @property
    def figure(self) -> Figure:
        """The picture as a Matplotlib figure. Raises ValueError while there is a `problem`."""
        with self._lock:
            if self.problem:
                raise ValueError(self.problem)
            return self._view.plot(self.data, self.place)

    @property
    def chart(self) -> Widget | None:
        """The live Plotly figure that follows the controls, if the view is a chart."""
        with self._lock:
            live = self._chart.live() if self._chart is not None else None
            if live is not None and not self._link.chart:
                _answer_while_cells_run(live)
                self._link.chart = live.model_id
            return live

    def save_html(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write a page that shows the same, and needs neither a kernel nor a network."""
        with self._lock:
            return self._write(path, self._exported())

    def save_png(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write the picture as PNG, for slides."""
        return self._save(path, "png")

    def save_svg(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write the picture as SVG, for print: the same bytes every time."""
        return self._save(path, "svg")

    def close(self) -> None:
        """Cut the page from the kernel. A page that a script draws still moves by itself."""
        for widget in (self._link, *self.controls.values()):
            widget.close()
        if self._chart is not None:
            self._chart.close()

    def __repr__(self) -> str:
        with self._lock:
            return self.problem or self._view.describe(self.data, self.place)

    def _ipython_display_(self) -> None:
        with self._lock:
            display({"text/plain": repr(self), "text/html": self._html()}, raw=True)
        if _every_output_is_a_page():
            display(self._link)

    def _exported(self) -> dict:
        """Return what only an exported page has: a chart that the page draws by itself."""
        return {} if self._chart is None or self.problem else self._chart.exported()

    def _write(self, path: str | pathlib.Path, more: Mapping) -> pathlib.Path:
        path = pathlib.Path(path)
        library = f"<script>{_plotly_js()}</script>" if self._chart is not None else ""
        title = escape(self._view.title)
        path.write_text(_PAGE.format(title=title, library=library, body=self._html(more)), "utf-8")
        return path

    def _save(self, path: str | pathlib.Path, form: str) -> pathlib.Path:
        path = pathlib.Path(path)
        metadata = {"Date": None} if form == "svg" else None
        with matplotlib.rc_context({"svg.hashsalt": "reformer"}):
            self.figure.savefig(path, format=form, metadata=metadata)
        return path

    def _values(self) -> dict[str, Any]:
        controls = self.controls.items()
        return {name: control.value for name, control in controls if control.has_trait("value")}

    def _changed(self, _change: object = None) -> None:
        """Measure anew, unless something newer waits to be measured."""
        if self._holds:
            return
        self._newest = mine = next(self._tickets)
        with self._lock:
            if mine == self._newest:
                self._link.data = self._refresh()
                self._make_asked()

    def refresh(self) -> None:
        """Measure again what the controls say, and show it: for data that change by themselves."""
        self._changed()

    def _make_asked(self, _change: object = None) -> None:
        """Make the live chart if a page has asked for it and there is one to make."""
        if self._link.asked:
            _ = self.chart

    def _themed(self, change: Mapping) -> None:
        with self._lock:
            self._chart.follow_theme(change["new"])

    def _send_late(self, change: Mapping) -> None:
        with self._lock:
            if change["new"] == self._version and not self.problem:  # else it is asked again
                self._link.late = self._late()

    def _send_answer(self, change: Mapping) -> None:
        with self._lock:
            asked = change["new"]
            if asked["version"] == self._version and not self.problem:  # else nobody waits for it
                self._link.answer = {**asked, **self._view.answer(self.data, asked["token"])}

    def _late(self) -> dict:
        return {**self._view.ship_late(self.data), "version": self._version}

    def _refresh(self) -> dict:
        """Measure what the controls say; return what to ship, or the problem."""
        values = self._values()
        try:
            if self._misplaced:
                raise ValueError(self._misplaced)
            self.data, self.problem = self._measure(**values), None
        except ValueError as error:
            self.data, self.problem = None, str(error)
            return {"problem": self.problem}
        self._version += 1
        numbered = {"version": self._version} if isinstance(self._view, LateView) else {}
        code = {"name": self._call.function.__name__, "values": self._call.arguments(values)}
        return {**self._ship(), "code": code, **numbered}

    def _ship(self) -> dict:
        if self._chart is None:
            return self._view.ship(self.data)
        self._chart.show(self._view.plotly(self.data, self.place))
        shipped = self._chart.ship(repr(self))
        if self._link is not None and self._link.shown:
            return shipped  # a picture would only cost time
        return {**shipped, "picture": self._chart.picture()}

    def _html(self, more: Mapping | None = None) -> str:
        """Return a picture and the script that takes its place wherever scripts may run."""
        asks = [self.controls[name].description for name in self._values()]
        data = {**self._link.data, **(more or {}), "place": self._link.place, "asks": asks}
        if "version" in data:
            data["late"] = self._late()
        data.pop("picture", None)  # it is in the page already
        script = "chart_view.js" if self._chart is not None else self._view.script
        return (
            f'<div class="rx-root" data-rx="{self._key}" data-lm-suppress-shortcuts="true">'
            f'<div class="rx-picture">{self._picture()}</div>'
            '<div class="rx-controls"></div><div class="rx-live"></div></div>'
            f'<script type="module">\n{compact_script(script)}\n'
            f"for(const root of document.querySelectorAll('[data-rx=\"{self._key}\"]'))"
            f"mount(root,{_json_in_html(data)});\n"
            "document.dispatchEvent(new Event('rx:mounted'));\n</script>"
        )

    def _picture(self) -> str:
        if self.problem:
            return f"<p>{escape(self.problem)}</p>"
        # A picture of its own file, so that what removes scripts and styles from a page leaves it.
        if self._chart is not None:
            drawn, way_out = self._chart.picture(), "run the cell, and it moves."
        else:
            drawn = self._view.draw_svg(self.data, self.place)
            way_out = "run the cell or trust the notebook, and it moves."
        svg = quote(drawn.replace('"', "'"), safe=_PLAIN)
        return (
            f'<img width="800" alt="{escape(repr(self))}" src="data:image/svg+xml,{svg}">'
            f"<p>A still picture: {way_out}</p>"
        )


_PLAIN = " '/:=;,()!*~@$?+"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root{{color-scheme:light dark}}
body{{margin:16px;background:Canvas;color:CanvasText}}
</style>
{library}
</head>
<body><main>
{body}
</main></body>
</html>
"""


_BLANKS = re.compile(r" (=>|[!=]==|&&|\|\||\?\?|[-+*/<>]?=|[-+*/]) | ?(\{) ?| (\})|(?<=\bif) (\()")
"""Blanks around signs that no text in a script has blanks around."""

_OTHER_SCRIPT = re.compile(r"^(?:import|export) [^;]* from '\./([\w.]+)';\n", re.MULTILINE)


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs  # slow to import, and only an exported chart needs it

    return get_plotlyjs()


def compact_script(name: str) -> str:
    """Return a script of this folder, after those it imports, in as few characters as is easy.

    Without comments, indentation, imports and exports, and without the spaces around signs that no
    text in a script holds: one script, in which every name is met once.
    Every displayed explorer stores a copy, so that it needs nothing else.
    """
    return "\n".join(_compact(script) for script in scripts_of(name))


def scripts_of(name: str) -> list[str]:
    """Name a script of this folder and all that it imports, each once, after what it needs."""
    needed = [
        script for other in _OTHER_SCRIPT.findall(_script(name)) for script in scripts_of(other)
    ]
    return list(dict.fromkeys([*needed, name]))


def _compact(name: str) -> str:
    lines = _OTHER_SCRIPT.sub("", _script(name)).splitlines()
    lines = [re.sub(r"(^|\s)// .*$", "", line).strip() for line in lines]
    lines = [_BLANKS.sub(r"\1\2\3\4", line) for line in lines]
    return re.sub(r"^export ", "", "\n".join(filter(None, lines)), flags=re.MULTILINE)


def _script(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _json_in_html(data: object) -> str:
    """Write JSON that no text in it can break out of, whatever its user typed."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


class _Keys:
    """Give every panel's output a key of its own, and the same again when its cell runs again.

    Keys are made of the content, never of time or chance: a notebook that is executed twice must be
    the same file. When a cell runs again, the panel that it showed before is closed.
    """

    def __init__(self):
        self._owners: dict[str, dict[tuple, tuple[int, Panel]]] = {}
        self._cell: object = None
        self._in_cell = 0

    def claim(self, content: str, panel: Panel) -> str:
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        owners = self._owners.setdefault(digest, {})
        owner = self._owner()
        number, former = owners.get(owner, (len(owners), None))
        owners[owner] = number, panel
        if former is not None:
            former.close()
        return f"{digest}-{number}"

    def _owner(self) -> tuple:
        """Return which cell is running, and how many panels it has made before."""
        shell = get_ipython()
        run = shell.execution_count if shell else 0
        self._in_cell = self._in_cell + 1 if run == self._cell else 0
        self._cell = run
        parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
        return parent.get("metadata", {}).get("cellId", run), self._in_cell


_keys = _Keys()


def _answer_while_cells_run(widget: Widget) -> None:
    """Let the kernel handle a widget's messages on the thread that the browser asks for.

    JupyterLab asks for one beside the running cell's. From 7.4 on, ipykernel gives a message to the
    loop that last wrote to the same comm instead, for cells that await an answer; a panel's cell
    awaits none, and would leave its reader waiting until the next cell has run.
    """
    if widget.comm is not None:
        widget.comm._reply_subshell_for = lambda _message, asked_for: asked_for


def _every_output_is_a_page() -> bool:
    """Say whether the host opens a link's model only in a page that shows it (Colab, VS Code)."""
    shell = get_ipython()
    in_vs_code = shell is not None and "__vsc_ipynb_file__" in shell.user_ns
    return "google.colab" in sys.modules or in_vs_code
