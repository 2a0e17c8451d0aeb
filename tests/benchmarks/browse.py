"""Open a slide in a napari window and look around in it; a program of its own, so that each reader has a process.

``python browse.py READER SLIDE``, READER one of `READERS`. It needs napari and the reader alone, so it runs in the
environment of any of them, and prints one line of JSON: seconds and peak resident MiB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

STEPS = 4
"""Places looked at on each level."""


def histodistill(path):
    from napari_histodistill.viewer.reader import read_slides

    return read_slides(path)


def napari_wsi(path):
    from napari_wsi.reader import wsi_reader_openslide

    return wsi_reader_openslide(path)(path)


READERS = {"histodistill": histodistill, "napari-wsi": napari_wsi}


def main(reader: str, slide: str) -> None:
    import napari
    from napari.layers import Layer
    from qtpy.QtWidgets import QApplication

    read = READERS[reader]
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1600, 1000)
    _settle(QApplication, 1.0)
    warm = peak_mb()
    start = time.perf_counter()
    layers = [Layer.create(*layer) for layer in read(slide)]
    opened = time.perf_counter() - start
    image = next(layer for layer in layers if layer.multiscale)
    viewer.add_layer(image)
    first = viewer.screenshot(canvas_only=True, flash=False)
    first_frame = time.perf_counter() - start
    _settle(QApplication, 1.0)
    lit = float((viewer.screenshot(canvas_only=True, flash=False)[..., :3].max(-1) > 40).mean())
    shown = float((first[..., :3].max(-1) > 40).mean())
    start = time.perf_counter()
    frames = 0
    for centre, zoom in _places(viewer, image):
        _look(viewer, centre, zoom)
        viewer.screenshot(canvas_only=True, flash=False)
        frames += 1
    browsing = time.perf_counter() - start
    said = {"open_s": opened, "first_frame_s": first_frame, "browse_s": browsing, "frames": frames}
    said |= {"shown_at_once": shown / lit, "peak_mb": peak_mb(), "before_mb": warm, "levels": len(image.data)}
    print(json.dumps(said), flush=True)
    viewer.close()


def _places(viewer, layer):
    """From the whole slide to its finest level, a few places a third of the canvas apart on each, and back out."""
    scale, shape = layer.scale[-2:], layer.data[0].shape[:2]
    canvas = viewer.screenshot(canvas_only=True, flash=False).shape[:2]
    middle = [shape[i] * scale[i] / 2 for i in (0, 1)]
    views = []
    for level in reversed(layer.data):
        zoom = level.shape[0] / (shape[0] * scale[0])
        stride = [canvas[i] / zoom / 3 for i in (0, 1)]
        views.append([((middle[0] + k * stride[0], middle[1] + k % 2 * stride[1]), zoom) for k in range(STEPS)])
    return [place for view in [*views, *reversed(views)] for place in view]


def _look(viewer, centre, zoom) -> None:
    camera = getattr(viewer, "scene", viewer).camera
    camera.center, camera.zoom = centre, zoom


def _settle(application, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        application.processEvents()
        time.sleep(0.01)


def peak_mb() -> float:
    """Peak resident memory in MiB; on Linux from where no peak of the process that started this one is inherited."""
    status = Path("/proc/self/status")
    if status.exists():
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**10
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main(sys.argv[1], str(Path(sys.argv[2]).resolve()))
