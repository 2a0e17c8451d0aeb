"""Training tiles and held-out corrections from the slides of a study (the design's section "Bags on a slide")."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.material import Material
from napari_histodistill.distill.selection import CorrectedSquare, CorrectionEvidence
from napari_histodistill.errors import HistodistillError
from napari_histodistill.mil.sampler import NEGATIVE, POSITIVE, UNKNOWN
from napari_histodistill.mil.store import ArrayStore
from napari_histodistill.nets.masking import SUPPORT_UM
from napari_histodistill.predict.predict import tiling_of, tissue_tiles
from napari_histodistill.predict.stain import fit_recolouring
from napari_histodistill.predict.tiling import Window
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.slide.tissue import TISSUE
from napari_histodistill.study import NO_CORRECTION, SlideLabel
from napari_histodistill.study.audit import SQUARE_UM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_histodistill.distill.recipe import DistillRecipe
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets.card import ModelCard
    from napari_histodistill.predict.stain import Recolouring
    from napari_histodistill.predict.tiling import Tiling
    from napari_histodistill.slide import Slide
    from napari_histodistill.study import StudySlide, TissueOnGrid

    UInt8 = NDArray[np.uint8]

POSITIVE_SHARE = 0.05
"""Share of a tile of a tumour slide that must be tumour for the tile to be a positive bag."""
TISSUE_SHARE = 0.25
"""Share of a tile that must be tissue for students to learn from it."""
ALIGNMENT = 16
"""Sides of tiles are multiples of this many px."""
HELD_OUT_SIDE_UM = SQUARE_UM
"""Side of the squares that corrections are held out by: neighbouring strokes must not fall on both sides."""
HELD_OUT_SHARE = 5
"""One square in this many is held out."""
LEAST_SQUARES, LEAST_PIXELS = 3, 100
"""Held-out squares with corrections, and working-grid px of either class set in their tissue, to be evidence."""
SURROUNDINGS_UM = 2 * SUPPORT_UM
"""Around a held-out square that is predicted with it, at least: what the support of its mask hangs on."""
MOST_SQUARES = 64
"""Held-out squares that a model is judged by after every epoch; of more, always the same are taken."""


class NothingToLearnError(HistodistillError):
    """A study that gives a student nothing to learn from."""


@dataclass(frozen=True)
class TileSettings:
    """Which tiles of a study students learn from.

    Attributes
    ----------
    side : int
        Of a tile, in px at the model's mpp; the crops of training lie inside, see `tile_side`.
    most : int
        Tiles in all. Those with corrections come first, then as many positive as others, drawn at random.
    window : (y, x, height, width), optional
        Only this part of the working grid, of every slide that is named.
    seed : int
    """

    side: int = 208
    most: int = 200
    window: tuple[int, int, int, int] | None = None
    seed: int = 0


@dataclass(frozen=True)
class _Tile:
    """A tile of a slide, its bag label, what a person set there (IGNORE where held out), and whether that teaches."""

    slide: int
    window: Window
    label: int
    by_hand: UInt8 | None
    corrected: bool


@dataclass(frozen=True)
class OpenEntry:
    """A slide of the study, open, with what its tiles need."""

    entry: StudySlide
    slide: Slide
    tiling: Tiling
    tissue: TissueOnGrid
    recolour: Recolouring | None

    def read(self, window: Window) -> UInt8:
        """A window of the working grid as the model's mpp sees it, uint8 (h, w, 3)."""
        return self.slide.read_resampled(self.tiling.input_shape, *window.scaled(self.tiling.factor))

    def finer(self, plane: UInt8) -> UInt8:
        """A window of the working grid on the pixels of `read`."""
        return plane.repeat(self.tiling.factor, 0).repeat(self.tiling.factor, 1)


