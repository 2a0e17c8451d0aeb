"""What the command line does, as functions for scripts and notebooks; reached as ``napari_histodistill.<name>``.

Every function takes ``progress``, called with a `jobs.Progress` now and then, and raises `HistodistillError` with a
sentence where something can be mended. Options beyond those listed are the fields of the request that is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.jobs import InlineControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from napari_histodistill.distill import DistillResult, StudyResult
    from napari_histodistill.jobs import JobControl, Progress
    from napari_histodistill.mil import Evaluation, TrainResult
    from napari_histodistill.mil.data.cut import CutResult
    from napari_histodistill.nets import Model
    from napari_histodistill.predict import CohortResult
    from napari_histodistill.slide import Slide
    from napari_histodistill.study import Study

    Show = Callable[[Progress], None]


def open_slide(path: Path | str, *, mpp: float | tuple[float, float] | None = None) -> Slide:
    """A slide as a lazy pyramid; see `slide.open_slide`."""
    from napari_histodistill.slide import open_slide

    return open_slide(path, mpp=mpp)


def open_study(folder: Path | str) -> Study:
    """A study: its slides, predictions, masks and corrections; see `study.Study`."""
    from napari_histodistill.study import Study

    return Study.open(folder)


def load_model(where: Path | str = "bundled", device: str | None = None) -> Model:
    """A model, whose ``predict`` takes images; see `nets.load_model`."""
    from napari_histodistill.nets import load_model

    return load_model(where, device)


def sample_slide() -> Path:
    """Path of the generated slide, drawn when it is first asked for (``histodistill demo``)."""
    from napari_histodistill.slide.synthetic import sample_slide_path

    return sample_slide_path()


def describe_slide(path: Path | str, *, mpp: float | None = None, progress: Show | None = None) -> dict[str, Any]:
    """What a slide is, as JSON values: size, levels, pixel size, tissue, warnings (``histodistill info``)."""
    with open_slide(path, mpp=mpp) as slide:
        return describe(slide, InlineControl(progress))


def describe(slide: Slide, control: JobControl) -> dict[str, Any]:
    """The same of an open slide. A pixel size that no slide has is given as the file gives it, beside its warning."""
    from napari_histodistill.slide import find_tissue

    tissue = find_tissue(slide, control=control)
    mpp_y, mpp_x = slide.mpp or slide.metadata.raw_mpp or (None, None)
    return {
        "path": str(slide.path),
        "format": slide.format,
        "vendor": slide.metadata.vendor,
        "width": slide.shape[1],
        "height": slide.shape[0],
        "mpp_x": mpp_x,
        "mpp_y": mpp_y,
        "objective_power": slide.metadata.objective_power,
        "levels": [
            {"width": level.shape[1], "height": level.shape[0], "downsample": round(sum(level.downsample) / 2, 4)}
            for level in slide.levels
            if level.stored
        ],
        "associated_images": list(slide.associated_images()),
        "tissue_fraction": round(tissue.fraction, 4),
        "unreadable_regions": slide.unreadable,
        "warnings": [*slide.warnings, *tissue.warnings],
    }


def segment(
    slides: Path | str | Iterable[Path | str],
    study: Path | str,
    *,
    scheduler: str = "",
    local_workers: int = 0,
    progress: Show | None = None,
    **options: Any,
) -> CohortResult:
    """Find tumour in one slide or several and leave probability and pseudo-mask in a study (``histodistill segment``).

    Parameters
    ----------
    slides : path or iterable of paths
    study : Path or str
        Folder; made if new.
    scheduler, local_workers
        See `predict.CohortRequest`.
    **options
        Of `predict.PredictRequest`: model, device, mpp, resume, threshold, smoothing_um, threads, ...

    Returns
    -------
    CohortResult
        ``summaries`` of the slides that were done, and ``failures``, each with a sentence.
    """
    from napari_histodistill.predict import CohortRequest, PredictRequest, predict_cohort

    paths = [slides] if isinstance(slides, Path | str) else slides
    requests = tuple(PredictRequest(Path(path), Path(study), **options) for path in paths)
    return predict_cohort(CohortRequest(requests, scheduler, local_workers), InlineControl(progress))


def export_files(
    study: Path | str,
    formats: Iterable[str],
    *,
    slide: str | None = None,
    out: Path | str | None = None,
    progress: Show | None = None,
    **options: Any,
) -> dict[str, Path]:
    """Write files of what a study holds of a slide (``histodistill export``).

    Parameters
    ----------
    study : Path or str
    formats : iterable of str
        Of `export.FORMATS`.
    slide : str, optional
        File name of the slide; needed if the study has several.
    out : Path or str, optional
        Folder, or a file name; in the study by default.
    **options
        ``what``, ``round_number`` and ``options`` of `export.export_slide`.
    """
    from napari_histodistill.export import export_slide

    entry, folder = open_study(study).slide_named(slide), None if out is None else Path(out)
    return export_slide(entry, formats, folder, control=InlineControl(progress), **options)


def import_file(
    study: Path | str,
    file: Path | str,
    kind: str,
    *,
    slide: str | None = None,
    mpp: float | None = None,
    classes: Mapping[str, str] | None = None,
    dry_run: bool = False,
    progress: Show | None = None,
) -> dict[str, Any]:
    """Bring annotations or a mask into a study; what it came to, as JSON values (``histodistill import``).

    Parameters
    ----------
    kind : {"pseudo", "corrections"}
        Replace the slide's pseudo-mask, or lay it over the corrections.
    slide : str, optional
        File name of the slide; needed if the study has several.
    mpp, classes
        See `export.ImportRequest`.
    dry_run : bool
        Say where it lands and write nothing.
    """
    from napari_histodistill.export import ImportRequest, apply_import, preview_import

    entry, control = open_study(study).slide_named(slide), InlineControl(progress)
    request = ImportRequest(entry.folder, Path(file), kind=kind, mpp=mpp, classes=dict(classes or {}))
    preview = preview_import(request, control)
    if not dry_run:
        apply_import(preview, control)
    return preview.summary(applied=not dry_run)


def cut_dataset(
    data: Path | str, out: Path | str, mpp: float, *, progress: Show | None = None, **options: Any
) -> CutResult:
    """Cut annotated slides into images with labels (``histodistill cut``); options of `mil.data.CutRequest`."""
    from napari_histodistill.mil.data import CutRequest, cut_dataset

    return cut_dataset(CutRequest(Path(data), Path(out), mpp, **options), InlineControl(progress))


def train_teacher(
    data: Path | str, out: Path | str, *, recipe: str = "default", progress: Show | None = None, **options: Any
) -> TrainResult:
    """Train a teacher from image-level labels (``histodistill train-teacher``); options of `mil.TrainRequest`."""
    from napari_histodistill.mil import TEACHER_RECIPES, TrainRequest, train_teacher

    request = TrainRequest(Path(data), Path(out), recipe=TEACHER_RECIPES[recipe], **options)
    return train_teacher(request, InlineControl(progress))


def distill_dataset(
    data: Path | str,
    out: Path | str,
    *,
    teacher: str = "bundled",
    recipe: str = "default",
    progress: Show | None = None,
    **options: Any,
) -> DistillResult:
    """Distil a teacher on a data set (``histodistill distill --data``); options of `distill.DistillRequest`."""
    from napari_histodistill.distill import DistillRequest, distill, find_recipe

    request = DistillRequest(teacher, Path(data), Path(out), recipe=find_recipe(recipe), **options)
    return distill(request, InlineControl(progress))


def distill_study(
    study: Path | str,
    *,
    teacher: str = "bundled",
    recipe: str = "default",
    progress: Show | None = None,
    **options: Any,
) -> StudyResult:
    """Distil on the slides of a study (``histodistill distill --study``); options of `distill.StudyRequest`."""
    from napari_histodistill.distill import StudyRequest, distill_study, find_recipe

    request = StudyRequest(Path(study), teacher, recipe=find_recipe(recipe), **options)
    return distill_study(request, InlineControl(progress))


def evaluate_model(
    model: Path | str,
    data: Path | str,
    *,
    mpp: float | None = None,
    device: str | None = None,
    progress: Show | None = None,
    **options: Any,
) -> Evaluation:
    """Measure a model on data with masks (``histodistill evaluate``); options of `mil.evaluate_model`."""
    from napari_histodistill.mil import evaluate_model, load_dataset

    loaded, dataset = load_model(model, device), load_dataset(Path(data), mpp)
    return evaluate_model(loaded, dataset, control=InlineControl(progress), **options)
