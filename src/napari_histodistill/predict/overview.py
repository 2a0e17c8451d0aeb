"""What a study knows of a slide, in a few numbers: what was done on it, and how much tumour there is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.predict.figures import COUNTED, Figures, summarise_blocks
from napari_histodistill.study import RunState, timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.study import Run, StudySlide

    UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Overview:
    """What was done on a slide of a study.

    Attributes
    ----------
    tissue : bool
        Whether its tissue was found.
    predicted, partial : bool
        Whether a teacher has seen all of it, or some.
    strokes : int
        Corrections that a person made, without those taken back.
    rounds : int
        Rounds of distillation that have a whole prediction of it.
    figures : Figures or None
        Of the mask with corrections laid over it; None before there is a whole one.
    """

    tissue: bool = False
    predicted: bool = False
    partial: bool = False
    strokes: int = 0
    rounds: int = 0
    figures: Figures | None = None

    def words(self) -> list[str]:
        """The state for people, "predicted", "corrected: 3 strokes"."""
        begun = (
            "predicted" if self.predicted
            else "teacher stopped half-way" if self.partial
            else "tissue found" if self.tissue
            else ""
        )  # fmt: skip
        said = [begun] if begun and not self.rounds else []  # a line has no room for what rounds imply
        if self.strokes:
            said.append(f"corrected: {self.strokes} stroke{'s' * (self.strokes != 1)}")
        if self.rounds:
            said.append(f"rounds: {self.rounds}")
        return said or ["not opened yet"]

    def areas(self) -> str:
        """Tumour in mm² and in percent of tissue; empty where it is not known."""
        if self.figures is None:
            return ""
        return f"{self.figures.tumour_mm2:.2f} mm² tumour, {self.figures.tumour_percent:.1f} % of tissue"


def overview_of(entry: StudySlide, control: JobControl) -> Overview:
    """Read what a study knows of a slide; areas are counted anew where corrections came after they were."""
    run = entry.run
    complete = run is not None and run.record.state is RunState.COMPLETE
    corrections = entry.corrections()
    # Number 0 is what the first teacher said, kept when a round was taken as the mask.
    done = [entry.prediction(name) for name in entry.predictions() if not name.endswith("-0000")]
    return Overview(
        tissue=(entry.folder / "tissue.json").exists(),
        predicted=complete,
        partial=run is not None and not complete,
        strokes=0 if corrections is None else len(timeline(corrections.entries().entries)[0]),
        rounds=sum(one is not None and one.record.state is RunState.COMPLETE for one in done),
        figures=_figures(entry, run, control) if run is not None and complete else None,
    )


def _figures(entry: StudySlide, run: Run, control: JobControl) -> Figures | None:
    """From the run's summary, where it was counted with the corrections that there are, else counted.

    Not by the age of files: copies of a study have any, and a prediction that is adopted has figures from before.
    """
    summary, names = run.record.summary or {}, [field.name for field in fields(Figures)]
    corrections = entry.corrections()
    current = corrections is None or summary.get(COUNTED) == corrections.journal_bytes
    if current and all(name in summary for name in names):
        return Figures(**{name: float(summary[name]) for name in names})
    if run.pseudo_mask is None:
        return None
    probability = run.probability.levels[0]

    def blocks() -> Iterator[tuple[UInt8, UInt8]]:
        for y, mask in entry.mask_blocks(run):
            control.checkpoint()
            yield mask, np.asarray(probability[y : y + mask.shape[0]])

    return summarise_blocks(blocks(), entry.grid.pixel_size_um)


def as_dict(overview: Overview) -> dict[str, object]:
    """For JSON: areas beside the rest, null where they are not known."""
    facts = asdict(overview)
    figures = facts.pop("figures") or {}
    return {**facts, "tumour_mm2": figures.get("tumour_mm2"), "tumour_percent": figures.get("tumour_percent")}