class StudyMaterial:
    """The slides of a study as material for students, and their held-out corrections as evidence.

    Everything is read anew by `material`, so corrections that were made while a round ran are in the next.

    Parameters
    ----------
    entries : sequence of StudySlide
        Slides to learn from; each must have a teacher's result.
    card : ModelCard
        Of the first teacher: students read slides as it does.
    settings : TileSettings
    both_stains : bool
        See `DistillRecipe`.
    """

    def __init__(
        self, entries: Sequence[StudySlide], card: ModelCard, settings: TileSettings, *, both_stains: bool = True
    ) -> None:
        self._settings, self._both = settings, both_stains
        self.mpp = card.mpp
        self._open: list[OpenEntry] = []
        try:
            for entry in entries:
                slide = open_slide(entry.slide_path, mpp=entry.mpp)
                tiling, tissue = tiling_of(entry, card), entry.tissue_on_grid(entry.run)
                tiles = tissue_tiles(tiling, tissue)
                recolour = fit_recolouring(card, slide, tiling, tiles, tissue)
                self._open.append(OpenEntry(entry, slide, tiling, tissue, recolour))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the slides."""
        for opened in self._open:
            opened.slide.close()

    def opened(self, fingerprint: str) -> OpenEntry | None:
        """A slide as it is open here, None if students do not learn from it."""
        return next((each for each in self._open if each.entry.fingerprint == fingerprint), None)

    def material(self, control: JobControl) -> Material:
        """Tiles with their bag labels and the corrections in them; held-out corrections have no weight.

        Raises
        ------
        NothingToLearnError
            If no slide has tissue with a teacher's result.
        """
        tiles = self._choose()
        if not tiles:
            raise NothingToLearnError(
                "There is no tile to learn from: run the teacher on a slide first, choose a larger region, or audit "
                "less of the slide."
            )
        images, by_hand, places, first = ArrayStore(), ArrayStore(), [], []
        for i, tile in enumerate(tiles):
            control.checkpoint()
            control.progress(i, len(tiles), "Reading training tiles")
            opened = self._open[tile.slide]
            image = opened.read(tile.window)
            normalised = image if opened.recolour is None else opened.recolour(image)
            first.append(len(images))
            for version in (normalised, image) if self._both and opened.recolour else (normalised,):
                images.append(version)
                places.append(i)
            by_hand.append(opened.finer(_with_artefacts_ignored(opened.tissue[tile.window.slices], tile.by_hand)))
        return Material(self.mpp, [images[k] for k in first], [tile.label for tile in tiles], images, places, by_hand)

    # Tiles

    def _choose(self) -> list[_Tile]:
        every = [tile for index in range(len(self._open)) for tile in self._tiles(index)]
        rng = np.random.default_rng(self._settings.seed)
        order = [every[i] for i in rng.permutation(len(every))]
        corrected = [tile for tile in order if tile.corrected][: self._settings.most]
        positive, other = (
            [tile for tile in order if not tile.corrected and (tile.label == POSITIVE) == positive]
            for positive in (True, False)
        )
        left = self._settings.most - len(corrected)
        chosen = positive[: max(left // 2, left - len(other))]
        return [*corrected, *chosen, *other[: left - len(chosen)]]

    def _tiles(self, index: int) -> Iterator[_Tile]:
        """Every tile with enough tissue of a slide, with its bag label; held-out corrections have no say in it.

        A tile that shares a pixel with a square that is audited is none: students never see those.
        """
        opened = self._open[index]
        entry, shape = opened.entry, opened.entry.grid.shape
        height, width = (min(-(-self._settings.side // opened.tiling.factor), size) for size in shape)
        y0, x0, rows, columns = self._settings.window or (0, 0, *shape)
        pseudo, corrections, audit = entry.pseudo_mask(), entry.corrections(), entry.audit()
        if pseudo is None:
            return
        for y in tile_starts(y0, rows, height, shape[0]):
            strip = Window(y, 0, height, shape[1])
            tissue, said = opened.tissue[strip.slices], np.asarray(pseudo[strip.slices])
            by_hand = np.full_like(said, NO_CORRECTION) if corrections is None else corrections.read(*strip)
            learnt = by_hand
            if (by_hand != NO_CORRECTION).any():
                learnt = np.where(held_out(entry, strip), np.uint8(NO_CORRECTION), by_hand)
            corrected = np.where(learnt == NO_CORRECTION, said, learnt)
            for x in tile_starts(x0, columns, width, shape[1]):
                here = slice(None), slice(x, x + width)
                if np.mean(tissue[here] == TISSUE) < TISSUE_SHARE:
                    continue
                if audit is not None and audit.touches(y, x, height, width):
                    continue
                set_here, learnt_here = by_hand[here] != NO_CORRECTION, learnt[here]
                kept = np.where(set_here & (learnt_here == NO_CORRECTION), np.uint8(IGNORE), learnt_here)
                label = bag_label(entry.label, corrected[here], learnt_here)
                teaches = bool((learnt_here != NO_CORRECTION).any())
                yield _Tile(index, Window(y, x, height, width), label, kept if set_here.any() else None, teaches)

    # Evidence

    def evidence(self) -> CorrectionEvidence | None:
        """Held-out corrections as they are now; None where they are too few to tell.

        Both classes are asked for: by corrections to tumour alone a model that calls everything tumour is perfect.
        """
        squares = [square for index in range(len(self._open)) for square in self._held_out_squares(index)]
        pieces = [self._piece(index, window) for _, index, window in sorted(squares)[:MOST_SQUARES]]
        pixels = [sum(piece.count(label) for piece in pieces) for label in (TUMOUR, NORMAL)]
        enough = len(pieces) >= LEAST_SQUARES and min(pixels) >= LEAST_PIXELS
        return CorrectionEvidence(tuple(pieces)) if enough else None

    def _held_out_squares(self, index: int) -> Iterator[tuple[bytes, int, Window]]:
        """The held-out squares of a slide in which a person set a class, each with its place in an order for good.

        None is audited: what models are chosen by says nothing new of them.
        """
        entry = self._open[index].entry
        corrections, audit = entry.corrections(), entry.audit()
        if corrections is None:
            return
        side, (height, width) = held_out_side(entry), entry.grid.shape
        for y in range(0, height, side):
            rows = corrections[y : y + side]
            counted = (rows == TUMOUR) | (rows == NORMAL)
            for x in range(0, width, side):
                if counted[:, x : x + side].any() and is_held_out(entry, y // side, x // side):
                    window = Window(y, x, min(side, height - y), min(side, width - x))
                    if audit is not None and audit.touches(*window):
                        continue
                    yield _digest(entry, y // side, x // side), index, window

    def _piece(self, index: int, window: Window) -> CorrectedSquare:
        opened = self._open[index]
        entry, factor = opened.entry, opened.tiling.factor
        sizes = entry.grid.pixel_size_um
        top, left = (max(opened.tiling.margin, round(SURROUNDINGS_UM / size)) for size in sizes)
        y, x = max(0, window.y - top), max(0, window.x - left)
        bottom = min(entry.grid.shape[0], window.y + window.height + top)
        right = min(entry.grid.shape[1], window.x + window.width + left)
        around = Window(y, x, bottom - y, right - x)
        image, by_hand = opened.read(around), corrections_in(entry, window)
        truth = np.full((around.height, around.width), NO_CORRECTION, np.uint8)
        inner = Window(window.y - y, window.x - x, window.height, window.width)
        truth[inner.slices] = np.where((by_hand == TUMOUR) | (by_hand == NORMAL), by_hand, np.uint8(NO_CORRECTION))
        if opened.recolour is not None:
            image = opened.recolour(image)
        return CorrectedSquare(image, truth, np.asarray(opened.tissue[around.slices]), factor, sizes)


def tile_starts(start: int, length: int, side: int, size: int) -> list[int]:
    """Where tiles of ``side`` begin that cover a span of an axis of ``size``, all of them inside the axis.

    They lie side by side within the span, the last flush with its end; a span shorter than a tile gets one.
    """
    first = max(0, min(start, size - side))
    last = max(first, min(size, start + length) - side)
    return [*range(first, last, side), last]


def tile_side(recipe: DistillRecipe) -> int:
    """Side of tiles, in px, that the crops of a recipe lie inside at any magnification."""
    return -(-round(recipe.crop / recipe.augmentation.zoom[0]) // ALIGNMENT) * ALIGNMENT


def _with_artefacts_ignored(tissue: UInt8, by_hand: UInt8 | None) -> UInt8:
    """What a person set; elsewhere IGNORE on artefacts, 255 on the rest."""
    rest = np.where(tissue == IGNORE, np.uint8(IGNORE), np.uint8(NO_CORRECTION))
    return rest if by_hand is None else np.where(by_hand == NO_CORRECTION, rest, by_hand)


def bag_label(slide: SlideLabel, mask: UInt8, by_hand: UInt8) -> int:
    """The bag label of a tile.

    Positive if its slide holds tumour and so does at least `POSITIVE_SHARE` of the tile's corrected pseudo-mask;
    negative if its slide is normal, or if a person set all of its tissue to normal; otherwise unknown, and so is a tile
    of a normal slide on which a person painted tumour.

    Parameters
    ----------
    mask : uint8 (h, w)
        The corrected pseudo-mask.
    by_hand : uint8 (h, w)
        Corrections, 255 for none.
    """
    tissue = (mask != OUTSIDE) & (mask != IGNORE)
    if slide is SlideLabel.NORMAL:
        return UNKNOWN if (by_hand == TUMOUR).any() else NEGATIVE
    if tissue.any() and (by_hand[tissue] == NORMAL).all():
        return NEGATIVE
    if slide is SlideLabel.TUMOUR and np.mean(mask == TUMOUR) >= POSITIVE_SHARE:
        return POSITIVE
    return UNKNOWN


def corrections_in(entry: StudySlide, window: Window) -> UInt8:
    """What a person set in a window, 255 where nothing."""
    pyramid = entry.corrections()
    if pyramid is None:
        return np.full((window.height, window.width), NO_CORRECTION, np.uint8)
    return pyramid.read(*window)


def held_out_side(entry: StudySlide) -> int:
    """Side, in working-grid px, of the squares that corrections are held out by."""
    return max(1, round(HELD_OUT_SIDE_UM / float(np.mean(entry.grid.pixel_size_um))))


def is_held_out(entry: StudySlide, row: int, column: int) -> bool:
    """Whether the corrections in a square are kept from training; the same for good, whatever is painted later."""
    return _digest(entry, row, column)[0] % HELD_OUT_SHARE == 0


def _digest(entry: StudySlide, row: int, column: int) -> bytes:
    return hashlib.sha256(f"{entry.fingerprint}/{row}/{column}".encode()).digest()


def held_out(entry: StudySlide, window: Window) -> NDArray[np.bool_]:
    """Where in a window corrections are held out, bool (h, w)."""
    side = held_out_side(entry)
    rows = np.arange(window.y, window.y + window.height) // side
    columns = np.arange(window.x, window.x + window.width) // side
    out = np.zeros((window.height, window.width), bool)
    for row in np.unique(rows):
        for column in np.unique(columns):
            if is_held_out(entry, int(row), int(column)):
                out[np.ix_(rows == row, columns == column)] = True
    return out
