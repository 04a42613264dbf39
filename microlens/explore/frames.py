"""Frames in which t_0, u_0 and alpha of a binary lens may be stated: the package's, and those of other people.

    shown = FRAMES["primary, alpha in degrees"].shown(parameters);  parameters = FRAMES[...].parameters(shown)

In all of them alpha is the angle from the axis that points from the primary to the secondary to the direction of the
source's motion, counter-clockwise. In MulensModel's it points the other way (alpha + 180 degrees; Poleski & Yee 2019).
t_0 and u_0 are those of the closest approach to the origin. Of a path bent by parallax that is the straight path
which touches it at the t_0 of the centre of mass.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Frame(NamedTuple):
    """A frame: whether its origin is the primary or the centre of mass, and how alpha is stated."""

    about_primary: bool = False
    in_degrees: bool = False
    half_turn: bool = False

    @property
    def turn(self) -> float:
        """A whole turn in the unit of alpha."""
        return 360.0 if self.in_degrees else 2 * math.pi

    @property
    def unit(self) -> str:
        """The unit of alpha."""
        return "deg" if self.in_degrees else "rad"

    def shown(self, parameters: dict) -> dict:
        """t_0 (d), u_0 (theta_E) and alpha of this frame, the other values as they are, of those of the package."""
        alpha = parameters["alpha"]
        t_0, u_0 = self._moved(parameters, alpha, 1)
        angle = alpha + math.pi * self.half_turn
        if self.in_degrees:
            angle = math.degrees(angle)
        return {**parameters, "t_0": t_0, "u_0": u_0, "alpha": angle % self.turn if self != PACKAGE else angle}

    def parameters(self, shown: dict) -> dict:
        """The package's parameters, of those that are stated in this frame."""
        angle = math.radians(shown["alpha"]) if self.in_degrees else shown["alpha"]
        alpha = angle - math.pi * self.half_turn
        t_0, u_0 = self._moved(shown, alpha, -1)
        return {**shown, "t_0": t_0, "u_0": u_0, "alpha": alpha % (2 * math.pi) if self != PACKAGE else alpha}

    def _moved(self, p: dict, alpha: float, sign: int) -> tuple[float, float]:
        """t_0 and u_0 about the other origin. The primary stands at x = -q s/(1 + q) from the centre of mass."""
        if not self.about_primary:
            return p["t_0"], p["u_0"]
        distance = sign * p["q"] * p["s"] / (1 + p["q"])
        return p["t_0"] - p["t_E"] * distance * math.cos(alpha), p["u_0"] - distance * math.sin(alpha)


PACKAGE = Frame()
FRAMES = {
    "centre of mass, alpha in radians": PACKAGE,
    "centre of mass, alpha in degrees": Frame(in_degrees=True),
    "primary, alpha in radians": Frame(about_primary=True),
    "primary, alpha in degrees": Frame(about_primary=True, in_degrees=True),
    "MulensModel (alpha + 180 deg)": Frame(in_degrees=True, half_turn=True),
}
