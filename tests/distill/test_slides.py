"""Tiles of a study: their bag labels, their place on the slide, corrections, and those that are held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill import find_recipe
from napari_histodistill.distill import slides as module
from napari_histodistill.distill.slides import (
    CorrectionEvidence,
    NothingToLearnError,
    StudyMaterial,
    TileSettings,
    bag_label,
    held_out,
    is_held_out,
    tile_side,
    tile_starts,
)
from napari_histodistill.mil.sampler import NEGATIVE, POSITIVE, UNKNOWN
from napari_histodistill.nets import read_card
from napari_histodistill.predict.tiling import Window
from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR
from napari_histodistill.study import NO_CORRECTION, Audit, AuditPatch, SlideLabel
from napari_histodistill.study.audit import write_audit

from .conftest import DARK, MARK, MARK_ON_GRID, PINK, make_study
from .conftest import correct as set_by_hand

NONE = NO_CORRECTION


def tiles_of(source: StudyMaterial) -> list:
    try:
        return list(source._tiles(0))
    finally:
        source.close()


def material_of(source: StudyMaterial, recorder):
    try:
        return source.material(recorder)
    finally:
        source.close()


def is_dark(image: np.ndarray) -> np.ndarray:
    """Where an image is nearer to the mark than to the tissue around it; edges are blended when a slide is read."""
    return np.abs(image - DARK.astype(float)).sum(-1) < np.abs(image - PINK.astype(float)).sum(-1)


# Bag labels. Each tile has 20 pixels: the first is what the test says, the others are the rest.


@pytest.mark.parametrize(
    ("slide", "mask", "by_hand", "expected"),
    [
        (SlideLabel.TUMOUR, [TUMOUR] + 19 * [NORMAL], 20 * [NONE], POSITIVE),  # 5%
        (SlideLabel.TUMOUR, [TUMOUR] + 20 * [NORMAL], 21 * [NONE], UNKNOWN),  # less
        (SlideLabel.TUMOUR, 20 * [NORMAL], 20 * [NONE], UNKNOWN),
        (SlideLabel.TUMOUR, 20 * [NORMAL], 20 * [NORMAL], NEGATIVE),
        (SlideLabel.TUMOUR, 19 * [NORMAL] + [OUTSIDE], 19 * [NORMAL] + [NONE], NEGATIVE),  # all of its tissue
        (SlideLabel.TUMOUR, 19 * [NORMAL] + [IGNORE], 19 * [NORMAL] + [IGNORE], NEGATIVE),
        (SlideLabel.TUMOUR, 20 * [NORMAL], 19 * [NORMAL] + [NONE], UNKNOWN),
        (SlideLabel.UNKNOWN, 20 * [TUMOUR], 20 * [NONE], UNKNOWN),
        (SlideLabel.UNKNOWN, 20 * [TUMOUR], 20 * [TUMOUR], UNKNOWN),
        (SlideLabel.UNKNOWN, 20 * [NORMAL], 20 * [NORMAL], NEGATIVE),
        (SlideLabel.NORMAL, 20 * [TUMOUR], 20 * [NONE], NEGATIVE),  # the teacher is wrong there
        (SlideLabel.NORMAL, 20 * [TUMOUR], 19 * [NONE] + [TUMOUR], UNKNOWN),  # a person contradicts the label
        (SlideLabel.TUMOUR, 20 * [OUTSIDE], 20 * [NONE], UNKNOWN),
        (SlideLabel.TUMOUR, 20 * [IGNORE], 20 * [IGNORE], UNKNOWN),
    ],
)
def test_bag_labels(slide, mask, by_hand, expected):
    assert bag_label(slide, np.array([mask], np.uint8), np.array([by_hand], np.uint8)) == expected


# Where tiles lie


def test_tiles_cover_a_span_to_its_end_and_stay_on_the_slide():
    assert tile_starts(0, 400, 104, 400) == [0, 104, 208, 296]
    assert tile_starts(0, 312, 104, 312) == [0, 104, 208]
    assert tile_starts(50, 150, 104, 400) == [50, 96]
    assert tile_starts(380, 20, 104, 400) == [296]  # a span at the edge that is smaller than a tile
    assert tile_starts(-7, 60, 104, 400) == [0]
    assert tile_starts(0, 60, 60, 60) == [0]


def test_a_window_bounds_what_is_learnt_from(marked):
    window = (90, 140, 220, 300)
    tiles = tiles_of(marked.source(window=window))
    assert {(t.window.y, t.window.x) for t in tiles} == {(y, x) for y in (90, 194, 206) for x in (140, 244, 336)}
    assert all(t.window.y + t.window.height <= 310 and t.window.x + t.window.width <= 440 for t in tiles)


def test_a_small_region_at_the_edge_of_the_slide_gives_a_tile(marked, recorder):
    material = material_of(marked.source(window=(390, 590, 10, 10)), recorder)
    assert [image.shape for image in material.seen] == [(208, 208, 3)]


def test_what_a_person_set_in_the_last_rows_is_learnt_from(marked, recorder):
    """The grid's 400 rows are not a whole number of tiles."""
    set_by_hand(marked.entry, (396, 0, 4, 600), NORMAL)
    material = material_of(marked.source(), recorder)
    assert any((place[-8:] == NORMAL).any() for place in material.set_by_hand)


