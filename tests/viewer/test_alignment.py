"""A mark at known level-0 px lies on the same spot in every layer, at every zoom, out to the slide's edges."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_histodistill.viewer.geometry import Frame, visible_window
from napari_histodistill.viewer.layers import (
    add_layer,
    probability_layer,
    pseudo_mask_layer,
    slide_layer,
    tissue_layer,
)

FRAME = Frame((2201, 3007), (0.5, 0.5))
GRIDS = {"tissue": (97, 133), "pseudo-mask": (550, 752), "probability": (550, 752)}


def layer_with_mark(role, slide, mark):
    """Layer data with the mark; None stands for the slide itself."""
    if role == "slide":
        return slide_layer(slide)
    shape = GRIDS[role]
    covered = mark.mark_on(shape)
    if role == "probability":
        levels = [shape, (275, 376), (138, 188)]
        arrays = [zarr.array(np.rint(255 * mark.mark_on(level)).astype(np.uint8)) for level in levels]
        return probability_layer(slide, FRAME, arrays)
    mask = (covered >= 0.5).astype(np.uint8)
    return (tissue_layer if role == "tissue" else pseudo_mask_layer)(slide, FRAME, mask)


def edges_on(profile):
    """Positions on a line of canvas px where it crosses the middle between its darkest and brightest."""
    middle = (float(profile.min()) + float(profile.max())) / 2
    return [float(i) + 1 for i in np.flatnonzero(np.diff((profile > middle).astype(int)))]


@pytest.mark.viewer
@pytest.mark.parametrize("role", ["slide", "tissue", "pseudo-mask", "probability"])
def test_the_mark_lies_where_it_is_at_every_zoom(window, slide, mark, role):
    layer = add_layer(window.viewer, layer_with_mark(role, slide, mark))
    layer.visible, layer.opacity = True, 1
    shape = FRAME.shape if role == "slide" else GRIDS[role]
    top, bottom, left, right = mark.mark
    for zoom in (0.35, 0.9, 3.0):  # canvas px per µm
        for y, x in ((top, (left + right) / 2), (bottom, (left + right) / 2)):
            assert_edge(window, role, (y, x), axis=0, zoom=zoom, pixel=FRAME.shape[0] / shape[0])
        for y, x in (((top + bottom) / 2, left), ((top + bottom) / 2, right)):
            assert_edge(window, role, (y, x), axis=1, zoom=zoom, pixel=FRAME.shape[1] / shape[1])


def assert_edge(window, role, edge, *, axis, zoom, pixel):
    """Look at a level-0 position on an edge of the mark: the edge is in the middle of the canvas.

    Allowed is half a pixel of the layer, by which its mark was rounded, one pixel of the level on screen, and one of
    the canvas.
    """
    world = tuple((position - 0.5) * 0.5 for position in edge)
    canvas = window.look(world, zoom).astype(float).sum(axis=-1)
    middle = tuple(side // 2 for side in canvas.shape)
    profile = canvas[:, middle[1]] if axis == 0 else canvas[middle[0]]
    expected = len(profile) / 2
    found = min(edges_on(profile), key=lambda position: abs(position - expected))
    on_screen = 1 / (zoom * 0.5) if role in {"slide", "probability"} else 0
    allowed = 1.5 + zoom * 0.5 * ((0.5 * pixel if role != "slide" else 0) + on_screen)
    assert abs(found - expected) <= allowed, f"{role} at zoom {zoom}: {found - expected:.1f} canvas px off"


@pytest.mark.viewer
def test_all_layers_share_the_slides_outer_edges(window, slide):
    full = {
        "tissue": tissue_layer(slide, FRAME, np.ones(GRIDS["tissue"], np.uint8)),
        "pseudo-mask": pseudo_mask_layer(slide, FRAME, np.ones(GRIDS["pseudo-mask"], np.uint8)),
        "probability": probability_layer(
            slide, FRAME, [zarr.array(np.full(s, 255, np.uint8)) for s in ((550, 752), (275, 376))]
        ),
        "slide": slide_layer(slide),
    }
    corners = {"first": (0.0, 0.0), "last": tuple(float(side) for side in FRAME.shape)}
    for name, corner in corners.items():
        for zoom in (0.35,) if name == "first" else (0.35, 3.0):
            world = tuple((position - 0.5) * 0.5 for position in corner)
            for role, layer_data in full.items():
                window.viewer.layers.clear()
                layer = add_layer(window.viewer, layer_data)
                layer.visible, layer.opacity = True, 1
                canvas = window.look(world, zoom).astype(float).sum(axis=-1)
                step = 20 if name == "first" else -20
                for profile in (canvas[:, canvas.shape[1] // 2 + step], canvas[canvas.shape[0] // 2 + step]):
                    found = edges_on(profile)
                    assert abs(found[0] - len(profile) / 2) <= 1.5, f"{role}, {name} corner, zoom {zoom}: {found}"


@pytest.mark.parametrize("shape", [(1, 1), (97, 133), (2201, 3007), (550, 752)])
def test_placed_arrays_cover_the_slide_edge_to_edge(shape):
    place = FRAME.place(shape)
    for axis in (0, 1):
        first = place["translate"][axis] - place["scale"][axis] / 2
        assert first == pytest.approx(-0.5 / 2)
        assert first + shape[axis] * place["scale"][axis] == pytest.approx((FRAME.shape[axis] - 0.5) * 0.5)


def test_a_slide_of_unknown_pixel_size_is_placed_in_pixels():
    place = Frame((100, 200), None).place((50, 50))
    assert place["units"] == ("pixel", "pixel")
    assert place["scale"] == (2, 4)


@pytest.mark.viewer
def test_visible_window_is_the_part_of_the_mask_on_the_canvas(window, slide):
    layer = add_layer(window.viewer, pseudo_mask_layer(slide, FRAME, np.zeros((550, 752), np.uint8)))
    window.look((550.0, 750.0), 20.0)
    rows, columns = visible_window(layer)
    assert rows.start <= 275 <= rows.stop
    assert columns.start <= 375 <= columns.stop
    assert (rows.stop - rows.start) * (columns.stop - columns.start) < 60 * 60
