"""Small widgets that the explorers share: rows that wrap, a line of messages, a slider with a number box."""

from __future__ import annotations

import base64
import html
import math
from pathlib import Path

import ipywidgets as widgets
from IPython.display import HTML, display


def row(*children) -> widgets.HBox:
    """Widgets side by side, which go on below where the page is too narrow."""
    return widgets.HBox(children, layout={"flex_flow": "row wrap", "align_items": "center"})


class Frame(widgets.VBox):
    """The outermost box of an explorer. panels.js keeps the keys pressed inside it from the notebook.

    children : one below the other.   panel : the Panel whose picture stands for them on pages without a kernel.
    """

    def __init__(self, *children, panel=None):
        super().__init__(children)
        self.panel = panel
        self.add_class("microlens-explorer")
        if panel is not None:
            panel.still = self.model_id

    def _ipython_display_(self):
        """Show the picture, which panels.js takes away when it draws the widget itself, and the widget."""
        if self.panel is not None:
            image = base64.b64encode(self.panel.picture()).decode()
            display(HTML(f'<img class="microlens-still-{self.model_id}" alt="the explorer as it began" '
                         f'src="data:image/png;base64,{image}">'))
        bundle = self._repr_mimebundle_()
        display({**bundle, "text/plain": "(the widget needs a running kernel)"}, raw=True)


def user_path(text) -> Path:
    """A path as a user writes it, where `~` is the home folder. Raises ValueError for an empty one."""
    if not str(text).strip():
        raise ValueError("no file is named.")
    return Path(text).expanduser()


def number(text: str, what: str) -> float | None:
    """The number in a box, None for an empty one. Raises ValueError, naming `what` and the text, for anything else."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = " with a decimal point" if "," in text else ""
        raise ValueError(f"{what}: came {text!r}, expected a number{hint}.")
    return value


def printed_unit(unit: str) -> str:
    """A unit of config.PARAMETERS as the screen shows it."""
    return unit.replace("theta_E", "θ_E")


def span_in_words(span: tuple[float, float], unit: str) -> str:
    """The permitted values of a parameter."""
    return f"{span[0]:g} to {span[1]:g} {unit}".rstrip()


def checked_value(name: str, value, span: tuple[float, float], unit: str, turn: float | None) -> float:
    """The value of a parameter, an angle within the span. ValueError, naming it, for no number or one out of range.

    turn : a whole turn, of an angle; None of other parameters.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and turn and not span[0] <= value <= span[1]:
        value = value % turn
    if not is_number or not span[0] <= value <= span[1]:
        raise ValueError(f"{name}: came {value!r}, expected {span_in_words(span, unit)}.")
    return float(value)


class Message(widgets.HTML):
    """One line that says what was done or, in red, what went wrong."""

    def __init__(self):
        super().__init__(layout={"min_height": "28px"})  # always as high, so that the panels below stay where they are
        self.is_error = False

    def say(self, text: str):
        """Show a text, in HTML."""
        self.value, self.is_error = text, False

    def refuse(self, error):
        """Show what went wrong."""
        self.value, self.is_error = f"<b class='microlens-error'>{html.escape(str(error))}</b>", True

    def attempt(self, function, *arguments):
        """Call a function and show the text that it returns, or what it raised: a log would be seen by nobody.

        An older error goes when a function succeeds.
        """
        try:
            said = function(*arguments)
        except Exception as error:
            self.refuse(error)
            return
        if said is not None or self.is_error:
            self.say(said or "")


class Control:
    """One parameter: a slider, whose position may be logarithmic, a number box, which holds the value exactly, and the
    range of both.

    changed() is called after a move by the user, refused(error) for a value that is none or is out of range.
    turn : of an angle; a value outside the range is then taken as the same angle inside it.
    """

    LOG_STEP = 0.005  # of log10
    LINEAR_STEPS = 1000

    def __init__(self, name: str, unit: str, span: tuple[float, float], logarithmic: bool, value: float,
                 changed, refused):
        self.name, self.logarithmic, self.value, self.turn = name, logarithmic, value, None
        self.changed, self.refused, self.moving = changed, refused, False
        self.slider = widgets.FloatSlider(readout=False, style={"description_width": "116px"},
                                          layout={"flex": "1 1 200px", "width": "auto"})
        self.box = widgets.Text(value=f"{value:.12g}", continuous_update=False, layout={"width": "86px"})
        self.limits = widgets.HTML(layout={"width": "84px"})
        self.box.add_class("microlens-box")
        self.limits.add_class("microlens-range")
        self.set_span(span, unit)
        self.slider.observe(self._on_slider, "value")
        self.box.observe(self._on_box, "value")
        self.widget = widgets.HBox([self.slider, self.box, self.limits])
        self.widget.add_class("microlens-control")
        if logarithmic:
            self.widget.add_class("microlens-log")

    def set_span(self, span: tuple[float, float], unit: str, turn: float | None = None):
        """Give the slider another range and unit; the value stays as it is."""
        self.span, self.unit, self.turn = span, printed_unit(unit), turn
        low, high = (self._position(x) for x in span)
        self.step = self.LOG_STEP if self.logarithmic else (high - low) / self.LINEAR_STEPS
        self.moving = True
        with self.slider.hold_trait_notifications():  # the new lower end may be above the old upper one
            self.slider.min, self.slider.max, self.slider.step = low, high, self.step
            self.slider.value = min(max(self._position(self.value), low), high)
        self.moving = False
        self.slider.description = f"{self.name} ({self.unit})" if unit else self.name
        self.slider.tooltip = self.box.tooltip = f"{self.name}: {span_in_words(span, self.unit)}"
        self.limits.value = f"{span[0]:.4g} to {span[1]:.4g}"

    def _position(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def _is_at(self, position: float) -> bool:
        """Whether the slider stands at `position` as nearly as its steps allow."""
        return abs(position - self._position(self.value)) <= 0.5001 * self.step

    def _on_slider(self, change):
        # The page moves a slider to its nearest step and reports that: no move of the user's.
        if self.moving or self._is_at(change["new"]):
            return
        value = 10 ** change["new"] if self.logarithmic else change["new"]
        self.move(float(f"{min(max(value, self.span[0]), self.span[1]):.4g}"))
        self.changed()

    def _on_box(self, change):
        if self.moving:
            return
        try:
            value = checked_value(self.name, number(change["new"], self.name), self.span, self.unit, self.turn)
        except ValueError as error:
            self.move(self.value)
            self.refused(error)
            return
        self.move(value)
        self.changed()

    def move(self, value: float):
        """Show a value without telling anyone."""
        self.moving, self.value = True, value
        self.box.value = f"{value:.12g}"
        if not self._is_at(self.slider.value):
            self.slider.value = self._position(value)
        self.moving = False
