"""ASAP's XML: what is read, what is refused; and that outlines are filled where they are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.slide.annotations import Outline, fill_outlines, read_asap
from napari_histodistill.slide.errors import AnnotationError

TRIANGLE = [(1.5, 2.25), (10, 2), (10, 20)]
SQUARE = np.array([(0.0, 0.0), (0.0, 10.0), (10.0, 10.0), (10.0, 0.0)])


@pytest.fixture
def read(tmp_path):
    """What is read from a text."""

    def read_text(text: str):
        path = tmp_path / "a.xml"
        path.write_text(text)
        return read_asap(path)

    return read_text


def test_outlines_come_with_their_groups_and_points_in_order(read, asap_xml):
    first, second = read(asap_xml(("_0", TRIANGLE), ("Tumor", TRIANGLE[::-1])))
    assert (first.group, second.group) == ("_0", "Tumor")
    assert first.has_area
    np.testing.assert_array_equal(first.points, TRIANGLE)
    np.testing.assert_array_equal(second.points, TRIANGLE[::-1])


@pytest.mark.parametrize("kind", ["Spline", "Rectangle", "polygon"])
def test_splines_and_rectangles_are_the_polygons_through_their_points(read, asap_xml, kind):
    (outline,) = read(asap_xml(("_0", TRIANGLE), kind=kind))
    np.testing.assert_array_equal(outline.points, TRIANGLE)


def test_points_follow_their_order_not_their_place_in_the_file(read, asap_xml):
    text = asap_xml(("_0", [(0, 0), (0, 9), (9, 9), (9, 0)]))
    text = text.replace('Order="1"', 'Order="x"').replace('Order="2"', 'Order="1"').replace('Order="x"', 'Order="2"')
    np.testing.assert_array_equal(read(text)[0].points, [(0, 0), (9, 9), (0, 9), (9, 0)])


@pytest.mark.parametrize(
    ("kind", "points"), [("Dot", TRIANGLE[:1]), ("Measurement", TRIANGLE), ("Polygon", TRIANGLE[:2])]
)
def test_what_has_no_area_says_so(read, asap_xml, kind, points):
    (outline,) = read(asap_xml(("_0", points), kind=kind))
    assert not outline.has_area


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<ASAP_Annotations><Annotations>", "no ASAP XML that can be read"),
        ("<GeoJSON/>", "does not begin with ASAP_Annotations"),
        ("", "no ASAP XML that can be read"),
        (
            '<!DOCTYPE a [<!ENTITY b "boom">]><ASAP_Annotations><Annotations>&b;</Annotations></ASAP_Annotations>',
            "declares entities",
        ),
        (
            '<ASAP_Annotations><Annotation Name="n"><Coordinate Order="0" X="1"/></Annotation></ASAP_Annotations>',
            "a point of the annotation n has no 'Y'",
        ),
        (
            "<ASAP_Annotations><Annotation>"
            + '<Coordinate Order="0" X="nan" Y="1"/>' * 3
            + "</Annotation></ASAP_Annotations>",
            "is no number",
        ),
    ],
)
def test_damaged_and_dangerous_files_are_refused_in_one_sentence(read, text, says):
    with pytest.raises(AnnotationError, match=says):
        read(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"a\.xml cannot be read"):
        read_asap(tmp_path / "a.xml")


def test_overlapping_outlines_are_united_in_any_window():
    outlines = [Outline("a", SQUARE), Outline("b", SQUARE + 5)]
    whole = fill_outlines(outlines, (20, 20), (20, 20), (0, 0, 20, 20))
    assert whole.sum() == 175
    window = fill_outlines(outlines, (20, 20), (20, 20), (-2, 3, 12, 30))
    np.testing.assert_array_equal(window[2:, :17], whole[:10, 3:])
    assert window.sum() == whole[:10, 3:].sum()
    assert not fill_outlines(outlines[:1], (20, 20), (20, 20), (10, 10, 5, 5)).any()


def test_an_outline_on_a_coarser_grid_keeps_its_place():
    filled = fill_outlines([Outline("a", 10 * SQUARE)], (1000, 1300), (317, 403), (0, 0, 317, 403))
    ratio = np.array([317 / 1000, 403 / 1300])
    y, x = (np.arange(n) + 0.5 for n in filled.shape)
    np.testing.assert_array_equal(filled, np.outer(y < 100 * ratio[0], x < 100 * ratio[1]))
