"""Controls that several explorers have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipywidgets import BoundedIntText, Button, Dropdown, FloatSlider, IntSlider, Widget

from reformer_viz.measure.sequence import VectorSequence

STYLE = {"description_width": "92px"}
NARROW = {"description_width": "60px"}


def slider(
    description: str, value: float | int, low: float | int, high: float | int, step: float | int = 1
) -> IntSlider | FloatSlider:
    """Make a slider that reaches its first value, also one that cannot be shown."""
    kind = IntSlider if isinstance(value, int) else FloatSlider
    low, high = min(low, value), max(high, value)
    return kind(description=description, value=value, min=low, max=high, step=step, style=STYLE)


def number(description: str, value: int, low: int, high: int) -> BoundedIntText:
    """Make a box for a whole number that reaches its first value, also one that cannot be shown."""
    return BoundedIntText(
        description=description,
        value=value,
        min=min(low, value),
        max=max(high, value),
        style=STYLE,
        layout={"width": "180px"},
    )


def choice(
    description: str, value: Any, options: Sequence, style: Mapping[str, str] = STYLE
) -> Dropdown:
    """Make a choice that holds its first value, also one that cannot be shown.

    An option is a value, or a pair of what is read and the value.
    """
    options = [option if isinstance(option, tuple) else (str(option), option) for option in options]
    if value not in [option for _, option in options]:
        options.append((str(value), value))
    control = Dropdown(description=description, options=options, value=value, style=dict(style))
    if None in (value for _, value in options):
        _keep_chosen(control)
    return control


def _keep_chosen(control: Dropdown) -> None:
    """Let None choose the option that has it: to ipywidgets it means that nothing is chosen."""
    place = [value for _, value in control.options].index(None)

    def choose(_: object = None) -> None:
        if control.index is None:
            control.index = place

    control.observe(choose, "index")
    choose()


def noise_and_rotations(noise: float | int, rotations: int) -> dict[str, Widget]:
    """Make the controls that push vectors away and draw other random directions to hash with."""
    push = slider("noise", float(noise), 0.0, 2.0, step=0.05)
    draw = number("rotations", rotations, 0, 9999)
    again = Button(description="New rotations", tooltip="Hash with other random directions")

    def draw_again(_: Button) -> None:
        draw.value += 1

    again.on_click(draw_again)
    return {"noise": push, "rotations": draw, "new_rotations": again}


def heads(sequence: Callable[[], VectorSequence], head: int) -> dict[str, Widget]:
    """Make the choice among heads, where there are several or another than the first is meant."""
    try:
        last = len(sequence().vectors) - 1
    except ValueError:  # whoever measures says what is wrong with the vectors
        last = 0
    return {"head": number("head", head, 0, last)} if last or head else {}
