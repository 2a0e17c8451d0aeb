"""Which round the prediction layer shows: the one that is pinned, the best or the latest, as its tiles land."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

from napari_histodistill.jobs import ThreadJob
from napari_histodistill.viewer.editing import window_of
from napari_histodistill.viewer.history import FIRST_TEACHER, History, PredictionRequest, open_prediction
from napari_histodistill.viewer.prediction import PredictionView
from napari_histodistill.viewer.work import Latest

if TYPE_CHECKING:
    from napari_histodistill.distill import Landed, Preview
    from napari_histodistill.study import Run
    from napari_histodistill.viewer.editing import Window
    from napari_histodistill.viewer.result import ResultView
    from napari_histodistill.viewer.slide_view import OpenSlideView


class ShownRound:
    """Keeps the prediction layer of a slide on the round that is to be seen.

    Parameters
    ----------
    view : OpenSlideView

    Attributes
    ----------
    pinned : int or None
        The round that the user wants to see; None follows the best or, without evidence, the latest.
    number : int or None
        The round that the layer shows, `FIRST_TEACHER` or None for none.
    prediction : PredictionView or None
        None while there is no result.
    opened : Signal
        What is on disk of the round was read.
    """

    opened = Signal()

    def __init__(self, view: OpenSlideView) -> None:
        self._view = view
        self.pinned: int | None = None
        self.number: int | None = None
        self.prediction: PredictionView | None = None
        self._result: ResultView | None = None
        self._history, self._learning = History(), False
        self._run: Run | None = None
        """Of the round that is shown, once it was read."""
        self._turning = False  # is another round about to take the place of the one on screen?
        self._landed: list[Window] = []
        """Windows of that round that landed before it was read."""
        self._opening = Latest(view.runner)

    # What there is

    def begin(self, result: ResultView | None) -> None:
        """Another result is on screen, or none any more."""
        if self.prediction is not None:
            self.prediction.close(remove_layers=True)
        self._forget_run()
        self._result, self._history = result, History()
        self.number = self.pinned = None
        self.prediction = None if result is None else PredictionView(self._view, result)

    def follow(self, history: History, *, learning: bool) -> None:
        """Show what is to be seen now that these are the rounds.

        Parameters
        ----------
        history : History
        learning : bool
            Whether rounds are under way: until the first is over, a preview stays on screen.
        """
        other = history.folder != self._history.folder
        if other:
            self.pinned = self.number = None
        self._history, self._learning = history, learning
        number = self._to_show()
        if number is not None or other or not learning:
            self._show(number)

    def pin(self, number: int | None) -> None:
        """Show a round whatever comes, or follow again."""
        self.pinned = number
        self._show(self._to_show())

    def read_again(self) -> None:
        """Look on disk for more of the round that is shown than was told."""
        if self.number and not self._opening.busy:
            self._open(self.number)

    def _to_show(self) -> int | None:
        """The pinned round; else the latest where nothing, nor the user, tells which is better; else the best."""
        if self.pinned is not None:
            return self.pinned
        rounds = self._history.rounds
        if not rounds:
            return None
        undecided = rounds[-1].outcome == "unverified" and self._history.roles.taken != len(rounds)
        return rounds[-1].number if undecided else self._history.best

    def title_of(self, number: int | None) -> str:
        """What the prediction layer is called while it shows a round."""
        rounds = self._history.rounds
        if number is None or not rounds:
            return "prediction: no round yet"
        last = rounds[-1]
        name = f"round {number}, {rounds[number - 1].outcome}" if number else "the first teacher"
        if self.pinned is not None:
            title = f"{name} (pinned)"
        elif number == last.number:
            title = name
        elif self._history.roles.taken == len(rounds):
            title = f"round {number}, taken" if number else "the first teacher, taken"
        else:
            title = f"round {last.number} not better, showing {f'round {number}' if number else 'the teacher'}"
        landing = self._learning and number == last.number
        whole = number == FIRST_TEACHER or landing or number in self._history.predicted
        return f"prediction: {title}" if whole else f"prediction: {title}; this slide is not all predicted"

    # On screen

    def _show(self, number: int | None) -> None:
        if self.prediction is None or self._result is None:
            return
        if number is None:
            self._forget_run()
            self.prediction.hide()
        elif number == self.number and self.prediction.layer is not None:
            self.prediction.set_title(self.title_of(number))
        else:
            self._forget_run()
            self.number, self._turning = number, self.prediction.layer is not None
            if not self._turning:  # otherwise what is on screen stays until the other is read
                self.prediction.show(None, self.title_of(number))
            self._open(number)
        self.number = number

    def _forget_run(self) -> None:
        self._opening.cancel()
        self._run, self._turning = None, False
        self._landed.clear()

    def _open(self, number: int) -> None:
        """Read what is on disk of a round's prediction of this slide, or of the teacher's own, and show it."""
        name = self._history.prediction_name(number)
        if self._result is not None and name is not None:
            request = PredictionRequest(self._result.entry, name, number)
            self._opening.start(ThreadJob(open_prediction, request), done=self._on_opened)

    def _on_opened(self, run: Run | None) -> None:
        self._run = run
        if self.prediction is None:
            return
        if self._turning:
            self._turning = False
            self.prediction.show(run, self.title_of(self.number))
        elif run is not None:
            self.prediction.follow(run)
        if run is not None:  # else not begun yet: the first window that lands looks again
            for window in self._landed:
                self.prediction.land(run, window)
            self._landed.clear()
        self.opened.emit()

    # News of the rounds

    def _is_mine(self, fingerprint: str) -> bool:
        return self._result is not None and fingerprint == self._result.entry.fingerprint

    def preview(self, preview: Preview) -> None:
        """A first look at a student, as long as there is no round to look at and none is pinned."""
        if self.prediction is None or not self._is_mine(preview.fingerprint):
            return
        if self.pinned is None and not self._history.rounds:
            self.prediction.preview(preview, f"preview of round {preview.round} (still learning)")

    def land(self, landed: Landed) -> None:
        """A window of a round's prediction is on disk; of the round that is shown it comes on screen."""
        if self.prediction is None or not self._is_mine(landed.fingerprint):
            return
        if self.number and landed.prediction == self._history.prediction_name(self.number):
            tile = landed.tile
            window = window_of(tile.y, tile.x, tile.height, tile.width)
            if self._run is not None:
                self.prediction.land(self._run, window)
            else:
                self._landed.append(window)
                if not self._opening.busy:
                    self._open(self.number)

    def close(self) -> None:
        """Stop reading and showing."""
        self._opening.cancel()
        if self.prediction is not None:
            self.prediction.close()
