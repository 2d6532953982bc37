"""Controls that several explorers have."""

from ipywidgets import BoundedIntText, Button, FloatSlider, IntSlider, Widget

STYLE = {"description_width": "92px"}


def slider(
    description: str, value: float | int, low: int, high: int, step: int = 1
) -> IntSlider | FloatSlider:
    """Make a slider that reaches its first value, also one that cannot be shown."""
    kind = IntSlider if isinstance(value, int) else FloatSlider
    low, high = min(low, value), max(high, value)
    return kind(description=description, value=value, min=low, max=high, step=step, style=STYLE)


def noise_slider(value: float | int) -> FloatSlider:
    """Make the slider for how far vectors are pushed, as a share of their own length."""
    return FloatSlider(
        description="noise", value=value, min=0.0, max=max(2.0, value), step=0.05, style=STYLE
    )


def number(description: str, value: int, low: int, high: int) -> BoundedIntText:
    """Make a box for a whole number."""
    return BoundedIntText(
        description=description,
        value=value,
        min=low,
        max=high,
        style=STYLE,
        layout={"width": "180px"},
    )


def rotation_controls(value: int) -> dict[str, Widget]:
    """Make the number that names the random directions, and a button that counts it up."""
    rotations = number("rotations", value, 0, 9999)
    again = Button(description="New rotations", tooltip="Hash with other random directions")

    def draw_again(_: Button) -> None:
        rotations.value += 1

    again.on_click(draw_again)
    return {"rotations": rotations, "new_rotations": again}
