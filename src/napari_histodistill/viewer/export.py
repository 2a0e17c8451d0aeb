"""What leaves a slide and comes in, for the "Export" widget: files, files to import, copies as plain layers."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from psygnal import Signal

from napari_histodistill.errors import printable
from napari_histodistill.export import (
    KEY,
    ExportOptions,
    ExportRequest,
    ImportRequest,
    apply_import,
    import_tool,
    preview_import,
    run_export,
    sampled,
    source_of,
)
from napari_histodistill.jobs import JobCancelled, JobControl, ThreadJob
from napari_histodistill.viewer.colours import pseudo_mask_colours
from napari_histodistill.viewer.editing import clip_window
from napari_histodistill.viewer.geometry import visible_window
from napari_histodistill.viewer.layers import Role, add_layer, import_layer
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_histodistill.export import ImportPreview, Place, Provenance
    from napari_histodistill.jobs import Progress
    from napari_histodistill.study import StudySlide
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slide_view import OpenSlideView
    from napari_histodistill.viewer.work import AnyJob

COARSEST_COPY: Final = 16384
"""Longer side of a copy, in px, that napari still paints on fluidly."""


class ExportState(enum.Enum):
    """What is under way; the value is what the user reads."""

    NOTHING = "Nothing to export yet: run the teacher first"
    READY = "Ready"
    EXPORTING = "Exporting"
    READING = "Reading the file"
    PREVIEW = "Look at the layer 'import preview', then apply or discard it"
    APPLYING = "Writing into the study"
    COPYING = "Copying"

    @property
    def busy(self) -> bool:
        """Whether work is under way."""
        return self in {ExportState.EXPORTING, ExportState.READING, ExportState.APPLYING, ExportState.COPYING}


@dataclass(frozen=True)
class _After:
    """Work that waits for what the study does not hold yet."""

    before: AnyJob | None
    function: Any
    request: Any


def _do_after(request: _After, control: JobControl) -> Any:
    if request.before is not None:
        request.before.wait()
    return request.function(request.request, control)


@dataclass(frozen=True)
class _CopyRequest:
    entry: StudySlide
    what: str
    mpp: float | None
    window: tuple[int, int, int, int] | None


def _copy(request: _CopyRequest, control: JobControl) -> tuple[Any, Place, Provenance]:
    """A mask as an array on a grid of choice."""
    source = source_of(request.entry, request.what)
    if request.window is not None:
        source = source.cropped(*request.window)
    place = source.place if request.mpp is None else source.place.with_pixels(request.mpp)
    if max(place.shape) > COARSEST_COPY:
        shrink = max(place.shape) / COARSEST_COPY
        place = source.place.with_pixels(max(place.pixel_um) * shrink * 1.001)
    watched = source.watched(control, "Copying")
    told = source.noting(pixel_um=place.pixel_um, corner_um=place.corner_um).provenance
    return sampled(watched.strips(512), source.place, place), place, told


class ExportControl:
    """Export, import and copies of one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    what : str
        "pseudo" or "corrections".
    format : str
        One of `napari_histodistill.export.FORMATS`.
    options : ExportOptions
    folder : Path or None
        Where files go; None for the study.
    progress : Progress or None
        Of the work under way.
    message : str
        What came of the last work, a sentence.
    written : list of Path
        The files of the last export.
    preview : ImportPreview or None
        What would come in.
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.what, self.format = "pseudo", "geojson"
        self.options = ExportOptions()
        self.folder: Path | None = None
        self.progress: Progress | None = None
        self.message = ""
        self.written: list[Path] = []
        self.preview: ImportPreview | None = None
        self._doing = ExportState.READY
        self._work = Latest(view.runner)
        view.teacher.changed.connect(self._on_teacher)
        view.correct.changed.connect(self.changed.emit)

    # State

    @property
    def state(self) -> ExportState:
        """Where things stand."""
        if self._work.busy:
            return self._doing
        if self._result is None:
            return ExportState.NOTHING
        return ExportState.READY if self.preview is None else ExportState.PREVIEW

    @property
    def problem(self) -> str:
        """Why nothing can be imported or exported now, in a sentence; empty if nothing keeps from it."""
        if self._view.teacher.state.busy:
            return "The teacher is at work: wait for it, or stop it."
        return "" if self._result is not None or self._work.busy else f"{ExportState.NOTHING.value}."

    @property
    def place(self) -> Path | None:
        """The folder that files go to; None while there is nothing to export."""
        return self.folder or (None if self._result is None else self._result.entry.folder / "exports")

    @property
    def _result(self) -> ResultView | None:
        return self._view.teacher.result

    @property
    def _can_start(self) -> bool:
        return not self._work.busy and not self.problem

    # Export

    def choose(
        self, *, what: str | None = None, format_: str | None = None, options: ExportOptions | None = None
    ) -> None:
        """Choose what leaves and how."""
        self.what = self.what if what is None else what
        self.format = self.format if format_ is None else format_
        self.options = self.options if options is None else options
        self.changed.emit()

    def choose_folder(self, folder: Path | None) -> None:
        """Choose where files go; None for the study."""
        self.folder = folder
        self.changed.emit()

    def run(self) -> None:
        """Write the files."""
        result = self._result
        if result is None or not self._can_start:
            return
        request = ExportRequest(result.entry.folder, (self.format,), self.what, out=self.place, options=self.options)
        self.written = []
        self._start(ExportState.EXPORTING, run_export, request, self._on_exported)

    def _on_exported(self, written: dict[str, Path]) -> None:
        self.written = list(written.values())
        names = ", ".join(path.name for path in self.written)
        self._finish(f"Written: {names}")

    def cancel(self) -> None:
        """Stop; a file that is not complete is not there."""
        if self._work.job is not None:
            self._work.job.cancel()

    # Import

    def read_file(
        self, file: Path, kind: str, mpp: float | None = None, classes: Mapping[str, str] | None = None
    ) -> None:
        """Read a file and show where it lands; nothing is written.

        Parameters
        ----------
        kind : {"pseudo", "corrections"}
        mpp : float, optional
            Size of a mask's pixels in µm.
        classes : dict of str to str, optional
            What classes of the file mean, see `ImportRequest`.
        """
        result = self._result
        if result is None or not self._can_start:
            return
        self.discard()
        request = ImportRequest(result.entry.folder, file, kind, mpp, classes or {})
        self._start(ExportState.READING, preview_import, request, self._on_previewed)

    def _on_teacher(self) -> None:
        if self.preview is not None and not self._is_of_this_study(self.preview):
            self.discard()
        self.changed.emit()

    def _is_of_this_study(self, preview: ImportPreview) -> bool:
        return preview.request.slide.is_relative_to(self._view.teacher.study_folder)

    def _on_previewed(self, preview: ImportPreview) -> None:
        if not self._is_of_this_study(preview):  # another one was chosen meanwhile
            self._finish("")
            return
        if preview.window is None:
            name = printable(preview.request.file.name)
            self._finish(" ".join([f"{name} says nothing that can be used.", *preview.notes]))
            return
        self.preview = preview
        view = self._view
        add_layer(view.viewer, import_layer(view.slide, view.frame, preview.labels)).editable = False
        areas = ", ".join(f"{name} {area:.3f} mm²" for name, area in preview.areas_mm2.items())
        self._finish(" ".join([f"{printable(preview.request.file.name)}: {areas}.", *preview.notes]))

    def discard(self) -> None:
        """Forget what would come in."""
        self.preview = None
        layer = self._view.layer(Role.IMPORT)
        if layer is not None:
            self._view.viewer.layers.remove(layer)
        self.message = ""
        self.changed.emit()

    def apply(self) -> None:
        """Write what would come in into the study, and show the result anew."""
        preview = self.preview
        if preview is None or not self._can_start:
            return
        before = None if self._result is None else self._result.write_now()
        self._view.teacher.release()  # what is on screen must not be written over what comes in
        if preview.request.kind == "pseudo":
            self._view.tissue.forget()
        self.discard()
        self._doing = ExportState.APPLYING
        self._work.start(
            ThreadJob(_do_after, _After(before, apply_import, preview)),
            progress=self._on_progress,
            done=lambda _: self._on_applied(f"{printable(preview.request.file.name)} is in the study."),
            failed=self._on_apply_failed,
        )
        self.changed.emit()

    @property
    def undo_text(self) -> str:
        """The import as corrections that "Undo" would take back, in words; empty if the last step was none."""
        steps = [] if self._result is None else self._result.mask.undo_steps
        return steps[-1].tool if steps and steps[-1].tool.startswith(import_tool("")) else ""

    def undo(self) -> None:
        """Take back the import that was the last step."""
        if self.undo_text and self._can_start:
            tool = self.undo_text
            self._view.correct.undo()
            self._finish(f"The {tool} was taken back; redo is in the Correct dock.")

    def _on_applied(self, message: str) -> None:
        self._view.teacher.choose_study(self._view.teacher.study_folder)
        self._finish(message)

    def _on_apply_failed(self, error: Exception) -> None:
        self._view.teacher.choose_study(self._view.teacher.study_folder)
        self._on_failed(error)

    # Copies

    def copy_as_layer(self, what: str, mpp: float | None = None, *, visible_only: bool = False) -> None:
        """Add the mask as a plain Labels layer of its own, which nothing follows or saves.

        Parameters
        ----------
        what : {"pseudo", "corrections"}
        mpp : float, optional
            Size of its pixels in µm; by default the working grid's.
        visible_only : bool
            Copy the part that is on screen.
        """
        result = self._result
        if result is None or not self._can_start:
            return
        window = None
        if visible_only and result.mask_layer is not None:
            rows, columns = clip_window(visible_window(result.mask_layer), result.mask.shape)
            window = (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
            if min(window[2:]) < 1:
                self._finish("Nothing of the slide is on screen: move it into view, or copy the whole.")
                return
        self._start(ExportState.COPYING, _copy, _CopyRequest(result.entry, what, mpp, window), self._on_copied)

    def _on_copied(self, copied: tuple[Any, Place, Provenance]) -> None:
        labels, place, made_by = copied
        name = f"{'pseudo-mask' if made_by.what == 'pseudo' else made_by.what} copy"
        settings = {
            "name": name,
            "scale": place.pixel_um,
            "translate": place.translate_um,
            "units": ("um", "um"),
            "metadata": {KEY: made_by.as_dict()},
            "colormap": pseudo_mask_colours(),
            "opacity": 0.5,
        }
        layer = add_layer(self._view.viewer, (np.ascontiguousarray(labels), settings, "labels"))
        self._finish(f"Copied to the layer '{layer.name}': {place.shape[1]} x {place.shape[0]} px.")

    # Work

    def _start(self, state: ExportState, function: Any, request: Any, done: Any) -> None:
        """Begin work that needs the study to hold what is on screen."""
        assert self._result is not None
        self._doing, self.message = state, ""
        self._work.start(
            ThreadJob(_do_after, _After(self._result.write_now(), function, request)),
            progress=self._on_progress,
            done=done,
            failed=self._on_failed,
        )
        self.changed.emit()

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.changed.emit()

    def _finish(self, message: str) -> None:
        self.progress, self.message = None, message
        self.changed.emit()

    def _on_failed(self, error: Exception) -> None:
        self._finish("Cancelled; nothing was left half-written." if isinstance(error, JobCancelled) else "")
        if not isinstance(error, JobCancelled):
            tell(error)

    def close(self) -> None:
        """Stop all work."""
        self._work.cancel()
