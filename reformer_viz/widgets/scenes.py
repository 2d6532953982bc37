"""A talk in an explorer's page: states with captions, one after the other by the arrow keys."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from IPython.display import display

from reformer_viz.widgets.panel import Panel


class SceneList:
    """Scenes of a panel, for the projector: as a cell's last line it shows the first.

    A scene is a part of the panel's `state` and a caption. What it does not say is as it was when
    the list was made. Left and right, Page Up and Page Down, or a clicker go through them, without
    a kernel as well: what every scene shows is stored with the page. With a kernel, the controls
    follow, and may be moved in between.

    Raises ValueError for no scenes, for a state that the panel does not have, or cannot show.
    """

    def __init__(self, panel: Panel, scenes: Iterable[tuple[Mapping[str, Any], str]]):
        self._panel = panel
        start, scenes = panel.state, list(scenes)
        if not scenes:
            raise ValueError("scenes must hold at least one (state, caption), got none")
        self.captions = [caption for _, caption in scenes]
        self._states = [{**start, **self._known(state)} for state, _ in scenes]
        self._sentences: list[str] = []
        self._shipped: list[dict] = []
        self._charts: list[dict] = []
        for number, state in enumerate(self._states):
            self._record(number, state)
        panel.state = self._states[0]
        panel._link.observe(self._follow, "scene")

    def __repr__(self) -> str:
        told = zip(self.captions, self._sentences, strict=True)
        return "\n".join(f"{k}. {caption}: {said}" for k, (caption, said) in enumerate(told, 1))

    def save_html(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write a page that plays the scenes, and needs neither a kernel nor a network."""
        with self._panel._lock:
            self._panel.state = self._states[0]
            scenes = [
                {**scene, "data": {**scene["data"], **chart}}
                for scene, chart in zip(self._shipped, self._charts, strict=True)
            ]
            return self._panel._write(path, {**self._charts[0], "scenes": scenes})

    def _ipython_display_(self) -> None:
        with self._panel._lock:
            self._panel.state = self._states[0]
            page = self._panel._html({"scenes": self._shipped})
        display({"text/plain": repr(self), "text/html": page}, raw=True)

    def _known(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        unknown = [name for name in state if name not in self._panel.state]
        if unknown:
            known = ", ".join(self._panel.state)
            raise ValueError(f"a scene's state has {known}, got {', '.join(unknown)}")
        return state

    def _record(self, number: int, state: Mapping[str, Any]) -> None:
        """Keep all that a scene shows."""
        panel = self._panel
        panel.state = state
        if panel.problem:
            raise ValueError(f"scene {number + 1} cannot be shown: {panel.problem}")
        data = {**panel._link.data, "place": panel.place}
        if panel._chart is not None:
            data["picture"] = panel._chart.picture()
        self._sentences.append(repr(panel))
        self._shipped.append({"caption": self.captions[number], "data": data})
        self._charts.append(panel._exported())

    def _follow(self, change: Mapping) -> None:
        """Move the controls to where the page went."""
        if 0 <= change["new"] < len(self._states):
            self._panel.state = self._states[change["new"]]
            self._panel._link.settled = change["new"]
