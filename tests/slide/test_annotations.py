"""ASAP's XML: what is read, what is refused; and that outlines are filled where they are."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import polygon

from napari_histodistill.slide.annotations import Outline, fill_outline, fill_outlines, read_asap
from napari_histodistill.slide.errors import AnnotationError

HEAD = '<?xml version="1.0"?>\n'


def annotation(points, group="_0", kind="Polygon", name="a") -> str:
    corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (y, x) in enumerate(points))
    return (
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{corners}</Coordinates></Annotation>"
    )


@pytest.fixture
def write(tmp_path):
    def write_text(*annotations: str, head: str = HEAD):
        body = f"<ASAP_Annotations><Annotations>{''.join(annotations)}</Annotations></ASAP_Annotations>"
        path = tmp_path / "a.xml"
        path.write_text(head + body)
        return path

    return write_text


def area(points: np.ndarray) -> float:
    y, x = points.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


def star(rng: np.random.Generator, centre: tuple[float, float], radius: float, corners: int = 40) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    away = radius * rng.uniform(0.3, 1, corners)
    return np.column_stack([centre[0] + away * np.sin(angle), centre[1] + away * np.cos(angle)])


def test_outlines_come_with_their_groups_and_points_in_order(write):
    triangle = [(1.5, 2.25), (10, 2), (10, 20)]
    path = write(annotation(triangle, "_0"), annotation(triangle[::-1], "Tumor", "Spline"))
    first, second = read_asap(path)
    assert (first.group, second.group) == ("_0", "Tumor")
    np.testing.assert_array_equal(first.points, triangle)
    np.testing.assert_array_equal(second.points, triangle[::-1])


def test_points_follow_their_order_not_their_place_in_the_file(write):
    path = write(annotation([(0, 0), (0, 9), (9, 9), (9, 0)]))
    lines = path.read_text().replace('Order="1"', 'Order="x"').replace('Order="2"', 'Order="1"')
    path.write_text(lines.replace('Order="x"', 'Order="2"'))
    np.testing.assert_array_equal(read_asap(path)[0].points, [(0, 0), (9, 9), (0, 9), (9, 0)])


def test_what_has_no_area_is_left_out(write):
    path = write(annotation([(1, 1)], kind="Dot"), annotation([(1, 1), (2, 2)]), annotation([], kind="Measurement"))
    assert read_asap(path) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<ASAP_Annotations><Annotations>", "cannot be read as XML"),
        ("<GeoJSON/>", "no annotation of ASAP"),
        ("", "cannot be read as XML"),
        (
            '<!DOCTYPE a [<!ENTITY b "boom">]><ASAP_Annotations><Annotations>&b;</Annotations></ASAP_Annotations>',
            "cannot be read as XML",
        ),
        (
            '<ASAP_Annotations><Annotation Name="n"><Coordinate Order="0" X="1"/></Annotation></ASAP_Annotations>',
            "annotation n has a point without",
        ),
        (
            "<ASAP_Annotations><Annotation>"
            + '<Coordinate Order="0" X="nan" Y="1"/>' * 3
            + "</Annotation></ASAP_Annotations>",
            "no number",
        ),
    ],
)
def test_damaged_and_dangerous_files_are_refused_in_one_sentence(tmp_path, text, says):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=says):
        read_asap(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"a\.xml cannot be read"):
        read_asap(tmp_path / "a.xml")


def test_filling_equals_scikit_image_in_any_window():
    rng, margin = np.random.default_rng(0), 200
    for _ in range(20):
        corners = star(rng, tuple(rng.uniform(40, 160, 2)), 90)
        whole = np.zeros((600, 630), bool)
        whole[polygon(*(corners + margin - 0.5).T, shape=whole.shape)] = True
        y, x = rng.integers(-30, 120, 2)
        window = whole[margin + y : margin + y + 90, margin + x : margin + x + 70]
        np.testing.assert_array_equal(fill_outline(corners, (200, 230), (200, 230), (y, x, 90, 70)), window)


def test_an_outline_on_a_coarser_grid_keeps_area_and_place():
    corners = star(np.random.default_rng(3), (500, 700), 400)
    grid = (317, 403)
    filled = fill_outline(corners, (1000, 1300), grid, (0, 0, *grid))
    ratio = np.array(grid) / (1000, 1300)
    assert filled.sum() == pytest.approx(area(corners * ratio), rel=0.01)
    centres = (np.argwhere(filled) + 0.5) / ratio
    dense = np.argwhere(fill_outline(corners, (1000, 1300), (1000, 1300), (0, 0, 1000, 1300))) + 0.5
    np.testing.assert_allclose(centres.mean(0), dense.mean(0), atol=1.0)


def test_rectangles_that_share_an_edge_through_pixel_centres_share_no_pixel_and_leave_none_out():
    left = np.array([(0.5, 0.5), (0.5, 10.5), (20.5, 10.5), (20.5, 0.5)])
    right = left + np.array([0, 10])
    masks = [fill_outline(corners, (40, 40), (40, 40), (0, 0, 40, 40)) for corners in (left, right)]
    assert not (masks[0] & masks[1]).any()
    assert [mask.sum() for mask in masks] == [200, 200]


def test_overlapping_outlines_are_united():
    square = np.array([(0.0, 0.0), (0.0, 10.0), (10.0, 10.0), (10.0, 0.0)])
    both = fill_outlines([Outline("a", square), Outline("b", square + 5)], (20, 20), (20, 20), (0, 0, 20, 20))
    assert both.sum() == 175
    assert not fill_outlines([Outline("a", square)], (20, 20), (20, 20), (10, 10, 5, 5)).any()
