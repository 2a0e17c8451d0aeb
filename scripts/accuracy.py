"""The evidence of docs/results.md: every cell is a run of its own, kept as JSON, and made again only if it is missing.

    python scripts/accuracy.py DATA [--only PATTERN ...] [--work DIR] [--threads N] [--device D]
    python scripts/accuracy.py --table          # docs/results.md anew from the JSON files, without running anything

DATA holds ``ebhi-seg`` and ``glas``. A cell is named KIND-FAMILY-SEED, such as ``teacher-gm-0``, ``ceiling-gm-1`` or
``default-dice-2``: the student of that teacher under the recipe ``default``, ``default@3-gm-0`` the same after three
rounds. Cells run in order of priority; two
processes may share the work. A run that was cut goes on where it stopped.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.recipe import find_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CELLS, PAGE = ROOT / "docs" / "results", ROOT / "docs" / "results.md"
SEEDS = (0, 1, 2)
TEACHER_EPOCHS, ROUNDS = 4, 1
RECIPE_OF = {"teacher": "published", "prior": "default", "ceiling": "default"}
FAMILIES = ("gm", "dice", "attention", "swin")
ABLATIONS = (
    "no-density",
    "no-fusion",
    "no-wce",
    "self-training",
    "paper-loss",
    "trust",
    "default@3",
    "reversal@3",
    "paper",
)
OF_SWIN = ("faint", "default+efficientnet-lite0", "faint+efficientnet-lite0@3")
KEYS = ("dice_pooled", "f1_positive", "f1_negative", "miou", "miou_image", "hd95_um", "calibration_error")
MARK = "<!-- tables: made by scripts/accuracy.py --table, do not edit below -->"


@dataclass(frozen=True)
class Cell:
    """One run: a teacher as published or with the density prior, a ceiling (full masks), or a student.

    The kind of a student is its recipe, with the student's encoder behind a + if it is not its teacher's, and the
    rounds behind an @ if they are not `ROUNDS`.
    """

    kind: str
    family: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its JSON file and folder."""
        return f"{self.kind}-{self.family}-{self.seed}"

    @property
    def recipe(self) -> str:
        """Recipe of a student."""
        return self.kind.partition("@")[0].partition("+")[0]

    @property
    def encoder(self) -> str | None:
        """Encoder of a student, if it is not its teacher's."""
        return self.kind.partition("@")[0].partition("+")[2] or None

    @property
    def rounds(self) -> int:
        """Rounds of a student."""
        return int(self.kind.partition("@")[2] or ROUNDS)

    @property
    def epochs(self) -> int:
        """Epochs of a round of a student: as its recipe has it."""
        return find_recipe(self.recipe).epochs


def cells() -> Iterator[Cell]:
    """Every cell, the most telling first."""
    for family in FAMILIES[:3]:
        for seed in SEEDS:
            yield Cell("teacher", family, seed)
            yield Cell("default", family, seed)
    for seed in SEEDS:
        yield Cell("ceiling", "gm", seed)
    for recipe in ABLATIONS:
        for seed in SEEDS:
            yield Cell(recipe, "gm", seed)
    for seed in SEEDS:
        yield Cell("teacher", "swin", seed)
        for kind in ("default", *OF_SWIN):
            yield Cell(kind, "swin", seed)


def command(cell: Cell) -> str:
    """The command line that makes the cell's model, below a folder DATA and a folder WORK."""
    if cell.kind in RECIPE_OF:
        method = "masks" if cell.kind == "ceiling" else cell.family
        return (
            f"histodistill train-teacher DATA/ebhi-seg --method {method} --recipe {RECIPE_OF[cell.kind]} "
            f"--epochs {TEACHER_EPOCHS} --seed {cell.seed} --threads 1 --out WORK/{cell.name}"
        )
    encoder = f"--encoder {cell.encoder} " if cell.encoder else ""
    return (
        f"histodistill distill --teacher WORK/teacher-{cell.family}-{cell.seed} --data DATA/ebhi-seg "
        f"--rounds {cell.rounds} --epochs {cell.epochs} --seed {cell.seed} --recipe {cell.recipe} {encoder}"
        f"--select masks --threads 1 --out WORK/{cell.name}"
    )


