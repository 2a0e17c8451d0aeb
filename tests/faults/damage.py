"""Damages files of a study, and says what a study holds, to tell whether anything was lost unsaid.

``python tests/faults/damage.py --inputs 100 --seed 1`` damages so many files, one at a time, checks and repairs, and
prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from napari_histodistill.check import CheckRequest, Report, check_study
from napari_histodistill.distill.rounds import Rounds
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import InlineControl
from napari_histodistill.study import Study

DAMAGES = ("bit", "byte", "truncated", "empty", "zeroed")


def damage(path: Path, how: str, rng: random.Random) -> bool:
    """Damage a file; False if it is as it was."""
    before = path.read_bytes()
    data = bytearray(before)
    at = rng.randrange(len(data)) if data else 0
    if how == "bit" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif how == "byte" and data:
        data[at] = rng.randrange(256)
    elif how == "truncated":
        del data[at:]
    elif how == "empty":
        data.clear()
    elif how == "zeroed":
        data = bytearray(len(data))
    path.write_bytes(data)
    return bytes(data) != before


def files_of(folder: Path) -> list[Path]:
    """Every file that matters."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def check(folder: Path, *, repair: bool = False) -> Report:
    return check_study(CheckRequest(folder, repair=repair), InlineControl())


def holdings(folder: Path) -> dict[str, Any]:
    """What a study says when it is read: a sentence in place of what cannot be."""
    said: dict[str, Any] = {}

    def note(name: str, read: Any) -> None:
        try:
            said[name] = read()
        except HistodistillError as error:
            said[name] = f"refused: {error}"

    note("slides", lambda: [(e.fingerprint, e.grid, e.label, str(e.known_path)) for e in Study.open(folder).slides()])
    if isinstance(said["slides"], str):
        return said
    for entry in Study.open(folder).slides():
        note("corrections", lambda entry=entry: _bytes(entry.all_corrections()[:, :]))
        note("tissue", lambda e=entry: None if e.tissue() is None else (_bytes(e.tissue().mask), e.tissue().edited))
        for name, run in (("run", lambda e=entry: e.run), ("prediction", lambda e=entry: e.prediction("0001-0001"))):
            note(f"{name}", lambda run=run: (run().record.state, run().record.summary))
            note(f"{name} probability", lambda run=run: _bytes(_read(run().probability)))
            note(f"{name} mask", lambda run=run: _bytes(_read(run().pseudo_mask)))
    for distillation in Study.open(folder).distillations():
        note("rounds", lambda d=distillation: (Rounds.open(d).roles, Rounds.open(d).rounds))
    return said


def _read(pyramid: Any) -> np.ndarray:
    return pyramid.read(0, 0, *pyramid.shape)


def _bytes(values: np.ndarray) -> bytes:
    return np.asarray(values).tobytes()


def damage_often(inputs: int, seed: int) -> dict[str, Any]:
    """Damage a file of a small study so often, each time of a sound one; what was noticed, mended and lost."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    from make_study_fixture import fill

    rng = random.Random(seed)
    counts = dict.fromkeys(("inputs", "harmless", "noticed", "mended", "loss_told", "unnoticed", "loss_untold"), 0)
    with tempfile.TemporaryDirectory() as name:
        whole, study = Path(name) / "whole" / "study", Path(name) / "study"
        whole.parent.mkdir()
        fill(whole)
        before, files = holdings(whole), files_of(whole)
        while counts["inputs"] < inputs:
            shutil.rmtree(study, ignore_errors=True)
            shutil.copytree(whole, study)
            path = study / rng.choice(files).relative_to(whole)
            if not damage(path, rng.choice(DAMAGES), rng):
                continue
            counts["inputs"] += 1
            noticed, changed = bool(check(study).damaged), holdings(study) != before
            repaired = check(study, repair=True)
            whole_again = not check(study).damaged and holdings(study) == before
            told = any(finding.lost for finding in repaired.damaged)
            counts["noticed"] += noticed
            counts["harmless"] += not noticed and not changed
            counts["unnoticed"] += not noticed and changed
            counts["mended"] += noticed and whole_again
            counts["loss_told"] += not whole_again and told
            counts["loss_untold"] += noticed and not whole_again and not told
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(damage_often(options.inputs, options.seed)))
