"""A generated H&E-like slide with known truth: sample data, the demo, and tests that need no downloads.

The picture is drawn in stain space (haematoxylin and eosin concentrations) and turned into RGB by Beer-Lambert's law
with the haematoxylin vector of Ruifrok and Johnston (2001) and a paler, pinker eosin. It holds glass, stroma, normal
crypts and one tumour of crowded, irregular glands. The truth is the area of the tumour glands, lumen included, the way
pathologists outline them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_histodistill.slide.cache import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Map = NDArray[np.float32]
    Mask = NDArray[np.bool_]

MPP = 0.5
"""µm per pixel of the generated slide."""
LAYOUT_PX = 4
"""Level-0 pixels per pixel of the coarse layout (and of the truth), per axis."""
HAEMATOXYLIN = np.array([0.650, 0.704, 0.286], dtype=np.float32)
EOSIN = np.array([0.13, 0.87, 0.28], dtype=np.float32)
GLASS = np.array([243, 242, 245], dtype=np.float32)
TILE = 256


@dataclass(frozen=True)
class SyntheticSlide:
    """A drawn slide: ``image`` is (h, w, 3) uint8 at `MPP`; ``truth`` is (h / 4, w / 4) bool, True on tumour glands."""

    image: NDArray[np.uint8]
    truth: Mask


def draw_slide(shape: tuple[int, int] = (3072, 4608), seed: int = 7) -> SyntheticSlide:
    """Draw a slide.

    Parameters
    ----------
    shape
        (height, width) in level-0 pixels of 0.5 µm, multiples of 4.
    seed
        The same seed and shape give the same pixels.

    Returns
    -------
    SyntheticSlide
    """
    rng = np.random.default_rng(seed)
    layout = _Layout.draw((shape[0] // LAYOUT_PX, shape[1] // LAYOUT_PX), rng)
    haematoxylin, eosin = _stain(layout, rng)
    return SyntheticSlide(_to_rgb(haematoxylin, eosin, rng), layout.tumour)


def sample_slide_path() -> Path:
    """Path of the generated sample slide, a tiled pyramidal TIFF: drawn on the first call, then kept in the cache."""
    path = cache_folder() / "samples" / "histodistill-sample-v2.tiff"
    if not (path.exists() and _truth_path(path).exists()):
        write_slide(draw_slide(), path)
    return path


def sample_truth(path: Path) -> Mask:
    """Truth of a slide written by `write_slide`: bool (h / 4, w / 4), True on tumour; outer edges are the slide's."""
    return np.asarray(Image.open(_truth_path(path))) > 0


def write_slide(slide: SyntheticSlide, path: Path) -> None:
    """Write ``slide`` as a tiled, JPEG-compressed pyramid with resolution tags, and its truth as a PNG beside it.

    Both files appear whole or not at all.
    """
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    level, part = slide.image, path.with_name(f"{path.name}.{os.getpid()}.part")
    with tifffile.TiffWriter(part) as tif:
        for number in range(4):
            tif.write(
                _tiles(level),
                shape=level.shape,
                dtype=level.dtype,
                photometric="rgb",
                tile=(TILE, TILE),
                compression="jpeg",
                compressionargs={"level": 90},
                resolution=(1e4 / (MPP * 2**number),) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(number > 0),
                software="napari-histodistill",
            )
            level = _halve(level)
    truth_part = part.with_suffix(".truth")
    Image.fromarray(slide.truth.astype(np.uint8) * 255).save(truth_part, format="png")
    truth_part.replace(_truth_path(path))
    part.replace(path)


def _truth_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}-truth.png")


def _tiles(level: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for y in range(0, level.shape[0], TILE):
        for x in range(0, level.shape[1], TILE):
            tile = level[y : y + TILE, x : x + TILE]
            yield np.pad(tile, ((0, TILE - tile.shape[0]), (0, TILE - tile.shape[1]), (0, 0)), mode="edge")


def _halve(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (level.shape[1] // 2, level.shape[0] // 2)
    return np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BOX))


def _noise(shape: tuple[int, int], scale: float, rng: np.random.Generator, stretch: float = 1.0) -> Map:
    """Smooth noise, mean 0 and deviation 1, with features about ``scale`` pixels wide (``stretch`` times that in x)."""
    cells = (max(2, round(shape[0] / scale)) + 3, max(2, round(shape[1] / (scale * stretch))) + 3)
    coarse = Image.fromarray(rng.standard_normal(cells).astype(np.float32))
    inner = (1, 1, cells[1] - 1, cells[0] - 1)
    fine = np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=inner))
    noise: Map = ((fine - fine.mean()) / (fine.std() + 1e-6)).astype(np.float32)
    return noise


