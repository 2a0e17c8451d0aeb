"""What a slide file says about itself, and the check of its pixel size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MPP_RANGE: Final = (0.05, 8.0)
"""Pixel sizes, in µm, that a slide can plausibly have; anything else in a file is not believed."""

LARGEST_SIDE: Final = 1 << 20
"""In px; the largest slides have a third of it."""

ASSUMED_MPP: Final = 0.5
"""Pixel size, in µm, by which sizes of tissue and artefacts are judged where the slide's is unknown."""

WHITE: Final = (255, 255, 255)

_MICROMETRES: Final = {
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "inch": 25400.0, "in": 25400.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SlideMetadata:
    """What the file says, unchecked.

    Parameters
    ----------
    raw_mpp
        Pixel size of level 0 as (y, x) in µm, as the file gives it; None if it gives none.
    objective_power
        Magnification of the objective, such as 20.
    vendor
        Scanner vendor or file family, as OpenSlide names it.
    bounds
        The scanned area as (y, x, height, width) in level-0 px; None if the file does not say.
    background
        Colour (r, g, b) of areas without pixels.
    properties
        Every property of the file as text. May hold names of people: show only when asked.
    """

    raw_mpp: tuple[float, float] | None = None
    objective_power: float | None = None
    vendor: str | None = None
    bounds: tuple[int, int, int, int] | None = None
    background: tuple[int, int, int] = WHITE
    properties: Mapping[str, str] = field(default_factory=dict)


def micrometres(unit: str) -> float | None:
    """Length of one `unit` in µm, or None for a unit that is no length (such as "pixel")."""
    return _MICROMETRES.get(unit.strip().lower())


def is_plausible(mpp: tuple[float, float]) -> bool:
    """Whether both sides of a pixel lie in `MPP_RANGE`."""
    low, high = MPP_RANGE
    return all(math.isfinite(side) and low <= side <= high for side in mpp)


def checked_mpp(raw: tuple[float, float] | None) -> tuple[tuple[float, float] | None, str | None]:
    """Pixel size to believe and, where it is None, the sentence that says why.

    Examples
    --------
    >>> checked_mpp((0.5, 0.5))
    ((0.5, 0.5), None)
    >>> checked_mpp((352.8, 352.8))[0] is None
    True
    """
    if raw is None:
        return None, "The file does not give its pixel size: set it in µm per pixel."
    if is_plausible(raw):
        return raw, None
    y, x = raw
    low, high = MPP_RANGE
    return None, (
        f"The file gives a pixel size of {x:.5g} x {y:.5g} µm, which no slide has ({low} to {high:g} expected): "
        "set it in µm per pixel."
    )
