"""``make pictures``: the pictures of the documentation, and every dock in both themes, sizes of screen and of letters.

The tutorial is followed as it is written (`walkthrough.tutorial`). Its pictures are made small and put into
``docs/images``; all of them, and a sheet of docks for each theme and size, lie in ``build/pictures`` to be looked at.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from walkthrough.docks import PANELS
from walkthrough.tutorial import (
    SCREEN,
    TUTORIAL,
    Tutorial,
    WaitedInVainError,
    as_on_a_clean_machine,
    in_napari,
    steps_of,
)
from walkthrough.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from walkthrough.docks import Docks

IMAGES: Final = TUTORIAL.parent / "images"
MOST_BYTES: Final = 240_000
SMALL, LARGE = (1366, 768), (1600, 1000)
LOOKS: Final = (
    ("dark", SMALL, None), ("dark", LARGE, None), ("light", SMALL, None), ("light", LARGE, None),
    ("dark", SMALL, 9), ("dark", SMALL, 16), ("light", LARGE, 16),
)  # fmt: skip
"""Theme, window in px, and size of letters in pt if not napari's own."""
A_ROW: Final = 5
GAP_PX, GAP_COLOUR = 6, (255, 0, 255)


def main() -> None:
    """Follow the tutorial, look around, and keep the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/pictures"))
    parser.add_argument("--only-docks", action="store_true", help="empty docks, so no picture for the docs")
    arguments = parser.parse_args()
    out = arguments.out.resolve()

    def take(viewer: Any) -> None:
        watchdog = Watchdog()
        tutorial = Tutorial(viewer, out, watchdog)
        try:
            if not arguments.only_docks:
                illustrate(tutorial)
            look_around(tutorial)
        finally:
            watchdog.stop()

    with tempfile.TemporaryDirectory(prefix="pictures-") as work:
        as_on_a_clean_machine(Path(work))
        in_napari(take)


def illustrate(tutorial: Tutorial) -> None:
    """Follow the tutorial, then look at the docks Study and Review, and put the pictures of all into the docs."""
    page = TUTORIAL.read_text(encoding="utf-8")
    tutorial.follow(page)
    if tutorial.exported is None:
        raise WaitedInVainError("The tutorial exported nothing.")
    shown = {step.name: IMAGES / "tutorial" / f"{step.name}.jpg" for step in steps_of(page) if step.picture}
    hand = tutorial.hand
    study = tutorial.panel("Study")
    hand.wait(lambda: study.study.thumbnails, 30, "the picture of the slide")
    hand.click_in(study.list, study.list.visualRect(study.list.slides.index(0)).center())
    tutorial.picture("study")
    review = tutorial.panel("Review")
    hand.click(review.next_button)
    hand.wait(lambda: not tutorial.view.review.busy, 60, "places to look at")
    hand.pause(1)
    tutorial.picture("review")
    shown |= {name: IMAGES / f"{name}.jpg" for name in ("study", "review")}
    for picture in tutorial.pictures:
        shrink(picture, shown[picture.stem.partition("-")[2]])
    shrink(tutorial.exported, shown["mask"], width=900)


def look_around(docks: Docks) -> None:
    """A sheet for each of `LOOKS`, with every dock from top to bottom."""
    from napari.settings import get_settings

    appearance, hand = get_settings().appearance, docks.hand
    usual = appearance.font_size
    for theme, size, letters in LOOKS:
        hand.viewer.theme = theme
        appearance.font_size = letters or usual
        hand.window.resize(*size)
        hand.pause(1)
        pages = [page for name in PANELS for page in _pages(docks, name)]
        name = f"{theme}-{size[0]}x{size[1]}{f'-{letters}pt' if letters else ''}.png"
        docks.out.mkdir(parents=True, exist_ok=True)
        _sheet(pages).save(docks.out / f"sheet-{name}")
    appearance.font_size = usual
    hand.window.resize(*SCREEN)


def _pages(docks: Docks, name: str) -> list[Image.Image]:
    """A dock and the tabs below it, as often as it takes to see all of it."""
    panel = docks.panel(name)
    bar = panel.verticalScrollBar()
    tops = range(bar.minimum(), bar.maximum() + bar.pageStep(), bar.pageStep()) if bar.maximum() else (0,)
    pages = []
    for top in tops:
        bar.setValue(top)
        docks.hand.pause(0.4)
        window = docks.hand.window.grab().toImage()
        path = docks.out / "page.png"
        docks.out.mkdir(parents=True, exist_ok=True)
        window.save(str(path))
        with Image.open(path) as whole:
            left = panel.mapTo(docks.hand.window, panel.rect().topLeft()).x()
            pages.append(whole.convert("RGB").crop((max(0, left - 4), 0, whole.width, whole.height)))
        path.unlink()
    return pages


def _sheet(pages: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, `A_ROW` in a row."""
    wide, high = max(page.width for page in pages) + GAP_PX, max(page.height for page in pages) + GAP_PX
    sheet = Image.new("RGB", (wide * min(A_ROW, len(pages)), high * -(-len(pages) // A_ROW)), GAP_COLOUR)
    for number, page in enumerate(pages):
        sheet.paste(page, (wide * (number % A_ROW), high * (number // A_ROW)))
    return sheet


def shrink(picture: Path, to: Path, width: int = 1100) -> None:
    """A picture as a JPEG of at most `MOST_BYTES`, in full colour: few colours would lose the masks'."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((width, width), Image.Resampling.LANCZOS)
    to.parent.mkdir(parents=True, exist_ok=True)
    for quality in (88, 82, 75, 68, 60):
        image.save(to, quality=quality, subsampling=0, optimize=True)
        if to.stat().st_size <= MOST_BYTES:
            return
    raise ValueError(f"{to.name} has {to.stat().st_size} bytes at quality {quality}: make it narrower.")


if __name__ == "__main__":
    main()
