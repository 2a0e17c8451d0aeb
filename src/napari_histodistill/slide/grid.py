"""The working grid: where masks and probabilities live on a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from napari_histodistill.slide.slide import Slide


@dataclass(frozen=True, slots=True)
class WorkingGrid:
    """A pixel grid over a slide; the outer edges of both coincide.

    Positions are continuous: pixel i covers [i, i + 1), so 0 is the slide's edge on every grid.

    Parameters
    ----------
    shape
        (height, width) of the grid.
    slide_shape
        (height, width) of the slide's level 0.
    mpp
        Size of a level-0 pixel as (y, x) in µm.
    """

    shape: tuple[int, int]
    slide_shape: tuple[int, int]
    mpp: tuple[float, float]

    def __post_init__(self) -> None:
        if min(*self.shape, *self.slide_shape) < 1 or min(self.mpp) <= 0:
            raise ValueError(f"sizes must be positive: {self}")

    @classmethod
    def for_slide(cls, slide: Slide, target_mpp: float = 2.0, max_side: int = 16384) -> Self:
        """Grid of about `target_mpp` µm per pixel, coarser where a side would pass `max_side`.

        It is never finer than the slide. Raises MppError if the slide's pixel size is unknown.
        """
        mpp = slide.require_mpp()
        height, width = slide.shape
        wanted = (height * mpp[0] / target_mpp, width * mpp[1] / target_mpp)
        shrink = max(1.0, max(wanted) / max_side)
        shape = (_between(wanted[0] / shrink, height), _between(wanted[1] / shrink, width))
        return cls(shape, slide.shape, mpp)

    @property
    def pixel_size_um(self) -> tuple[float, float]:
        """Size of a grid pixel as (y, x) in µm."""
        height, width = self.slide_shape
        return height * self.mpp[0] / self.shape[0], width * self.mpp[1] / self.shape[1]

    @property
    def scale(self) -> tuple[float, float]:
        """Scale of a napari layer on this grid, in µm; the same as `pixel_size_um`."""
        return self.pixel_size_um

    @property
    def translate(self) -> tuple[float, float]:
        """Translation of a napari layer on this grid, in µm, beside a slide layer with ``scale=mpp, translate=0``.

        napari puts the centre of pixel 0 at the translation, so grids share their edges only if it is half the
        difference of their pixels.
        """
        return (self.scale[0] - self.mpp[0]) / 2, (self.scale[1] - self.mpp[1]) / 2

    def to_level0(self, y: float, x: float) -> tuple[float, float]:
        """A position of this grid in level-0 px."""
        return y * self.slide_shape[0] / self.shape[0], x * self.slide_shape[1] / self.shape[1]

    def from_level0(self, y: float, x: float) -> tuple[float, float]:
        """A level-0 position on this grid."""
        return y * self.shape[0] / self.slide_shape[0], x * self.shape[1] / self.slide_shape[1]


def _between(size: float, largest: int) -> int:
    return max(1, min(round(size), largest))
