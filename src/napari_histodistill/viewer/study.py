"""The study of a viewer, for the "Study" widget: which folder it is, the slides in it, and what is done with them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from napari.utils.notifications import show_warning
from psygnal import Signal

from napari_histodistill.jobs import JobCancelled, ThreadJob
from napari_histodistill.predict.overview import Overview
from napari_histodistill.study import RunState, SlideLabel, Study
from napari_histodistill.viewer.editing import UNDO_LIMIT
from napari_histodistill.viewer.labelling import LabelWriter
from napari_histodistill.viewer.recent import recent_studies
from napari_histodistill.viewer.study_reasons import (
    is_busy,
    why_not_add,
    why_not_add_open,
    why_not_open,
    why_not_remove,
    work_on,
)
from napari_histodistill.viewer.study_work import (
    AddRequest,
    ChooseRequest,
    Listing,
    Looked,
    Opened,
    Outcome,
    RelinkRequest,
    Removed,
    SearchRequest,
    SlideRow,
    add_slides,
    choose_study,
    holds_any,
    list_study,
    look_at_slides,
    open_slides,
    relink,
    remove_slides,
    restore,
    search,
)
from napari_histodistill.viewer.teacher_work import default_study_folder
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_histodistill.jobs import Progress
    from napari_histodistill.slide import Slide
    from napari_histodistill.viewer.labelling import Labels
    from napari_histodistill.viewer.slide_view import OpenSlideView
    from napari_histodistill.viewer.slides import SlideViews
    from napari_histodistill.viewer.work import AnyJob

NEWS_DELAY_S: Final = 0.3
"""News of open slides come with every stroke and tile; the list follows this often."""
BATCH: Final = 4
"""Slides that are looked at in one go; what is visible by then comes next."""


class StudyControl:
    """The study of a viewer.

    Until the user chooses a study, this is the one that the current slide is kept in. Once one is chosen, slides that
    are opened go into it, but for those whose work is kept beside them already.

    Parameters
    ----------
    views : SlideViews

    Attributes
    ----------
    folder : Path or None
        Of the study; None if there is none yet.
    chosen : bool
        Whether the user chose it.
    rows : tuple of SlideRow
        Its slides, by name.
    removed : tuple of Removed
        Slides that were taken out and can be put back.
    thumbnails : dict of Path to uint8 (h, w, 3)
        Pictures of slides, by their folder in the study, as far as they were looked at.
    progress : Progress or None
        Of what is under way.
    note : str
        What was done last, in a few words.
    changed : Signal
        Something that a widget shows has changed.
    """

    changed = Signal()

    def __init__(self, views: SlideViews) -> None:
        self._views = views
        self.folder: Path | None = None
        self.chosen = False
        self.rows: tuple[SlideRow, ...] = ()
        self.removed: tuple[Removed, ...] = ()
        self.thumbnails: dict[Path, NDArray[np.uint8]] = {}
        self.progress: Progress | None = None
        self.note = ""
        self._open: dict[str, OpenSlideView] = {}
        self._visible: frozenset[Path] = frozenset()
        self._looked_at: set[Path] = set()
        self._listing, self._looking, self._work, self._opening = (Latest(views.runner) for _ in range(4))
        self._asking, self._choosing = (Latest(views.runner) for _ in range(2))
        self._labels = LabelWriter(views.runner, self._on_labelled)
        self._news = views.runner.timer(NEWS_DELAY_S, self._on_news)
        views.current_changed.connect(self._on_views)
        views.views_changed.connect(self._on_views)
        self._on_views()
        self._on_news()

    # Which study

    def create(self, folder: Path) -> None:
        """Begin a study in a new or empty folder, with the open slides that have no study yet; or open one."""
        self._choose(ChooseRequest(folder.absolute(), new=True))

    def choose(self, folder: Path, slides: Sequence[Path] = ()) -> None:
        """Make a study the one that slides go into, those given at once; open slides without a study come along."""
        self._choose(ChooseRequest(folder.absolute()), slides)

    def _choose(self, request: ChooseRequest, slides: Sequence[Path] = ()) -> None:
        done = partial(self._on_chosen, request.folder, slides)
        self._choosing.start(ThreadJob(choose_study, request), done=done, failed=self._on_failed)

    def _on_chosen(self, folder: Path, slides: Sequence[Path], new: bool) -> None:
        self._set(folder, chosen=True)
        self._bring_along()
        self._on_news()
        if new:
            self._add_views([view for view in self.strangers if view.study_folder.absolute() == self.folder])
        if slides:
            self.add(slides)

    def keep(self) -> None:
        """Stay with the study of the slide on screen, as if it had been chosen."""
        if self.folder is not None and not self.chosen:
            self.chosen = True
            request = ChooseRequest(self.folder)
            self._choosing.start(ThreadJob(choose_study, request), done=lambda _new: None, failed=self._on_failed)
            self._bring_along()

    def _bring_along(self) -> None:
        for view in self._views.views:
            free = view.has("teacher") and not view.teacher.state.busy and not _has_study(view)
            if free and self.folder is not None:
                view.teacher.choose_study(self.folder)

    def tell_to_choose(self) -> None:
        """Slides were brought, and there is no study for them."""
        show_warning("There is no study to add slides to: make a new one, or open one.")

    def leave(self) -> None:
        """Choose none: slides that are opened have studies of their own again."""
        self._choosing.cancel()
        self._set(None, chosen=False)
        self._on_news()

    def recent(self) -> list[Path]:
        """Studies that were chosen before, the last first, without this one."""
        return [folder for folder in recent_studies() if folder != self.folder]

    def folder_for(self, slide: Slide) -> Path:
        """Where the work on a slide that is opened is kept, unless the user says so in the Teacher widget."""
        own = default_study_folder(slide.path)
        if not self.chosen or self.folder is None:
            return own
        mine = Study(self.folder).holds(slide.fingerprint)
        return own if not mine and Study(own).holds(slide.fingerprint) else self.folder

    def _set(self, folder: Path | None, *, chosen: bool) -> None:
        self.folder, self.chosen, self.note = folder, chosen, ""
        self.rows, self.removed, self.progress = (), (), None
        self.thumbnails.clear()
        self._looked_at.clear()
        for work in (self._listing, self._looking, self._work, self._opening, self._asking):
            work.cancel()
        self.refresh()

    def refresh(self) -> None:
        """Read anew which slides the study holds, and whether they are where they were."""
        if self.folder is not None:
            self._listing.start(ThreadJob(list_study, self.folder), done=self._on_listed, failed=self._on_failed)
        self.changed.emit()

    def _on_listed(self, listing: Listing) -> None:
        known = {row.folder: row for row in self.rows if row.folder in self._looked_at}
        self.rows = tuple(
            replace(row, overview=known[row.folder].overview, problem=row.problem or known[row.folder].problem)
            if row.folder in known
            else row
            for row in listing.rows
        )
        self.removed = listing.removed
        self.changed.emit()
        self._look()

    # What the slides are

    def look_at(self, folders: Iterable[Path]) -> None:
        """Say which rows are on screen: of these pictures and figures are found, the others can wait."""
        self._visible = frozenset(folders)
        self._look()

    def _look(self) -> None:
        waiting = [row for row in self.rows if row.folder in self._visible and row.folder not in self._looked_at]
        todo = tuple(row for row in waiting if not row.problem)[:BATCH]
        if todo and not self._looking.busy:
            job = ThreadJob(look_at_slides, todo)
            self._looking.start(job, progress=self._on_looked, done=lambda _result: self._look())

    def _on_looked(self, progress: Progress) -> None:
        looked: Looked = progress.payload
        self._looked_at.add(looked.folder)
        if looked.thumbnail is not None:
            self.thumbnails[looked.folder] = looked.thumbnail
        self._replace(looked.folder, overview=looked.overview, problem=looked.problem)
        self.changed.emit()

    def _replace(self, folder: Path, **changes: Any) -> None:
        self.rows = tuple(replace(row, **changes) if row.folder == folder else row for row in self.rows)

    def view_of(self, row: SlideRow) -> OpenSlideView | None:
        """The slide in the viewer, if it is open with this study."""
        view = self._open.get(row.fingerprint)
        return view if view is not None and view.study_folder.absolute() == self.folder else None

    def views_of(self, row: SlideRow) -> list[OpenSlideView]:
        """The same slide may have been opened several times."""
        same = [view for view in self._views.views if view.slide.fingerprint == row.fingerprint]
        return [view for view in same if view.study_folder.absolute() == self.folder]

    def overview(self, row: SlideRow) -> Overview | None:
        """What was done on a slide, as it is on screen where it is open; None until it was read."""
        view = self.view_of(row)
        result = view.teacher.result if view is not None and view.has("teacher") else None
        if view is None or result is None:
            return row.overview
        known = row.overview or Overview(tissue=True)
        steps = len(result.mask.undo_steps)
        complete = result.run.record.state is RunState.COMPLETE
        return replace(
            known,
            predicted=complete,
            partial=not complete,
            strokes=steps if steps < UNDO_LIMIT else max(steps, known.strokes),
            rounds=max(known.rounds, len(view.distil.history.predicted) if view.has("distil") else 0),
            figures=result.figures if complete and result.figures.tissue_mm2 > 0 else known.figures,
        )

    def words(self, row: SlideRow) -> str:
        """The state of a slide for people; empty until it is known."""
        if row.problem:
            return row.problem
        overview, busy = self.overview(row), self.busy_with(row)
        said = [*([] if row.there else ["missing: moved"]), *([busy] if busy else [])]
        done = [] if overview is None else overview.words()
        if said and overview is not None and not (overview.predicted or overview.strokes):
            done = []
        return ", ".join(said + done)

    def busy_with(self, row: SlideRow) -> str:
        """What is being done on a slide here, in words; empty for nothing."""
        return next((work for view in self.views_of(row) if (work := work_on(view))), "")

    def set_label(self, rows: Iterable[SlideRow], label: SlideLabel) -> None:
        """Say whether slides hold tumour; kept in the study."""
        chosen = tuple(rows)
        for row in chosen:
            self._replace(row.folder, label=label)
            view = self.view_of(row)
            if view is not None and view.has("teacher") and view.teacher.result is not None:
                view.teacher.result.entry.label = label
        self._labels.write((row.folder, label) for row in chosen)
        self.changed.emit()

    def _on_labelled(self, labels: Labels, problem: str) -> None:
        for folder, label in labels:  # the list may have been read while they were written
            self._replace(folder, label=label)
        if problem:
            self.refresh()
        for view in self._open.values():  # it counts for the others too whether some slide is normal
            if view.has("distil"):
                view.distil.reload()
        self.changed.emit()

    # Coming and going

    @property
    def strangers(self) -> list[OpenSlideView]:
        """Open slides that the study does not hold."""
        held = {row.fingerprint for row in self.rows}
        return [view for fingerprint, view in self._open.items() if fingerprint not in held]

    @property
    def missing(self) -> list[SlideRow]:
        """Slides that are not where they were."""
        return [row for row in self.rows if not row.there]

    @property
    def open_slides(self) -> list[OpenSlideView]:
        """The slides in the viewer, of this study or not."""
        return list(self._open.values())

    @property
    def busy(self) -> bool:
        """Whether slides are being added or looked for."""
        return self._work.busy

    @property
    def listing(self) -> bool:
        """Whether it is not known yet which slides the study holds."""
        return self._listing.busy

    @property
    def opening(self) -> bool:
        """Whether a slide is being opened."""
        return self._opening.busy

    def add(self, paths: Iterable[Path]) -> None:
        """Put slide files into the study."""
        if self.folder is None or why_not_add(self):
            show_warning(why_not_add(self))
        else:
            self._begin(ThreadJob(add_slides, AddRequest(self.folder, tuple((path, None) for path in paths))))

    def add_open(self) -> None:
        """Put the open slides into the study, which they are kept in from now on."""
        if not why_not_add_open(self):
            for view in self.strangers:
                if self.folder is not None and view.study_folder.absolute() != self.folder:
                    view.teacher.choose_study(self.folder)
            self._add_views(self.strangers)

    def _add_views(self, views: Sequence[OpenSlideView]) -> None:
        slides = tuple((view.slide.path, view.slide.mpp) for view in views if view.slide.mpp is not None)
        if self.folder is not None and slides:
            self._begin(ThreadJob(add_slides, AddRequest(self.folder, slides)))

    def relink(self, row: SlideRow, path: Path) -> None:
        """Say where a slide is that has moved; another slide is refused."""
        self._begin(ThreadJob(relink, RelinkRequest(row.folder, path)))

    def search(self, place: Path) -> None:
        """Look for every missing slide in a folder and those inside it."""
        self._begin(ThreadJob(search, SearchRequest(tuple(row.folder for row in self.missing), place)))

    def stop(self) -> None:
        """Stop what is being done; what was done so far stays."""
        self._work.cancel()
        self.progress, self.note = None, "Stopped"
        self.refresh()

    def _begin(self, job: AnyJob) -> None:
        if self.busy:
            return
        self.note = ""
        self._work.start(job, progress=self._on_progress, done=self._on_done, failed=self._on_failed)
        self.changed.emit()

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.changed.emit()

    def _on_done(self, outcome: Outcome) -> None:
        self.progress, self.note = None, outcome.done
        if outcome.problems:
            show_warning("\n".join(outcome.problems))
        self._looked_at.clear()
        self.refresh()

    def _on_failed(self, error: Exception) -> None:
        self.progress = None
        if not isinstance(error, JobCancelled):
            tell(error)
        self.changed.emit()

    def remove(self, rows: Iterable[SlideRow]) -> None:
        """Take slides out of the study; what was done on them is kept aside and can be put back."""
        rows = tuple(rows)
        if why_not_remove(self, rows):
            return
        for row in rows:
            for view in self.views_of(row):
                self._views.drop(view)
        self._looking.cancel()
        self._begin(ThreadJob(remove_slides, rows))

    def restore(self, removed: Removed) -> None:
        """Put a slide back that was taken out."""
        self._begin(ThreadJob(restore, removed))

    # Opening

    def open(self, rows: Sequence[SlideRow]) -> None:
        """Show slides in the viewer, each with what the study holds of it; the last one is the current one."""
        if self.folder is None or why_not_open(self, rows):
            return
        self.keep()
        closed = []
        for row in rows:
            view = self._open.get(row.fingerprint)
            if view is None:
                closed.append(row)
                continue
            if view.study_folder.absolute() != self.folder and not is_busy(view):
                view.teacher.choose_study(self.folder)
            if not self._views.is_alone(view):
                self._views.go_to(view)
        if closed:
            job = ThreadJob(open_slides, tuple(closed))
            self._opening.start(job, progress=self._on_opened, done=self._on_all_opened, failed=self._on_open_failed)
        self.changed.emit()

    def _on_opened(self, progress: Progress) -> None:
        opened: Opened = progress.payload
        view = self._views.show(opened.slide)
        if view is not None:
            self._views.go_to(view)
            if opened.predicted:
                view.distil.reload()  # shows the prediction of the rounds
            self._on_news()  # the teacher shows what the study holds

    def _on_all_opened(self, _result: None) -> None:
        self.changed.emit()

    def _on_open_failed(self, error: Exception) -> None:
        self._on_failed(error)
        self.refresh()  # it may have gone

    # News of open slides

    def _on_views(self, _current: OpenSlideView | None = None) -> None:
        before = self._open
        self._open = {view.slide.fingerprint: view for view in self._views.views}
        gone = before.keys() - self._open.keys()
        self._looked_at -= {row.folder for row in self.rows if row.fingerprint in gone}
        self._news_soon()

    def _news_soon(self) -> None:
        if not self._news.active:
            self._news.start()

    def _on_news(self) -> None:
        """Follow the current slide's study if none was chosen, and see what was added to the study meanwhile."""
        for view in self._open.values():
            view.teacher.changed.connect(self._news_soon, unique=True)
            if view.has("distil"):
                view.distil.changed.connect(self._news_soon, unique=True)
        current = self._views.current
        if not self.chosen:
            folder = current.study_folder.absolute() if current is not None and _has_study(current) else None
            if folder != self.folder:
                self._set(folder, chosen=False)
        strangers = tuple(view.slide.fingerprint for view in self.strangers)
        if self.folder is not None and strangers and not self._listing.busy and not self._asking.busy:
            self._asking.start(ThreadJob(holds_any, (self.folder, strangers)), done=self._on_held)
        for row in self.rows:
            shown = self.view_of(row)
            result = None if shown is None else shown.teacher.result
            if result is not None and result.entry.label is not row.label:
                self._replace(row.folder, label=result.entry.label)
        self.changed.emit()
        self._look()

    def _on_held(self, held: bool) -> None:
        if held:
            self.refresh()

    def close(self) -> None:
        """Stop all work; labels are on disk when this returns."""
        self._news.stop()
        self._asking.cancel()
        self._labels.finish()
        for work in (self._listing, self._looking, self._work, self._opening, self._choosing):
            work.cancel()


def _has_study(view: OpenSlideView) -> bool:
    return (view.study_folder / "study.json").exists()
