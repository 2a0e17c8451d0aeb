"""What is done in the background with slide files: opening one, building its levels, drawing the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.slide import Slide

WARMING_S: Final = 10.0
"""How long a slide waits for libraries that are being loaded; then the window must wait for them."""


@dataclass(frozen=True)
class OpenRequest:
    """A slide file, and what is waited for before its layer is made."""

    path: Path
    after: threading.Event | None


def open_file(request: OpenRequest, control: JobControl) -> Slide:
    """Open a slide."""
    from napari_histodistill.slide import open_slide

    control.progress(0, 0, "Opening the slide")
    slide = open_slide(request.path)
    _ = slide.fingerprint  # whoever asks first has the file read, at a URL over the network
    if request.after is not None:
        request.after.wait(WARMING_S)
    return slide


def build_added_levels(slide: Slide, control: JobControl) -> None:
    """Compute the levels that a file does not hold."""
    slide.build_added_levels(control)


def draw_sample(_request: None, _control: JobControl) -> Path:
    """Draw the sample slide, if it is not in the cache yet."""
    from napari_histodistill.slide.synthetic import sample_slide_path

    return sample_slide_path()