def test_a_mark_is_where_it_is_on_the_slide_and_so_is_what_was_set_on_it(marked, recorder):
    set_by_hand(marked.entry, (100, 150, 100, 100), TUMOUR)
    source = marked.source()
    held = held_out(marked.entry, Window(0, 0, 400, 600))
    every, tiles = source.material(recorder), source._choose()
    source.close()
    dark_on_model_grid = np.zeros((800, 1200), bool)
    dark_on_model_grid[tuple(slice(s.start // 2, s.stop // 2) for s in MARK)] = True
    seen = 0
    for tile, image, by_hand in zip(tiles, every.seen, every.set_by_hand, strict=True):
        window = tile.window.scaled(2)
        dark = is_dark(image)
        np.testing.assert_array_equal(dark, dark_on_model_grid[window.slices])
        learnt = ~held[tile.window.slices].repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal((by_hand == TUMOUR)[learnt], dark[learnt])
        seen += np.count_nonzero(dark)
    assert seen >= 200 * 200


def test_a_slide_smaller_than_a_tile_is_one_tile(marked, recorder):
    material = material_of(marked.source(side=2000), recorder)
    assert [image.shape for image in material.seen] == [(800, 1200, 3)]


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_the_crops_of_a_recipe_lie_inside_its_tiles(recipe):
    recipe = find_recipe(recipe)
    assert recipe.crop / recipe.augmentation.zoom[0] <= tile_side(recipe) + 1
    assert tile_side(find_recipe("default")) == 208


# Which tiles


def test_tissue_counts_artefacts_and_glass_do_not(marked, recorder):
    tissue = np.ones((200, 300), np.uint8)
    tissue[:, 150:] = 0
    tissue[:100, :150] = IGNORE
    tissue[:20, :10] = 1
    marked.entry.save_tissue(tissue, settings={})
    tiles = tiles_of(marked.source())
    assert tiles
    assert all(t.window.y + t.window.height > 200 and t.window.x < 300 for t in tiles)
    material = material_of(marked.source(), recorder)
    for tile, by_hand in zip(tiles_of(marked.source()), sorted_places(material, marked), strict=True):
        artefact = np.zeros((400, 600), bool)
        artefact[40:200, :300], artefact[:40, 20:300] = True, True
        np.testing.assert_array_equal((by_hand == IGNORE)[::2, ::2], artefact[tile.window.slices])


def sorted_places(material, marked):
    """What was set at the places of a material, in the order in which the tiles lie on the slide."""
    source = marked.source()
    order = source._choose()
    source.close()
    pairs = sorted(
        zip([(t.window.y, t.window.x) for t in order], material.set_by_hand, strict=True), key=lambda p: p[0]
    )
    return [place for _, place in pairs]


def test_what_could_not_be_read_is_not_learnt_from(marked):
    run = marked.entry.run
    run.record.unreadable = [(0, 0, 400, 300)]
    run.save()
    assert min(t.window.x for t in tiles_of(marked.source())) >= 200


def test_corrected_tiles_come_first_then_positive_and_others_by_halves(marked, recorder, monkeypatch):
    monkeypatch.setattr(module, "is_held_out", lambda *_: False)
    marked.entry.label = SlideLabel.TUMOUR
    set_by_hand(marked.entry, (310, 10, 4, 4), NORMAL)
    tiles = marked.source(most=5)
    chosen = tiles._choose()
    tiles.close()
    assert len(chosen) == 5
    assert [t.corrected for t in chosen] == [True, True, False, False, False]  # the last two rows of tiles overlap
    assert [t.label for t in chosen[2:]] == [POSITIVE, UNKNOWN, UNKNOWN]
    assert len(material_of(marked.source(most=1), recorder).seen) == 1


def test_tiles_are_drawn_by_the_seed(marked):
    def drawn(seed: int) -> list[Window]:
        source = marked.source(most=6, seed=seed)
        chosen = source._choose()
        source.close()
        return [tile.window for tile in chosen]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_slide_without_tissue_teaches_nothing(marked, recorder):
    marked.entry.save_tissue(np.zeros((200, 300), np.uint8), settings={})
    with pytest.raises(NothingToLearnError, match="no tile to learn from"):
        material_of(marked.source(), recorder)


def test_the_student_sees_every_tile_in_both_colours_and_the_teacher_normalised(marked, recorder):
    card = replace(read_card("bundled"), mpp=1.0)
    source = StudyMaterial([marked.entry], card, TileSettings(), both_stains=True)
    plain = material_of(marked.source(), recorder)
    both = material_of(source, recorder)
    assert both.places == [place for i in range(len(both.seen)) for place in (i, i)]
    for i, image in enumerate(both.seen):
        np.testing.assert_array_equal(both.images[2 * i], image)
        np.testing.assert_array_equal(both.images[2 * i + 1], plain.seen[i])


# What is held out


@pytest.fixture
def small_squares(monkeypatch):
    """Squares of 50 working-grid px, so that some are held out."""
    monkeypatch.setattr(module, "HELD_OUT_SIDE_UM", 100.0)


@pytest.fixture
def corrected_all_over(marked, small_squares):
    """Left half tumour, right half normal, every pixel by hand."""
    set_by_hand(marked.entry, (0, 0, 400, 300), TUMOUR)
    set_by_hand(marked.entry, (0, 300, 400, 300), NORMAL)
    return marked


def test_held_out_squares_are_in_the_evidence_and_nowhere_in_the_targets(corrected_all_over, recorder):
    marked = corrected_all_over
    held = held_out(marked.entry, Window(0, 0, 400, 600))
    assert 0.05 < held.mean() < 0.5
    source = marked.source()
    material, tiles, evidence = source.material(recorder), source._choose(), source.evidence()
    source.close()
    for tile, by_hand in zip(tiles, material.set_by_hand, strict=True):
        finer = held[tile.window.slices].repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(by_hand == IGNORE, finer)
    counted = sum(np.count_nonzero(piece.truth != NONE) for piece in evidence.pieces)
    assert counted == held.sum()


def test_what_is_held_out_decides_no_bag_label_and_no_priority(marked, monkeypatch):
    monkeypatch.setattr(module, "is_held_out", lambda *_: True)
    marked.entry.label = SlideLabel.TUMOUR
    before = [tile.label for tile in tiles_of(marked.source())]
    set_by_hand(marked.entry, (0, 0, 400, 300), NORMAL)
    set_by_hand(marked.entry, (0, 300, 400, 300), TUMOUR)
    tiles = tiles_of(marked.source())
    assert [tile.label for tile in tiles] == before
    assert not any(tile.corrected for tile in tiles)
    assert all((tile.by_hand == IGNORE).all() for tile in tiles)


def test_a_square_stays_held_out_whatever_is_painted_later(marked):
    before = held_out(marked.entry, Window(0, 0, 400, 600))
    set_by_hand(marked.entry, (0, 0, 400, 600), TUMOUR)
    np.testing.assert_array_equal(held_out(marked.entry, Window(0, 0, 400, 600)), before)
    part = Window(150, 330, 90, 200)
    np.testing.assert_array_equal(held_out(marked.entry, part), before[part.slices])


def test_few_corrections_or_of_one_class_are_no_evidence(corrected_all_over):
    def evidence():
        source = corrected_all_over.source()
        found = source.evidence()
        source.close()
        return found

    assert evidence() is not None
    set_by_hand(corrected_all_over.entry, (0, 300, 400, 300), NONE)  # a model that says tumour everywhere would win
    assert evidence() is None
    set_by_hand(corrected_all_over.entry, (0, 0, 400, 300), NONE)
    assert evidence() is None


def test_only_so_many_squares_are_asked_and_always_the_same(corrected_all_over, monkeypatch):
    monkeypatch.setattr(module, "MOST_SQUARES", 4)
    source = corrected_all_over.source()
    first, second = source.evidence(), source.evidence()
    source.close()
    assert len(first.pieces) == 4
    for a, b in zip(first.pieces, second.pieces, strict=True):
        np.testing.assert_array_equal(a.image, b.image)


def test_a_piece_is_seen_with_its_surroundings_and_judged_in_the_square_only(corrected_all_over):
    source = corrected_all_over.source()
    evidence = source.evidence()
    source.close()
    for piece in evidence.pieces:
        assert piece.image.shape[:2] == (2 * piece.truth.shape[0], 2 * piece.truth.shape[1])
        assert piece.truth.shape == piece.tissue.shape
        assert np.count_nonzero(piece.truth != NONE) <= 50 * 50
        assert min(piece.truth.shape) >= 50 + 64  # on at least one side of each axis there is room for all of it


def test_a_piece_has_its_surroundings_and_its_corrections_in_place(marked, small_squares, monkeypatch):
    monkeypatch.setattr(module, "is_held_out", lambda *_: True)
    set_by_hand(marked.entry, (*(s.start for s in MARK_ON_GRID), 100, 100), TUMOUR)
    set_by_hand(marked.entry, (300, 0, 100, 600), NORMAL)
    source = marked.source()
    evidence = source.evidence()
    source.close()
    for piece in evidence.pieces:
        inside = (piece.truth != NONE).repeat(2, 0).repeat(2, 1)
        tumour = (piece.truth == TUMOUR).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(tumour[inside], is_dark(piece.image)[inside])
    assert isinstance(evidence, CorrectionEvidence)


def test_no_slide_stays_open(marked, marked_path, tmp_path):
    """Also where the second slide of a study cannot be opened."""
    gone = make_study(tmp_path / "study", marked_path)
    gone = replace(gone, known_path=tmp_path / "gone.tiff")
    opened = []
    original = module.open_slide

    def spy(*args, **kwargs):
        opened.append(original(*args, **kwargs))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "open_slide", spy)
        with pytest.raises(Exception, match="no longer there"):
            StudyMaterial([marked.entry, gone], marked.card, TileSettings())
    assert len(opened) == 1
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever a closed file says
        opened[0].read_resampled((800, 1200), 0, 0, 8, 8)


def test_is_held_out_for_one_square_in_five(marked):
    share = np.mean([is_held_out(marked.entry, row, column) for row in range(40) for column in range(40)])
    assert 0.15 < share < 0.25


# What is audited


@pytest.fixture
def audited(corrected_all_over):
    """An audit of squares of 50 px; every pixel was corrected too."""
    patches = (AuditPatch(60, 110, 17, 17, 1, 2500), AuditPatch(350, 560, 17, 17, 0, 2500))
    write_audit(corrected_all_over.entry.folder, Audit(0, 50, "", (1, 1), patches, (0, 1), 2))
    return corrected_all_over


def test_audited_squares_are_in_no_training_tile_and_in_no_evidence(audited, recorder):
    source = audited.source()
    tiles, evidence = source._choose(), list(source._held_out_squares(0))
    material = source.material(recorder)
    source.close()
    assert tiles
    assert len(material.seen) == len(tiles)
    for row, column in ((1, 2), (7, 11)):
        square = np.zeros((400, 600), bool)
        square[50 * row : 50 * row + 50, 50 * column : 50 * column + 50] = True
        assert not any(square[tile.window.slices].any() for tile in tiles)
        assert not any(square[window.slices].any() for *_, window in evidence)


def test_an_audit_that_is_drawn_between_rounds_counts_in_the_next(marked, recorder):
    source = marked.source()
    before = len(source._choose())
    patch = AuditPatch(0, 0, 67, 67, 0, 40000)
    write_audit(marked.entry.folder, Audit(0, 200, "", (1, 1), (patch,), (0,), 1))
    after = source._choose()
    assert 0 < len(after) < before
    assert not any(tile.window.y < 200 and tile.window.x < 200 for tile in after)
    everywhere = tuple(replace(patch, y=y, x=x) for y in (0, 200) for x in (0, 200, 400))
    write_audit(marked.entry.folder, Audit(0, 200, "", (1, 1), everywhere, tuple(range(6)), 6))
    with pytest.raises(NothingToLearnError, match="audit less"):
        source.material(recorder)
    source.close()
