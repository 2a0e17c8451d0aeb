"""Where to look next, for the "Review" widget: the layer of uncertainty, and a tour of the places it leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from napari_histodistill.jobs import ThreadJob
from napari_histodistill.predict.uncertainty import UncertaintyMap, places_to_look_at, uncertainty_map
from napari_histodistill.study.review import Seen, change_seen, read_seen
from napari_histodistill.viewer.geometry import fly_to
from napari_histodistill.viewer.keeping import Keeper
from napari_histodistill.viewer.layers import Role, add_layer, place_layer, uncertainty_layer
from napari_histodistill.viewer.shown import OfShown, Shown, shown_prediction
from napari_histodistill.viewer.work import Latest, tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.predict.uncertainty import Place
    from napari_histodistill.study import StudySlide, TissueOnGrid
    from napari_histodistill.viewer.editing import Mask
    from napari_histodistill.viewer.slide_view import OpenSlideView

Change: TypeAlias = Callable[[Seen], Seen]
SHARE: Final = 0.5
"""Of the canvas, that a place takes up."""


@dataclass(frozen=True)
class _Request:
    entry: StudySlide
    shown: Shown
    tissue: TissueOnGrid
    hand: Mask
    known: UncertaintyMap | None
    seen: Seen | None


@dataclass(frozen=True)
class _Looked:
    shown: Shown
    uncertainty: UncertaintyMap
    seen: Seen
    places: tuple[Place, ...]


def _look(request: _Request, control: JobControl) -> _Looked | None:
    """Find the places of a prediction that are still open; None if the prediction has gone meanwhile."""
    control.progress(0, 0, "Looking where the model is uncertain")
    entry, shown, uncertainty = request.entry, request.shown, request.known
    seen = read_seen(entry.folder) if request.seen is None else request.seen
    if uncertainty is None:
        runs = [
            None if name is None else entry.prediction(name) if name else entry.run
            for name in (shown.name, shown.teacher)
        ]
        if runs[0] is None:
            return None
        teacher = None if runs[1] is None else runs[1].probability
        uncertainty = uncertainty_map(runs[0].probability, teacher, request.tissue, entry.grid.pixel_size_um)
    control.checkpoint()
    return _Looked(shown, uncertainty, seen, places_to_look_at(uncertainty, request.hand, seen.closed(shown.key)))


class ReviewControl(OfShown):
    """The tour of one slide in a viewer.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    place : Place or None
        Where the tour stands.
    left : int or None
        How many places are open besides; None while that is not known.
    """

    def __init__(self, view: OpenSlideView) -> None:
        super().__init__(view)
        self.place: Place | None = None
        self.left: int | None = None
        self._shown: Shown | None = None
        self._map: UncertaintyMap | None = None
        self._seen: Seen | None = None
        self._trail: list[Place] = []
        self._wanted = self._going = False
        self._keeper: Keeper[Change, Seen] = Keeper(view.runner, _keep, self._on_kept)
        self._work = Latest(view.runner)
        self._rest = view.runner.timer(0, self._show_map)
        self._begin()

    # State

    @property
    def busy(self) -> bool:
        """Whether places are being looked for."""
        return self._work.busy

    @property
    def shows_uncertainty(self) -> bool:
        """Whether the layer of uncertainty is on screen, or will be when it is computed."""
        layer = self._view.layer(Role.UNCERTAINTY)
        return self._wanted if layer is None else self._view.shows(layer)

    @property
    def has_teacher(self) -> bool:
        """Whether the prediction on screen is compared with that of its teacher."""
        return self._shown is not None and self._shown.teacher is not None

    @property
    def can_go_back(self) -> bool:
        """Whether there is a place before this one."""
        return self.place is not None and self._trail.index(self.place) > 0

    @property
    def skipped(self) -> int:
        """How many places stay closed because they were skipped."""
        return 0 if self._seen is None else len(self._seen.skipped)

    # What the user does

    def show_uncertainty(self, on: bool) -> None:
        """Show or hide the layer; it is computed when it is first wanted."""
        self._wanted = on
        layer = self._view.layer(Role.UNCERTAINTY)
        if layer is not None:  # of the prediction on screen: another one takes a hidden layer away
            self._view.set_shown(layer, on=on)
        elif on and self._map is not None:
            self._show_map()
        elif on and not self._work.busy:
            self._start(go=False)
        self.changed.emit()

    def next(self) -> None:
        """Fly to the most useful place that was not shown yet, or on along the way that one went back."""
        if self.reason:
            return
        ahead = 0 if self.place is None else self._trail.index(self.place) + 1
        if ahead < len(self._trail):
            self._go(self._trail[ahead])
        elif self._work.busy:
            self._going = True
        else:
            self._start(go=True)

    def skip(self) -> None:
        """Close this place for good, also for later rounds, and fly on."""
        if self.place is not None and self._seen is not None:
            where = (self.place.y, self.place.x)
            self._note(lambda seen: seen.with_skipped(where))
            self.next()

    def back(self) -> None:
        """Fly to the place before."""
        if self.place is not None and self.can_go_back:
            self._go(self._trail[self._trail.index(self.place) - 1])

    def begin_anew(self) -> None:
        """Open all places again, the skipped ones too."""
        if self._seen is not None:
            self._note(lambda _seen: Seen())
        self._leave()
        self.changed.emit()

    # Looking

    def _start(self, *, go: bool) -> None:
        if self._result is None or self._shown is None:
            return
        self._going = go
        request = _Request(
            self._result.entry,
            self._shown,
            self._result.tissue_on_grid(),
            self._result.mask.hand,
            self._map,
            self._seen,
        )
        self._work.start(ThreadJob(_look, request), done=self._on_looked, failed=self._on_failed)
        self.changed.emit()

    def _on_looked(self, looked: _Looked | None) -> None:
        if looked is not None:
            self._map, self.left = looked.uncertainty, len(looked.places)
            self._seen = self._seen or looked.seen
            arrives = self._going and bool(looked.places) and self._view.in_front
            if arrives:
                self._arrive(looked.places[0], looked.shown)
            if self._wanted and arrives:  # not in one go: each layer costs napari 0.1 to 0.2 s
                self._rest.start()
            elif self._wanted:
                self._show_map()
        self._going = False
        self.changed.emit()

    def _on_failed(self, error: Exception) -> None:
        self._going = False
        tell(error)
        self.changed.emit()

    def _show_map(self) -> None:
        if self._map is None:  # another prediction came before
            return
        layer: Any = self._view.layer(Role.UNCERTAINTY)
        if layer is None:
            data = uncertainty_layer(self._view.slide, self._view.frame, self._map.shown)
            layer = add_layer(self._view.viewer, data, below=self._result and self._result.mask_layer)
            self._view.set_shown(layer, on=self._wanted)
        elif layer.data is not self._map.shown:
            layer.data = self._map.shown

    # The tour

    def _arrive(self, place: Place, shown: Shown) -> None:
        self.left = max(0, (self.left or 0) - 1)
        self._trail.append(place)
        self._note(lambda seen: seen.with_visited(shown.key, (place.y, place.x)))
        self._go(place)

    def _go(self, place: Place) -> None:
        self.place = place
        view, pixel = self._view, self._view.frame.pixel
        data = place_layer(view.slide, view.frame, (place.y, place.x), place.side)
        layer: Any = view.layer(Role.PLACE)
        if layer is None:
            layer = add_layer(view.viewer, data)
            layer.editable, layer.contour = False, 1
        else:  # a new layer takes some ten times as long
            layer.translate = data[1]["translate"]
        layer.visible = True
        fly_to(view.viewer, (place.y - pixel[0] / 2, place.x - pixel[1] / 2), place.side, SHARE)
        self.changed.emit()

    def _leave(self) -> None:
        self.place = self.left = None
        self._trail.clear()
        self._remove(Role.PLACE)

    def _remove(self, role: Role) -> None:
        layer = self._view.layer(role)
        if layer is not None:
            self._view.viewer.layers.remove(layer)

    def _note(self, change: Change) -> None:
        """Change where one has looked, here and, beside the changes of other windows, on disk."""
        self._seen = change(self._seen or Seen())
        if self._result is not None:
            self._keeper.keep(self._result.entry, change)

    def _on_kept(self, seen: Seen) -> None:
        self._seen = _changed(seen, self._keeper.waiting)

    # News

    def _leave_result(self) -> None:
        self._keeper.leave()
        self._work.cancel()
        self._seen = self._shown = self._map = None
        self._leave()
        self._remove(Role.UNCERTAINTY)

    def _on_shown(self) -> None:
        """Another prediction of the same slide opens its places again."""
        shown = shown_prediction(self._view)
        if shown is not None and shown != self._shown:
            self._work.cancel()
            self._shown, self._map, self.left = shown, None, None
            if self._wanted or self.shows_uncertainty or self._going:
                self._start(go=self._going)
            else:
                self._remove(Role.UNCERTAINTY)

    def close(self) -> None:
        """Stop looking; where one has looked is on disk when this returns."""
        self._rest.stop()
        self._work.cancel()
        self._keeper.leave()


def _keep(entry: StudySlide, changes: tuple[Change, ...]) -> Seen:
    return change_seen(entry.folder, partial(_changed, changes=changes))


def _changed(seen: Seen, changes: Iterable[Change]) -> Seen:
    return reduce(lambda before, change: change(before), changes, seen)


KEYS: Final[dict[str, tuple[str, Callable[[ReviewControl], None]]]] = {
    "J": ("next place", ReviewControl.next),
    "Shift-J": ("skip this place for good", ReviewControl.skip),
    "Control-J": ("back to the place before", ReviewControl.back),
}
"""Keys of the viewer that napari gives to nothing."""