@dataclass(frozen=True)
class _Layout:
    """What lies where, at 2 µm per pixel. Distances in µm."""

    tissue: Mask
    tumour: Mask  # tumour glands with their lumen
    tumour_lumen: Mask
    tumour_rim: Map  # distance to the gland's outline, inside tumour glands
    crypt: Mask  # normal crypts with their lumen
    crypt_depth: Map  # 0 at a crypt's outline, 1 at its centre

    @classmethod
    def draw(cls, shape: tuple[int, int], rng: np.random.Generator) -> _Layout:
        um = MPP * LAYOUT_PX
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        radius = np.hypot((y / shape[0] - 0.5) / 0.42, (x / shape[1] - 0.5) / 0.45)
        tissue = radius + 0.09 * _noise(shape, 160, rng) + 0.015 * _noise(shape, 20, rng) < 1
        centre = np.hypot((y / shape[0] - 0.55) / 0.30, (x / shape[1] - 0.64) / 0.23)
        region = tissue & (centre + 0.18 * _noise(shape, 120, rng) < 1)

        warp = [16 / um * _noise(shape, 45 / um, rng) + 5 / um * _noise(shape, 16 / um, rng) for _ in range(2)]
        near, cell = _nearest(y + warp[0], x + warp[1], spacing=105 / um, jitter=0.38, rng=rng)
        rim = ((near[..., 1] - near[..., 0]) * um / 2 - 5).astype(np.float32)
        share = rng.uniform(0.35, 1.1, cell.max() + 1)[cell]
        tumour = region & (rim > 0)
        tumour &= ndimage.uniform_filter(region.astype(np.float32), 9) > 0.9
        lumen = tumour & (rim > 32 * share) & (_noise(shape, 14, rng) > -0.6)

        near, cell = _nearest(y, x, spacing=86 / um, jitter=0.09, rng=rng)
        size = rng.uniform(34, 44, cell.max() + 1)[cell]
        wobble = 1 + 0.05 * _noise(shape, 30 / um, rng)
        depth = (1 - near[..., 0] * um * wobble / size).astype(np.float32)
        away = ndimage.distance_transform_edt(~region) * um
        far = np.bincount(cell.ravel(), weights=((away < 6) & (depth > 0)).ravel()) == 0
        crypt = (depth > 0) & far[cell] & tissue
        return cls(tissue, tumour, lumen, rim, crypt, depth)


