"""Kills processes that paint and distil on a study at random moments, and compares what is left with what was said.

``python tests/faults/harness.py --kills 200 --seed 1`` prints one line of JSON. Half of the kills come after a random
time, half at a random operation on a file of the study, where a crash does most harm.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import child
import numpy as np
import tifffile
from damage import check

from napari_histodistill.distill import find_recipe
from napari_histodistill.distill.rounds import Rounds
from napari_histodistill.errors import HistodistillError
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME, model_folder, read_card
from napari_histodistill.slide import open_slide
from napari_histodistill.slide.labels import NORMAL, TUMOUR
from napari_histodistill.study import NO_CORRECTION, Entry, RunState, SlideLabel, Study

STUDY_LIFE = 20
"""Kills that one study goes through."""
PROMISED_S = 2.0
LONGEST_S, LONGEST_DISTILLING_S = 3.0, 12.0
"""From when the study is open to the kill."""
OPERATIONS = 150
RECIPE = find_recipe("default")
RECIPE = replace(RECIPE, targets=replace(RECIPE.targets, views=1), batch=2, crop=64)


@dataclass
class Figures:
    """What came of it; a stroke is also an undo or a redo."""

    kills: int = 0
    kills_in_file_operations: int = 0
    reopened: int = 0
    strokes_made: int = 0
    strokes_acknowledged: int = 0
    strokes_lost: int = 0
    unacknowledged_strokes_lost: int = 0
    most_unacknowledged_lost_in_a_kill: int = 0
    slowest_acknowledgement_s: float = 0.0
    studies_damaged: int = 0
    rounds_acknowledged: int = 0
    rounds_lost: int = 0
    predictions_acknowledged: int = 0
    predictions_lost: int = 0
    epochs_seen: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Zygote:
    """A process that has everything imported and forks those that work, so that each starts at once."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            self._serve(theirs)
        theirs.close()

    def _serve(self, requests: socket.socket) -> None:
        file = requests.makefile("rw")
        for line in file:
            order = json.loads(line)
            pids: list[int] = []
            for name in order["works"]:
                pid = os.fork()
                if pid == 0:
                    requests.close()
                    os.setpgid(0, pids[0] if pids else 0)
                    self._work(name, order)
                    os._exit(0)
                os.setpgid(pid, pids[0] if pids else pid)
                pids.append(pid)
            file.write(json.dumps(pids) + "\n")
            file.flush()
            for pid in pids:
                os.waitpid(pid, 0)
            file.write("ended\n")
            file.flush()
        os._exit(0)

    def _work(self, name: str, order: dict[str, Any]) -> None:
        errors = os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(errors, stream)
        os.environ["HISTODISTILL_CACHE"] = order["cache"]
        study, log = Path(order["study"]), child.Log(Path(order[name]))
        if order["operation"]:
            child.kill_at_file_operation(study, order["operation"])
        if name == "paint":
            child.run(child.paint, log, Path(order["slide"]), study, log, order["seed"])
        else:
            child.run(child.distil, log, study, Path(order["teacher"]), log, order["seed"])

    def start(self, **order: Any) -> int:
        """Start the works of an order; their process group."""
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        return int(json.loads(self._line())[0])

    def wait(self, seconds: float | None = None) -> bool:
        """Until all have ended; False if they have not after so long."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return False
        assert self._line() == b"ended\n"
        return True

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self._socket.recv(1)
        return line

    def close(self) -> None:
        self._socket.close()
        os.waitpid(self._pid, 0)


def draw_slide(path: Path) -> Path:
    """Pink speckle with a dark square, 800 x 1200 px of 0.5 µm."""
    speckle = np.random.default_rng(2).normal(0, 8, (200, 300, 1)).repeat(4, 0).repeat(4, 1)
    image = np.clip(np.array([225, 150, 190]) + speckle, 0, 255).astype(np.uint8)
    image[200:400, 300:500] = (90, 40, 140)
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
    return path


def plain_teacher(folder: Path) -> Path:
    """The bundled teacher, taking colours as they are: fitting them is most of a small round."""
    folder.mkdir()
    (folder / WEIGHTS_NAME).write_bytes((model_folder("bundled") / WEIGHTS_NAME).read_bytes())
    card = replace(read_card("bundled"), stain_normalisation=None)
    (folder / CARD_NAME).write_text(card.to_json(), encoding="utf-8")
    return folder


def begin_study(folder: Path, slide: Path) -> Path:
    """A study whose teacher found tumour in the dark square."""
    with open_slide(slide) as opened:
        entry = Study.create(folder).add_slide(opened, target_mpp=2.0)
    entry.label = SlideLabel.TUMOUR
    entry.save()
    entry.save_tissue(np.ones((100, 150), np.uint8), settings={})
    probability = np.zeros(entry.grid.shape, np.uint8)
    probability[50:100, 75:125] = 255
    run = entry.new_run({"model": "by hand"})
    run.probability.write(0, 0, probability)
    with run.replace_pseudo_mask() as target:
        target.write(0, 0, np.where(probability > 0, TUMOUR, NORMAL).astype(np.uint8))
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0})
    return folder


class Harness:
    """Kills and counts.

    Parameters
    ----------
    folder : Path
        For studies and logs.
    """

    def __init__(self, zygote: Zygote, folder: Path, seed: int) -> None:
        self._zygote, self._folder, self._rng = zygote, folder, random.Random(seed)
        self.figures = Figures()
        self._slide, self._teacher = draw_slide(folder / "small.tiff"), plain_teacher(folder / "teacher")
        self._study = folder / "none"
        self._known: list[Entry] = []
        self._rounds = 0

    def run(self, kills: int, *, distilling: float = 1.0) -> Figures:
        """Kill so often; ``distilling`` is the share of kills in which a distillation runs beside the painting."""
        began = time.monotonic()
        for number in range(kills):
            if number % STUDY_LIFE == 0:
                self._study = begin_study(self._folder / f"study-{number}", self._slide)
                self._known, self._rounds = [], 0
            self._one_kill(number, works=["paint", "distil"] if self._rng.random() < distilling else ["paint"])
        self.figures.seconds = round(time.monotonic() - began, 1)
        self.figures.slowest_acknowledgement_s = round(self.figures.slowest_acknowledgement_s, 2)
        return self.figures

    def _one_kill(self, number: int, works: list[str]) -> None:
        logs = {name: self._folder / f"{number}-{name}.log" for name in works}
        in_operation = self._rng.random() < 0.5
        group = self._zygote.start(
            works=works,
            study=str(self._study),
            slide=str(self._slide),
            teacher=str(self._teacher),
            seed=self._rng.randrange(1 << 30),
            operation=self._rng.randrange(1, OPERATIONS) if in_operation else 0,
            errors=str(self._folder / "output.txt"),
            cache=str(self._folder / "cache"),
            **{name: str(path) for name, path in logs.items()},
        )
        longest = LONGEST_DISTILLING_S if "distil" in works else LONGEST_S
        self_killed = self._let_work(logs, longest if in_operation else self._rng.uniform(0, longest))
        if not self_killed:
            os.killpg(group, signal.SIGKILL)
            self._zygote.wait()
        self.figures.kills += 1
        self.figures.kills_in_file_operations += self_killed
        said = {name: child.read_log(path) for name, path in logs.items()}
        for lines in said.values():
            self.figures.errors += [line[2] for line in lines if line[1] in {"error", "problem"}]
        try:
            self._compare(said["paint"], said.get("distil", []))
        except HistodistillError as error:
            self.figures.errors.append(f"after kill {number}: {error}")

    def _let_work(self, logs: dict[str, Path], seconds: float) -> bool:
        """Wait until so long after all have opened the study; True if they have ended before."""
        limit = time.monotonic() + 60
        while not all(path.exists() and path.stat().st_size for path in logs.values()) and time.monotonic() < limit:
            if self._zygote.wait(0.02):
                return True
        return self._zygote.wait(seconds)

    def _compare(self, painted: list[tuple[Any, ...]], distilled: list[tuple[Any, ...]]) -> None:
        """Open the study and see that it has what was acknowledged, and nothing else."""
        (entry,) = Study.open(self._study).slides()
        corrections = entry.all_corrections()
        found = corrections.entries().entries
        made = [line[2] for line in painted if line[1] == "made"]
        acknowledged = max((line[2] for line in painted if line[1] == "saved"), default=0)
        expected = [*self._known, *made]
        kept = [one.identity for one in found]
        if kept != [one.identity for one in expected[: len(kept)]]:
            raise HistodistillError("the journal holds other strokes than were made, or in another order")
        there = len(kept) - len(self._known)
        self._count_strokes(painted, made, acknowledged, there)
        self._known = expected[: len(kept)]
        if not np.array_equal(corrections[:], _replayed(self._known, corrections.shape)):
            raise HistodistillError("the corrections are not what the strokes come to")
        report = check(self._study)
        self.figures.studies_damaged += bool(report.damaged)
        self.figures.errors += [str(finding) for finding in report.damaged]
        self._count_rounds(entry, distilled)
        self.figures.reopened += 1

    def _count_strokes(self, painted: list[tuple[Any, ...]], made: list[Entry], acknowledged: int, there: int) -> None:
        figures = self.figures
        figures.strokes_made += len(made)
        figures.strokes_acknowledged += max(acknowledged, 0)
        times = [line[0] for line in painted if line[1] == "made"]
        last = painted[-1][0] if painted else 0.0
        missing = range(there, len(made))
        overdue = [n for n in missing if n < acknowledged or (last - times[n] > PROMISED_S and n < len(made) - 1)]
        figures.strokes_lost += len(overdue)
        lost = len(missing) - len(overdue)
        figures.unacknowledged_strokes_lost += lost
        figures.most_unacknowledged_lost_in_a_kill = max(figures.most_unacknowledged_lost_in_a_kill, lost)
        waiting = 0
        for line in painted:
            if line[1] == "saved":
                for n in range(waiting, line[2]):
                    figures.slowest_acknowledgement_s = max(figures.slowest_acknowledgement_s, line[0] - times[n])
                waiting = max(waiting, line[2])

    def _count_rounds(self, entry: Any, distilled: list[tuple[Any, ...]]) -> None:
        folders = Study.open(self._study).distillations()
        rounds = Rounds.open(folders[-1]).rounds if folders else []
        done = [line[2] for line in distilled if line[1] == "round"]
        self.figures.rounds_acknowledged += len(done)
        self.figures.epochs_seen += sum(line[1] == "epoch" for line in distilled)
        self._rounds = max([self._rounds, *done])
        self.figures.rounds_lost += max(0, self._rounds - len(rounds))
        for number in (line[2] for line in distilled if line[1] == "predicted"):
            self.figures.predictions_acknowledged += 1
            run = entry.prediction(f"0001-{number:04d}")
            whole = run is not None and run.record.state is RunState.COMPLETE
            self.figures.predictions_lost += not whole


def _replayed(entries: list[Entry], shape: tuple[int, int]) -> np.ndarray:
    """What strokes come to, by their own account."""
    out = np.full(shape, NO_CORRECTION, np.uint8)
    for entry in entries:
        for patch in entry.in_order():
            changed, values = entry.values(patch)
            out[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width][changed] = values
    return out


def kill_often(kills: int, seed: int, *, distilling: float = 1.0) -> Figures:
    """Run the harness in a folder of its own."""
    zygote = Zygote()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Harness(zygote, Path(folder), seed).run(kills, distilling=distilling)
        finally:
            zygote.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--distilling", type=float, default=0.2, help="share of kills with a distillation beside")
    options = parser.parse_args()
    figures = kill_often(options.kills, options.seed, distilling=options.distilling)
    print(json.dumps(asdict(figures)))
    lost = figures.strokes_lost + figures.studies_damaged + figures.rounds_lost + figures.predictions_lost
    sys.exit(bool(lost or figures.errors or figures.reopened < figures.kills))


if __name__ == "__main__":
    main()