def run(cell: Cell, data: Path, work: Path, threads: int, device: str) -> dict[str, Any]:
    """Train what the cell asks for, and measure it on test patients and on GlaS."""
    from napari_histodistill import __version__
    from napari_histodistill.distill import DistillRequest, distill
    from napari_histodistill.jobs import InlineControl
    from napari_histodistill.mil import TEACHER_RECIPES, TrainRequest, evaluate_model, load_dataset, train_teacher
    from napari_histodistill.nets import load_model

    control = InlineControl(lambda event: print(event.message, flush=True) if event.payload else None)
    folder, start = work / cell.name, time.monotonic()
    rounds: list[dict[str, Any]] = []
    if cell.kind in RECIPE_OF:
        method = "masks" if cell.kind == "ceiling" else cell.family
        if not (folder / "model.json").is_file():
            train_teacher(
                TrainRequest(
                    data=data / "ebhi-seg",
                    out=folder,
                    method=method,
                    epochs=TEACHER_EPOCHS,
                    seed=cell.seed,
                    device=device,
                    threads=threads,
                    resume=True,
                    recipe=TEACHER_RECIPES[RECIPE_OF[cell.kind]],
                ),
                control,
            )
    else:
        teacher = work / f"teacher-{cell.family}-{cell.seed}"
        if not (teacher / "model.json").is_file():
            raise SystemExit(f"{cell.name} needs {teacher.name}: run that first")
        result = distill(
            DistillRequest(
                teacher=str(teacher),
                data=data / "ebhi-seg",
                out=folder,
                rounds=cell.rounds,
                epochs=cell.epochs,
                seed=cell.seed,
                select="masks",
                device=device,
                threads=threads,
                resume=True,
                recipe=find_recipe(cell.recipe),
                encoder=cell.encoder,
            ),
            control,
        )
        rounds = [
            {"round": r.number, "outcome": r.outcome, "score": r.score, "best_before": r.best_before}
            for r in result.rounds
        ]
    seconds = time.monotonic() - start
    sets = {name: load_dataset(data / name) for name in ("ebhi-seg", "glas")}

    def measure(model_folder: Path) -> dict[str, Any]:
        model = load_model(model_folder, device)
        return {name: evaluate_model(model, dataset).to_json() for name, dataset in sets.items()}

    figures = measure(folder)
    last = {}
    if rounds and rounds[-1]["outcome"] != "promoted":  # the last student, which is not the best
        last = {
            name: {key: values[key] for key in KEYS}
            for name, values in measure(folder / "rounds" / str(cell.rounds)).items()
        }
    return {
        **asdict(cell),
        "command": command(cell),
        "rounds": rounds,
        "figures": figures,
        "last_student": last,
        "seconds": round(seconds),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {threads} used, {device}",
        "version": __version__,
    }


def claim(cell: Cell) -> bool:
    """Take a cell for this process; False if another one has it or it is done."""
    CELLS.mkdir(parents=True, exist_ok=True)
    if (CELLS / f"{cell.name}.json").exists():
        return False
    lock = CELLS / f".{cell.name}.lock"
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        pid = lock.read_text() or "0"
        if Path(f"/proc/{pid}").exists() and pid != "0":
            return False
    lock.write_text(str(os.getpid()))
    return True


def read_cells() -> dict[str, dict[str, Any]]:
    """Every cell that was run, by name."""
    paths = [path for path in sorted(CELLS.glob("*.json")) if not path.name.startswith("annotator-")]
    return {path.stem: json.loads(path.read_text()) for path in paths}


