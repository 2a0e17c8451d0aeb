"""The generated slide: the same every time, with a truth that fits the picture."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_histodistill.slide import synthetic


@pytest.fixture(scope="module")
def drawn() -> synthetic.SyntheticSlide:
    return synthetic.draw_slide((1024, 1536), seed=3)


def test_same_seed_gives_same_pixels(drawn):
    again = synthetic.draw_slide((1024, 1536), seed=3)
    np.testing.assert_array_equal(again.image, drawn.image)
    np.testing.assert_array_equal(again.truth, drawn.truth)


def test_truth_is_darker_than_the_rest_of_the_tissue(drawn):
    brightness = drawn.image.reshape(256, 4, 384, 4, 3).mean(axis=(1, 3, 4))
    tissue = brightness < 225
    assert 0.05 < drawn.truth.mean() < 0.5
    assert brightness[drawn.truth & tissue].mean() < brightness[~drawn.truth & tissue].mean() - 20


def test_written_slide_is_a_tiled_pyramid_with_its_truth_beside_it(drawn, tmp_path):
    path = tmp_path / "slide.tiff"
    synthetic.write_slide(drawn, path)
    with tifffile.TiffFile(path) as tif:
        assert [page.shape for page in tif.pages] == [(1024 >> k, 1536 >> k, 3) for k in range(4)]
        assert all(page.is_tiled for page in tif.pages)
    np.testing.assert_array_equal(synthetic.sample_truth(path), drawn.truth)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slide-truth.png", "slide.tiff"]
