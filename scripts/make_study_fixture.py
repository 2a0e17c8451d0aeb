"""Make a small study of the format that this version writes, as tests/data/studies/NAME.zip, for a test to keep.

Run it once whenever a format changes, under a new name; what is there already is never made again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_histodistill.distill.rounds import Rounds, record_of
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME, Architecture, ModelCard
from napari_histodistill.slide.labels import IGNORE, NORMAL, TUMOUR
from napari_histodistill.slide.metadata import SlideMetadata
from napari_histodistill.study import SlideLabel, Study, StudySlide

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "studies"


@dataclass
class _Slide:
    """A slide without pixels, which a study may know all the same."""

    path: Path
    shape: tuple[int, int] = (1600, 2400)
    mpp: tuple[float, float] = (0.5, 0.5)
    fingerprint: str = "0123456789abcdef"
    metadata: SlideMetadata = field(default_factory=SlideMetadata)

    def require_mpp(self) -> tuple[float, float]:
        return self.mpp


def fill(folder: Path) -> StudySlide:
    """A slide of 400 x 600 working-grid px with tissue, a run, corrections, a prediction, and a distillation."""
    study = Study.create(folder)
    entry = study.add_slide(_Slide(Path("/slides/small.tiff")), target_mpp=2.0)  # type: ignore[arg-type]
    entry.label = SlideLabel.TUMOUR
    entry.save()
    entry.save_tissue(np.ones((50, 75), np.uint8), settings={"request": {}})
    probability = np.zeros(entry.grid.shape, np.uint8)
    probability[100:200, 150:250] = 255
    for run, settings in ((entry.new_run({"model": "one"}), {}), (entry.new_prediction("0001-0001", {}), {})):
        run.probability.write(0, 0, probability)
        with run.replace_pseudo_mask() as target:
            target.write(0, 0, np.where(probability > 0, TUMOUR, NORMAL).astype(np.uint8))
        entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0, **settings})
    entry.save_corrections_region(10, 20, np.full((40, 60), TUMOUR, np.uint8), tool="brush")
    entry.all_corrections().compact()
    entry.save_corrections_region(300, 500, np.full((50, 50), IGNORE, np.uint8), tool="lasso")
    _distil(study, folder.parent / "teacher")
    return entry


def _distil(study: Study, teacher: Path) -> None:
    """A distillation of one round whose models are cards with a single weight."""
    teacher.mkdir()
    card = ModelCard("first teacher", Architecture("mobilenet-v3-small", (1.0,)), mpp=1.0)
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (teacher / WEIGHTS_NAME).write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    (teacher / CARD_NAME).write_text(card.to_json(), encoding="utf-8")
    rounds = Rounds.begin(study.folder / "distillations" / "0001", teacher, {"teacher": "first teacher"})
    student = rounds.model("rounds/1")
    student.mkdir(parents=True)
    for name in (WEIGHTS_NAME, CARD_NAME):
        (student / name).write_bytes((teacher / name).read_bytes())
    roles, outcome = rounds.roles.after("rounds/1", 0.7, always=False)
    rounds.finish(record_of(1, rounds.roles, "", outcome, 0.7, []), roles)


def main(name: str, *, journal: bool) -> None:
    """Make the zip; without the journal it is a study as it was before there was one."""
    target = FOLDER / f"{name}.zip"
    if target.exists():
        raise SystemExit(f"{target} is kept as it was released: choose another name.")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "study"
        entry = fill(folder)
        if not journal:
            entry.all_corrections().compact()
            for part in ("corrections.journal", "corrections.json", "corrections.lock"):
                (entry.folder / part).unlink()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix != ".lock":
                    archive.write(path, path.relative_to(folder))


if __name__ == "__main__":
    main(sys.argv[1], journal="--without-journal" not in sys.argv)
