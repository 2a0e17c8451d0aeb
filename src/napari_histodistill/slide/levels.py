"""Levels of a slide: those in the file, and those that are added where the file jumps too far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP: Final = 4
"""Ratio between an added level and the finer one it is computed from."""

WIDEST_STEP: Final = 5.0
"""Largest ratio between neighbouring levels that is left as it is."""

LAST_SIDE: Final = 2048
"""The last level is at most this many px on its longer side."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid.

    Parameters
    ----------
    shape
        (height, width) in px.
    downsample
        Level-0 px per px of this level as (y, x): the exact ratio of the shapes.
    stored
        Whether the file holds it; False for an added one.
    """

    shape: tuple[int, int]
    downsample: tuple[float, float]
    stored: bool


def plan_levels(stored: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """Stored levels (height, width), finest first, and between and after them the ones to add.

    Examples
    --------
    >>> [level.shape for level in plan_levels([(16000, 32000), (1000, 2000)])]
    [(16000, 32000), (4000, 8000), (1000, 2000)]
    >>> [level.stored for level in plan_levels([(4000, 4000)])]
    [True, False]
    """
    shapes: list[tuple[tuple[int, int], bool]] = []
    for index, shape in enumerate(stored):
        shapes.append((shape, True))
        following = stored[index + 1] if index + 1 < len(stored) else None
        while _needs_step(shapes[-1][0], following):
            height, width = shapes[-1][0]
            shapes.append(((max(1, round(height / STEP)), max(1, round(width / STEP))), False))
    full = stored[0]
    return tuple(Level(s, (full[0] / s[0], full[1] / s[1]), is_stored) for s, is_stored in shapes)


def _needs_step(shape: tuple[int, int], following: tuple[int, int] | None) -> bool:
    if following is None:
        return max(shape) > LAST_SIDE
    return max(shape) / max(following) > WIDEST_STEP
