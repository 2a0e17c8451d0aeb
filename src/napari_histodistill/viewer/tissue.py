"""Tissue of a slide in a viewer: found in the background, followed live, edited by hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from psygnal import Signal

from napari_histodistill.jobs import JobControl, ThreadJob
from napari_histodistill.slide.labels import IGNORE, OUTSIDE
from napari_histodistill.slide.tissue import TISSUE, Tissue, TissueSettings, find_tissue
from napari_histodistill.viewer.display import show_window
from napari_histodistill.viewer.editing import EditableMask
from napari_histodistill.viewer.layers import TISSUE_VALUES, Role, add_layer, tissue_layer
from napari_histodistill.viewer.painting import Painting
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_histodistill.jobs import Progress
    from napari_histodistill.slide import Slide
    from napari_histodistill.study import SavedTissue
    from napari_histodistill.viewer.editing import Mask
    from napari_histodistill.viewer.slide_view import OpenSlideView

DELAY_S: Final = 0.25
"""Settings are followed once they have rested this long."""


@dataclass(frozen=True)
class _Request:
    slide: Slide
    settings: TissueSettings


def _find(request: _Request, control: JobControl) -> Tissue:
    return find_tissue(request.slide, request.settings, control)


class TissueControl:
    """Finds and holds the tissue mask of one slide.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    settings : TissueSettings
        Of the next or the running search.
    mask : EditableMask or None
        What was found, with what a person set on top.
    warnings : tuple of str
        Of the last search.
    looks_like_he : bool or None
        Whether the slide's colours are those of H&E; None before the first search.
    progress : Progress or None
        Of the search that is under way.
    changed : Signal
        Something that a widget shows has changed.
    mask_changed : Signal
        Pixels of the mask have changed, found or painted.
    """

    changed = Signal()
    mask_changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.settings = TissueSettings()
        self.mask: EditableMask | None = None
        self.warnings: tuple[str, ...] = ()
        self.looks_like_he: bool | None = None
        self.progress: Progress | None = None
        self._edited_before = False
        self._search = Latest(view.runner)
        self._timer = view.runner.timer(DELAY_S, self.find)

    @property
    def busy(self) -> bool:
        """Whether a search is due or under way."""
        return self._search.busy or self._timer.active

    @property
    def layer(self) -> Labels | None:
        """The layer, None before the first search or if the user removed it."""
        return self._view.layer(Role.TISSUE)

    def find(self) -> None:
        """Search with the present settings; what a person painted stays."""
        self._timer.stop()
        job = ThreadJob(_find, _Request(self._view.slide, self.settings))
        self._search.start(job, progress=self._on_progress, done=self._on_found, failed=self._on_failed)
        self.changed.emit()

    def set(self, **settings: Any) -> None:
        """Change settings by name; a mask that is there follows."""
        self.settings = replace(self.settings, **settings)
        if self.mask is not None or self._search.busy:
            self._timer.start()

    def cancel(self) -> None:
        """Stop the search."""
        self._timer.stop()
        self._search.cancel()
        self.progress = None
        self.changed.emit()

    def adopt(self, saved: SavedTissue) -> None:
        """Take over the mask that a study holds, unless there is one here already."""
        if self.mask is not None:
            return
        request = saved.settings.get("request")
        if isinstance(request, dict):
            self.settings = TissueSettings(**request)
        self.warnings = tuple(saved.settings.get("warnings", ()))
        self.looks_like_he = saved.settings.get("looks_like_he")
        self._edited_before = saved.edited
        self._take(saved.mask)

    def forget(self) -> None:
        """Take the mask off the screen: the study's is about to change, and is adopted when it is opened again."""
        self._search.cancel()
        layer, self.mask = self.layer, None
        if layer is not None:
            self._view.viewer.layers.remove(layer)
        self.changed.emit()

    def saved_form(self) -> tuple[Mask, dict[str, Any], bool]:
        """What a study keeps: mask, settings as JSON values, whether a person changed the mask."""
        assert self.mask is not None, "no tissue yet"
        settings = {
            "request": asdict(self.settings),
            "warnings": list(self.warnings),
            "looks_like_he": self.looks_like_he,
        }
        return self.mask.data.copy(), settings, self._edited_before or self.mask.has_edits

    @property
    def fraction(self) -> float:
        """Part of the slide that is tissue, 0 to 1."""
        return self._share(TISSUE)

    @property
    def artefact_fraction(self) -> float:
        """Part of the slide that is artefact, 0 to 1."""
        return self._share(IGNORE)

    def _share(self, value: int) -> float:
        return 0.0 if self.mask is None else float(np.mean(self.mask.data == value))

    def show(self) -> None:
        """Add the layer if the viewer does not have it."""
        if self.mask is not None and self.layer is None:
            viewer, slide = self._view.viewer, self._view.slide
            above = next((self._view.layer(role) for role in (Role.PROBABILITY, Role.PSEUDO_MASK)), None)
            layer: Any = add_layer(viewer, tissue_layer(slide, self._view.frame, self.mask.data), below=above)
            layer.brush_size = 20
            Painting(layer, self.mask, TISSUE_VALUES)

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.changed.emit()

    def _on_found(self, tissue: Tissue) -> None:
        self.progress, self._edited_before = None, False
        self.warnings, self.looks_like_he = tissue.warnings, tissue.looks_like_he
        self._take(tissue.mask)

    def _on_failed(self, error: Exception) -> None:
        self.progress = None
        self.changed.emit()
        tell(error)

    def _take(self, mask: Mask) -> None:
        everything = (slice(0, mask.shape[0]), slice(0, mask.shape[1]))
        if self.mask is None or self.mask.shape != mask.shape:
            self.mask = EditableMask(mask.copy(), values=(OUTSIDE, TISSUE, IGNORE))
            self.mask.edited.connect(self._on_edited)
        else:
            self.mask.set_computed(everything, mask)
        layer = self.layer
        if layer is None:
            self.show()
        else:
            show_window(layer, everything)
        self.changed.emit()
        self.mask_changed.emit()

    def _on_edited(self, _window: Any) -> None:
        self.changed.emit()
        self.mask_changed.emit()

    def close(self) -> None:
        """Stop all work."""
        self._timer.stop()
        self._search.cancel()