def _nearest(
    y: Map, x: Map, spacing: float, jitter: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Distances (h, w, 2) to the two nearest points of a jittered hexagonal lattice, index (h, w) of the nearest."""
    rows = np.arange(-2, y.shape[0] / (spacing * 0.87) + 2)
    columns = np.arange(-2, y.shape[1] / spacing + 2)
    r, c = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    points = np.stack([r * spacing * 0.87, (c + 0.5 * (r % 2)) * spacing], axis=1)
    points += rng.normal(0, jitter * spacing, points.shape)
    found = cKDTree(points).query(np.stack([y.ravel(), x.ravel()], axis=1), k=2, workers=-1)
    distance, index = (np.asarray(a) for a in found)
    return distance.reshape(*y.shape, 2).astype(np.float32), index[:, 0].astype(np.intp).reshape(y.shape)


def _stain(layout: _Layout, rng: np.random.Generator) -> tuple[Map, Map]:
    """Concentrations of haematoxylin and eosin at level 0, as optical density."""
    shape = (layout.tissue.shape[0] * LAYOUT_PX, layout.tissue.shape[1] * LAYOUT_PX)
    fibres = _waves(_noise(shape, 6, rng, stretch=3) + 0.7 * _noise(shape, 14, rng, stretch=3), rng)
    grain = _noise(shape, 2.5, rng)
    patches = _noise(shape, 220, rng)
    haematoxylin = np.full(shape, 0.10, np.float32) + 0.03 * grain
    eosin = 0.24 + 0.06 * fibres + 0.05 * patches

    epithelium = _up(layout.tumour & ~layout.tumour_lumen)
    haematoxylin += epithelium * (0.30 + 0.05 * grain)
    eosin += epithelium * (0.06 - 0.07 * fibres)
    wall = _up(layout.crypt)
    mucin = _up(layout.crypt & (layout.crypt_depth > 0.26))
    droplets = np.clip(_noise(shape, 18, rng) * 0.9, -1, 1)
    haematoxylin += wall * 0.10 + mucin * (0.02 + 0.05 * droplets)
    eosin += wall * (0.04 - 0.08 * fibres) - mucin * (0.20 + 0.08 * droplets)
    empty = _up(layout.tumour_lumen | (layout.crypt & (layout.crypt_depth > 0.86)))
    debris = np.clip(_noise(shape, 9, rng) - 1.2, 0, 1)
    haematoxylin *= 1 - 0.9 * empty
    eosin *= 1 - empty * (0.92 - 0.4 * debris)

    haematoxylin += _nuclei(layout, shape, rng)
    tissue = _up(layout.tissue)
    return np.clip(haematoxylin, 0, None) * tissue, np.clip(eosin, 0.02, None) * tissue


def _waves(fibres: Map, rng: np.random.Generator) -> Map:
    """Horizontal fibres, bent: every column is shifted by a smooth offset."""
    offset = _noise((1, fibres.shape[1]), 500, rng)[0] * 70
    rows = (np.arange(fibres.shape[0])[:, None] + offset.astype(np.intp)[None]) % fibres.shape[0]
    return np.take_along_axis(fibres, rows, axis=0)


def _up(mask: Mask) -> Map:
    """A layout mask at level 0 with soft edges, in [0, 1]."""
    image = Image.fromarray(mask.astype(np.float32))
    size = (mask.shape[1] * LAYOUT_PX, mask.shape[0] * LAYOUT_PX)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _nuclei(layout: _Layout, shape: tuple[int, int], rng: np.random.Generator) -> Map:
    """Haematoxylin of all nuclei at level 0."""
    canvas = Image.new("F", (shape[1], shape[0]))
    pen = ImageDraw.Draw(canvas)
    stroma = layout.tissue & ~layout.tumour & ~layout.crypt
    epithelium = layout.tumour & ~layout.tumour_lumen
    basal = layout.crypt & (layout.crypt_depth > 0.06) & (layout.crypt_depth < 0.24)
    tumour_angle = _angle(layout.tumour_rim)
    crypt_angle = _angle(layout.crypt_depth)
    any_angle = _noise(layout.tissue.shape, 40, rng) * 1.5
    # where, nuclei per mm², half axes in µm, direction, haematoxylin
    _scatter(pen, stroma, 2200, (5.5, 1.4), any_angle, 0.5, rng)
    _scatter(pen, stroma, 4200, (2.7, 2.3), any_angle, 0.7, rng)
    _scatter(pen, basal, 14000, (3.6, 2.3), crypt_angle, 0.62, rng)
    _scatter(pen, epithelium, 9000, (6.6, 3.0), tumour_angle, 0.5, rng)
    chromatin = 1 + 0.22 * _noise(shape, 3, rng)
    nuclei: Map = ndimage.gaussian_filter(np.asarray(canvas, dtype=np.float32), 1.0) * chromatin
    return nuclei


def _angle(field: Map) -> Map:
    """Direction of the gradient of ``field``, in radians."""
    smooth = ndimage.gaussian_filter(field, 2)
    gy, gx = np.gradient(smooth)
    angle: Map = np.arctan2(gy, gx).astype(np.float32)
    return angle


def _scatter(
    pen: ImageDraw.ImageDraw,
    where: Mask,
    per_mm2: float,
    half_axes_um: tuple[float, float],
    angle: Map,
    density: float,
    rng: np.random.Generator,
) -> None:
    """Draw elliptic nuclei at random places of ``where``, long axis along ``angle``."""
    ys, xs = np.nonzero(where)
    count = round(len(ys) * (MPP * LAYOUT_PX) ** 2 * per_mm2 / 1e6)
    picked = rng.choice(len(ys), size=min(count, len(ys)), replace=False)
    turn = np.linspace(0, 2 * np.pi, 13)[:-1]
    for i in picked:
        y, x = ys[i], xs[i]
        a, b = np.array(half_axes_um) / MPP * rng.uniform(0.75, 1.3, 2)
        phi = angle[y, x] + rng.normal(0, 0.3)
        u, v = a * np.cos(turn), b * np.sin(turn)
        cy, cx = (y + rng.random()) * LAYOUT_PX, (x + rng.random()) * LAYOUT_PX
        px = cx + u * np.cos(phi) - v * np.sin(phi)
        py = cy + u * np.sin(phi) + v * np.cos(phi)
        pen.polygon(list(zip(px, py, strict=True)), fill=density * rng.uniform(0.75, 1.25))


def _to_rgb(haematoxylin: Map, eosin: Map, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Beer-Lambert, in strips; camera noise on tissue and glass."""
    image = np.empty((*haematoxylin.shape, 3), np.uint8)
    for y in range(0, image.shape[0], TILE):
        rows = slice(y, y + TILE)
        density = haematoxylin[rows, :, None] * HAEMATOXYLIN + eosin[rows, :, None] * EOSIN
        light = GLASS * np.exp(-np.log(10) * density) + rng.normal(0, 2.0, density.shape)
        image[rows] = light.clip(0, 255).round()
    return image