def strokes(done: dict[str, dict[str, Any]]) -> list[str]:
    """The curves of scripts/annotator.py as a table."""
    lines = [
        "## Corrections: what strokes are worth",
        "",
        "| arm, seed | strokes | % of training pixels | pooled Dice | % of ceiling | F1 negative | corrected images |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    ceilings = [c["figures"]["ebhi-seg"]["dice_pooled"] for c in done.values() if c["kind"] == "ceiling"]
    for path in sorted(CELLS.glob("annotator-*.json")):
        curve = json.loads(path.read_text())
        for point in curve["points"]:
            own = point["dice_of_corrected_images"]
            share = 100 * point["dice_pooled"] / np.mean(ceilings) if ceilings else float("nan")
            lines.append(
                f"| {curve['arm']}, {curve['seed']} | {point['strokes']} | {point['percent_of_training_pixels']:.2f} "
                f"| {point['dice_pooled']:.3f} | {share:.1f} | {point['f1_negative']:.3f} "
                f"| {'–' if own is None else f'{own:.3f}'} |"
            )
    return [*lines, ""]


def spread(values: list[float]) -> str:
    """Mean and, from two values on, standard deviation over seeds."""
    if not values:
        return "not run"
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else f"{mean} (one seed)"


def table(done: dict[str, dict[str, Any]], data: str, rows: list[tuple[str, str, str]]) -> list[str]:
    """One row (title, kind, family) over its seeds; all-foreground last."""
    lines = [
        f"| {data} | seeds | pooled Dice | F1 positive | F1 negative | mIoU | mIoU image | HD95 µm | calibration |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    baseline = None
    for title, kind, family in rows:
        runs = [done[f"{kind}-{family}-{s}"]["figures"][data] for s in SEEDS if f"{kind}-{family}-{s}" in done]
        values = " | ".join(
            (f"{np.mean([r[k] for r in runs]):.1f}" if runs else "not run")
            if k == "hd95_um"
            else spread([r[k] for r in runs])
            for k in KEYS
        )
        lines.append(f"| {title} | {len(runs)} | {values} |")
        baseline = runs[0]["all_foreground"] if runs else baseline
    if baseline:
        values = " | ".join(f"{baseline[k]:.3f}" if baseline.get(k) is not None else "–" for k in KEYS)
        lines.append(f"| all-foreground | – | {values} |")
    return lines


def write_page() -> None:
    """Replace the tables of docs/results.md."""
    done = read_cells()
    families = [
        (f"{f}, {what}", kind, f) for f in FAMILIES for what, kind in (("teacher", "teacher"), ("student", "default"))
    ]
    rows = [*families, ("full masks", "ceiling", "gm")]
    ablation = [("default", "default", "gm"), *((a, a, "gm") for a in ABLATIONS)]
    lines = [MARK, "", "## Teacher, student, ceiling", ""]
    for data in ("ebhi-seg", "glas"):
        lines += [*table(done, data, rows), ""]
    lines += gains(done)
    lines += ["## Ablation, students of `gm`", ""]
    for data in ("ebhi-seg", "glas"):
        lines += [*table(done, data, ablation), ""]
    weak = [("teacher", "teacher", "swin"), *((kind, kind, "swin") for kind in ("default", *OF_SWIN))]
    lines += ["## Students of `swin`, a weak teacher", ""]
    for data in ("ebhi-seg", "glas"):
        lines += [*table(done, data, weak), ""]
    lines += strokes(done)
    lines += ["## Commands", "", "| cell | command | seconds |", "| --- | --- | --- |"]
    lines += [f"| {name} | `{cell['command']}` | {cell['seconds']} |" for name, cell in done.items()]
    text = PAGE.read_text().split(MARK)[0].rstrip() if PAGE.exists() else "# Results"
    PAGE.write_text(text + "\n\n" + "\n".join(lines) + "\n")


def gains(done: dict[str, dict[str, Any]]) -> list[str]:
    """Student minus teacher of the same seed, and the share of the gap to the mean ceiling that it closes."""
    lines = [
        "| student minus its teacher, pooled Dice | EBHI-Seg test, by seed | share of the gap closed | GlaS, by seed |",
        "| --- | --- | --- | --- |",
    ]
    names = [f"ceiling-gm-{seed}" for seed in SEEDS]
    ceilings = [done[name]["figures"]["ebhi-seg"]["dice_pooled"] for name in names if name in done]
    students = [(family, family, "default") for family in FAMILIES]
    for title, family, kind in [*students, (f"swin, {OF_SWIN[-1]}", "swin", OF_SWIN[-1])]:
        gain: dict[str, list[float]] = {"ebhi-seg": [], "glas": []}
        shares = []
        for seed in SEEDS:
            pair = (f"teacher-{family}-{seed}", f"{kind}-{family}-{seed}")
            if not all(name in done for name in pair):
                continue
            teacher, student = (done[name]["figures"] for name in pair)
            for data, values in gain.items():
                values.append(student[data]["dice_pooled"] - teacher[data]["dice_pooled"])
            if ceilings:
                shares.append(gain["ebhi-seg"][-1] / (np.mean(ceilings) - teacher["ebhi-seg"]["dice_pooled"]))
        signed = {data: ", ".join(f"{v:+.3f}" for v in values) or "not run" for data, values in gain.items()}
        share = ", ".join(f"{100 * s:.0f}%" for s in shares) or "not known"
        lines.append(f"| {title} | {signed['ebhi-seg']} | {share} | {signed['glas']} |")
    return [*lines, ""]


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with ebhi-seg and glas")
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of cells to run, such as 'teacher-gm-*'")
    parser.add_argument("--work", type=Path, default=ROOT / ".work" / "accuracy", help="folder for models")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="only write the page")
    args = parser.parse_args()
    if not args.table:
        if args.data is None:
            parser.error("DATA is missing")
        for cell in cells():
            if not any(fnmatch.fnmatch(cell.name, pattern) for pattern in args.only) or not claim(cell):
                continue
            print(f"== {cell.name}: {command(cell)}", flush=True)
            outcome = run(cell, args.data, args.work, args.threads, args.device)
            (CELLS / f"{cell.name}.json").write_text(json.dumps(outcome, indent=1) + "\n")
            (CELLS / f".{cell.name}.lock").unlink()
    write_page()


if __name__ == "__main__":
    main()
