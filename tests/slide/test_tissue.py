"""Tissue: right on fills that were never scanned, on blank, dim, grey and fluorescent slides; artefacts set apart."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from napari_histodistill.slide import Slide, Tissue, TissueSettings, WorkingGrid, find_tissue, open_slide, synthetic
from napari_histodistill.slide.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Picture = np.ndarray


@pytest.fixture(scope="module")
def drawn() -> Picture:
    """A generated H&E picture of 1024 x 1536 px of 0.5 µm."""
    return synthetic.draw_slide((1024, 1536), seed=3).image


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., Tissue]:
    """``find(picture, settings, mpp=0.5)`` saves a picture as a slide and finds its tissue."""

    def find_in(picture: Picture, settings: TissueSettings | None = None, mpp: float = 0.5) -> Tissue:
        tifffile.imwrite(tmp_path / "p.tif", picture, photometric="rgb", tile=(256, 256), metadata=None)
        with open_slide(tmp_path / "p.tif", mpp=mpp) as slide:
            return find_tissue(slide, settings or TissueSettings())

    return find_in


def shrink(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at another size, by the nearest pixel."""
    rows, cols = (((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows, cols)]


def test_generated_tissue_is_found_and_glass_is_not(find: Callable[..., Tissue], drawn: Picture) -> None:
    tissue = find(drawn)
    assert tissue.looks_like_he
    assert tissue.warnings == ()
    assert tissue.artefact_fraction == 0
    assert tissue.mask.dtype == np.uint8
    grey = np.asarray(Image.fromarray(drawn).filter(ImageFilter.GaussianBlur(8)).convert("L"))
    surely_tissue, surely_glass = grey < 200, grey > 240
    found = tissue.mask > 0
    assert found[shrink(surely_tissue, found.shape)].mean() > 0.98
    assert found[shrink(surely_glass, found.shape)].mean() < 0.1


@pytest.mark.parametrize("fill", [0, 128, 210, 242, 255])
def test_areas_that_were_not_scanned_are_no_tissue_whatever_their_fill(
    find: Callable[..., Tissue], drawn: Picture, fill: int
) -> None:
    filled = np.full((1024, 2560, 3), fill, np.uint8)
    filled[:, 512:2048] = drawn
    plain, tissue = find(drawn), find(filled)
    left = round(tissue.mask.shape[1] * 512 / 2560)
    right = round(tissue.mask.shape[1] * 2048 / 2560)
    beside = np.concatenate([tissue.mask[:, : left - 2], tissue.mask[:, right + 2 :]], axis=1)
    assert (beside == 0).all()
    assert (tissue.mask[:, left:right] == 1).mean() == pytest.approx(plain.fraction, abs=0.02)
    assert tissue.artefact_fraction == 0
    assert tissue.looks_like_he


@pytest.mark.parametrize("dim", [0.72, 0.85])
def test_dim_light_changes_little(find: Callable[..., Tissue], drawn: Picture, dim: float) -> None:
    tissue = find((drawn * dim).astype(np.uint8))
    assert tissue.fraction == pytest.approx(find(drawn).fraction, abs=0.03)
    assert tissue.looks_like_he


def test_blank_glass_warns_and_counts_the_whole_slide(find: Callable[..., Tissue]) -> None:
    rng = np.random.default_rng(0)
    blank = np.clip(rng.normal((243, 242, 245), 2, (900, 1200, 3)), 0, 255).astype(np.uint8)
    for picture in (blank, np.full_like(blank, 255), np.zeros_like(blank)):
        tissue = find(picture)
        assert (tissue.mask == 1).all()
        assert any("No tissue was found" in warning for warning in tissue.warnings)


def test_grey_picture_does_not_look_like_he(find: Callable[..., Tissue], drawn: Picture) -> None:
    grey = np.repeat(drawn.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    tissue = find(grey)
    assert not tissue.looks_like_he
    assert any("H&E" in warning for warning in tissue.warnings)
    assert 0.3 < tissue.fraction < 0.95


def test_other_stains_do_not_look_like_he(find: Callable[..., Tissue], drawn: Picture) -> None:
    brown, blue = drawn[..., [0, 2, 1]].copy(), drawn[..., [1, 2, 0]].copy()
    brown[..., 2] = np.minimum(drawn[..., 1], drawn[..., 0]) * 0.8
    for picture in (brown, blue):
        assert not find(picture).looks_like_he


def test_settings_move_the_mask_the_way_they_say(find: Callable[..., Tissue], drawn: Picture) -> None:
    usual = find(drawn).fraction
    assert find(drawn, TissueSettings(threshold_offset=0.15)).fraction < usual - 0.005
    assert find(drawn, TissueSettings(threshold_offset=-0.03)).fraction >= usual
    assert find(drawn, TissueSettings(close_um=0, hole_area_um2=0)).fraction < usual
    assert find(drawn, TissueSettings(close_um=100)).fraction > usual
    assert find(drawn, TissueSettings(min_area_um2=1e12)).fraction <= usual


def test_mask_lands_on_any_window_of_a_working_grid(find: Callable[..., Tissue], drawn: Picture) -> None:
    tissue = find(drawn)
    grid = WorkingGrid((777, 1001), (1024, 1536), (0.5, 0.5))
    whole = tissue.on_grid(grid, 0, 0, 777, 1001)
    assert whole.mean() == pytest.approx(tissue.mask.mean(), rel=0.01)
    np.testing.assert_array_equal(tissue.on_grid(grid, 100, 200, 50, 60), whole[100:150, 200:260])
    around = tissue.on_grid(grid, -5, -7, 787, 1020)
    np.testing.assert_array_equal(around[5:782, 7:1008], whole)
    around[5:782, 7:1008] = 0
    assert not around.any()


# Real slides


@pytest.mark.parametrize(
    ("name", "fraction"), [("crc-section-pyramid.tiff", (0.33, 0.40)), ("CMU-1-Small-Region.svs", (0.36, 0.45))]
)
def test_real_sections_hold_tissue_and_no_artefact(slides_dir: Path, name: str, fraction: tuple[float, float]) -> None:
    with open_slide(slides_dir / name) as slide:
        tissue = find_tissue(slide)
    assert fraction[0] < tissue.fraction < fraction[1]
    assert tissue.artefact_fraction == 0
    assert tissue.looks_like_he
    assert tissue.warnings == ()


def test_flat_grey_that_was_not_scanned_is_no_tissue(slides_dir: Path) -> None:
    with open_slide(slides_dir / "crc-section-pyramid.tiff") as slide:
        tissue = find_tissue(slide)
        pixels = slide.overview(tissue.mask.shape)
    flat = (pixels == 242).all(axis=2)
    assert flat.mean() > 0.4
    assert (tissue.mask[flat] > 0).mean() < 0.005


@pytest.mark.parametrize("name", ["hamamatsu-dapi.ndpi", "wsi2dcm-jpeg.dcm"])
def test_fluorescence_and_blue_stains_get_a_warning(slides_dir: Path, name: str) -> None:
    with open_slide(slides_dir / name) as slide:
        tissue = find_tissue(slide)
    assert not tissue.looks_like_he
    assert any("does not look like H&E" in warning for warning in tissue.warnings)


def test_what_cannot_be_read_is_no_tissue(slides_dir: Path) -> None:
    with open_slide(slides_dir / "fixtures/unreadable.svs") as slide:
        tissue = find_tissue(slide)
    assert not tissue.mask.any()
    assert any("can be read" in warning for warning in tissue.warnings)


@pytest.mark.parametrize("where", ["glas/image", "ebhi-seg/adenocarcinoma/image", "ebhi-seg/normal/image"])
def test_training_images_are_he_tissue_without_artefacts(data_dir: Path, where: str) -> None:
    for path in sorted((data_dir / where).iterdir())[::40]:
        with open_slide(path, mpp=0.62 if "glas" in where else 1.1) as slide:
            tissue = find_tissue(slide)
        assert tissue.looks_like_he, path.name
        assert tissue.artefact_fraction == 0, path.name
        assert tissue.fraction > 0.4, path.name


# Artefacts drawn over real tissue


@pytest.fixture
def find_2um(find: Callable[..., Tissue]) -> Callable[..., Tissue]:
    """`find` for pixels of 2 µm."""
    return functools.partial(find, mpp=2.0)


INKS = {
    "blue": ((25, 50, 170), [(100, 600), (500, 800), (600, 1100)]),
    "green": ((20, 120, 60), [(1000, 700), (1400, 1000), (1700, 1300)]),
    "red": ((200, 20, 35), [(600, 2200), (900, 2600), (700, 3000)]),
    "black": ((30, 30, 34), [(400, 2900), (1000, 2700), (1300, 3000)]),
}


@pytest.fixture(scope="module")
def section(slides_dir: Path) -> Picture:
    """The real section at 2 µm/px."""
    with open_slide(slides_dir / "crc-section-pyramid.tiff") as slide:
        return slide.read_level(2, 0, 0, *slide.levels[2].shape)


def draw_ink(picture: Picture, colour: tuple[int, int, int], line: list[tuple[int, int]]) -> tuple[Picture, np.ndarray]:
    """A marker stroke of 220 µm with soft edges; a little of the tissue shows through. Returns (picture, its core)."""
    layer = Image.new("L", picture.shape[1::-1], 0)
    ImageDraw.Draw(layer).line(line, fill=255, width=110, joint="curve")
    cover = np.asarray(layer.filter(ImageFilter.GaussianBlur(6)))
    weight = cover[..., None] / 255 * 0.95
    ink = 0.85 * np.array(colour) + 0.15 * picture * (np.array(colour) / 255)
    noise = np.random.default_rng(0).normal(0, 3, picture.shape)
    return np.clip(picture * (1 - weight) + (ink + noise) * weight, 0, 255).astype(np.uint8), cover > 200


def test_pen_strokes_of_four_colours_are_artefacts_and_nothing_else_is(
    find_2um: Callable[..., Tissue], section: Picture
) -> None:
    inked, strokes = section, {}
    for name, (colour, line) in INKS.items():
        inked, strokes[name] = draw_ink(inked, colour, line)
    tissue = find_2um(inked)
    for name, stroke in strokes.items():
        assert (tissue.mask[shrink(stroke, tissue.mask.shape)] == IGNORE).mean() > 0.95, name
    near = ndimage.maximum_filter(np.any(list(strokes.values()), axis=0), 81)
    assert (tissue.mask[~shrink(near, tissue.mask.shape)] != IGNORE).all()
    assert tissue.looks_like_he
    without = find_2um(inked, TissueSettings(pen=False, focus=False))
    assert all((without.mask[shrink(stroke, tissue.mask.shape)] != IGNORE).mean() > 0.95 for stroke in strokes.values())


@pytest.mark.parametrize("sigma_um", [4, 8, 20])
def test_blurred_areas_are_artefacts_and_sharp_ones_are_not(
    find_2um: Callable[..., Tissue], section: Picture, sigma_um: float
) -> None:
    blurred, area = section.copy(), np.zeros(section.shape[:2], bool)
    for y, x, side in ((1250, 150, 500), (1300, 1350, 400), (2300, 500, 500)):
        part = np.s_[y : y + side, x : x + side]
        blurred[part] = np.asarray(Image.fromarray(section[part]).filter(ImageFilter.GaussianBlur(sigma_um / 2)))
        area[part] = True
    tissue = find_2um(blurred)
    inside = shrink(ndimage.minimum_filter(area, 129), tissue.mask.shape)
    outside = ~shrink(ndimage.maximum_filter(area, 129), tissue.mask.shape)
    is_tissue = find_2um(section).mask == 1
    assert (tissue.mask[inside & is_tissue] == IGNORE).mean() > 0.9
    assert (tissue.mask[outside] != IGNORE).all()
    assert find_2um(blurred, TissueSettings(focus=False)).artefact_fraction == 0


def test_higher_sensitivity_marks_more_as_blurred(find_2um: Callable[..., Tissue], section: Picture) -> None:
    blurred, part = section.copy(), np.s_[2300:2800, 500:1000]
    blurred[part] = np.asarray(Image.fromarray(section[part]).filter(ImageFilter.GaussianBlur(0.7)))
    marked = [
        find_2um(blurred, TissueSettings(focus_sensitivity=sensitivity)).artefact_fraction
        for sensitivity in (0.0, 0.5, 1.0)
    ]
    assert marked[0] == 0
    assert marked[0] <= marked[1] <= marked[2]
    assert marked[2] > 0


def test_slide_that_is_blurred_all_over_gets_a_warning(find_2um: Callable[..., Tissue], section: Picture) -> None:
    soft = np.asarray(Image.fromarray(section).filter(ImageFilter.GaussianBlur(4)))
    assert any("whole slide looks out of focus" in warning for warning in find_2um(soft).warnings)


def test_focus_is_not_judged_on_coarse_slides(find_2um: Callable[..., Tissue], section: Picture) -> None:
    assert find_2um(section[::2, ::2].copy(), mpp=4.0).artefact_fraction == 0


def test_haematoxylin_blue_tissue_is_no_blue_ink(find_2um: Callable[..., Tissue], section: Picture) -> None:
    """Lymphoid tissue in slides with strong haematoxylin: a blue-violet cast over everything."""
    density = -np.log10(np.maximum(section, 1) / 255.0)
    bluer = 255 * 10 ** -(density * (1.25, 1.0, 0.55))
    tissue = find_2um(np.clip(bluer, 0, 255).astype(np.uint8))
    assert tissue.looks_like_he
    assert tissue.artefact_fraction < 0.001


def test_one_level_slides_are_streamed_through_the_added_levels(
    tmp_path: Path, section: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_histodistill.slide.slide._DIRECT_PIXELS", 10**6)
    tifffile.imwrite(tmp_path / "p.tif", section, photometric="rgb", tile=(256, 256), metadata=None)
    with open_slide(tmp_path / "p.tif", mpp=2.0) as slide:
        assert isinstance(slide, Slide)
        streamed = find_tissue(slide)
        assert slide.added_levels_complete
    monkeypatch.undo()
    with open_slide(tmp_path / "p.tif", mpp=2.0) as slide:
        direct = find_tissue(slide)
    assert (streamed.mask == direct.mask).mean() > 0.99
