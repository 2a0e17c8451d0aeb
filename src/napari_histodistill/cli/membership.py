"""Commands about which slides a study holds: ``study list``, ``add``, ``label``, ``relink``, ``remove``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_histodistill.cli.console import EXIT_SOME_FAILED, print_result, run_shown
from napari_histodistill.cli.options import json_option, mpp_option, study_argument
from napari_histodistill.errors import HistodistillError, printable

if TYPE_CHECKING:
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.predict.overview import Overview
    from napari_histodistill.study import Study, StudySlide

LABELS = ("tumour", "normal", "unknown")
name_argument = click.argument("slide", metavar="NAME")


@click.group(name="study")
def study_commands() -> None:
    """Say which slides a study holds, and what is known of each."""


@study_commands.command(name="list")
@study_argument
@json_option
@click.pass_context
def list_slides(context: click.Context, /, study: Path, as_json: bool) -> None:
    """List the slides of STUDY: label, state, tumour area.

    Exit codes: 0; 1 if something known of a slide cannot be read, which its line says.
    """
    from napari_histodistill.predict.overview import as_dict
    from napari_histodistill.study import Study

    rows = run_shown(_rows, Study.open(study))
    if as_json:
        found = [row.as_dict() | ({} if row.overview is None else as_dict(row.overview)) for row in rows]
        print_result({"slides": found}, as_json)
    else:
        for row in rows:
            click.echo(row.line())
    context.exit(EXIT_SOME_FAILED if any(row.problem for row in rows) else 0)


@dataclass(frozen=True)
class _Row:
    """A slide of a study, or the folder of one whose record cannot be read; and why something cannot."""

    folder: Path
    entry: StudySlide | None
    overview: Overview | None
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, without the overview."""
        problem = {"problem": self.problem} if self.problem else {}
        if self.entry is None:
            return {"slide": self.folder.name} | problem
        path, label = self.entry.known_path, self.entry.label
        return {"slide": path.name, "path": str(path), "label": label, "there": self.entry.is_there} | problem

    def line(self) -> str:
        """Name, label and state, with tabs between."""
        if self.entry is None:
            return f"{printable(self.folder.name)}\t?\t{self.problem}"
        states = [] if self.entry.is_there else ["missing: moved"]
        if self.overview is not None:
            states += [*self.overview.words(), self.overview.areas()]
        said = ", ".join(part for part in (*states, self.problem) if part)
        return f"{printable(self.entry.known_path.name)}\t{self.entry.label}\t{said}"


def _rows(study: Study, control: JobControl) -> list[_Row]:
    """The slides of a study; what is damaged keeps nobody from seeing the others."""
    from napari_histodistill.predict.overview import overview_of

    entries, problems = study.legible_slides()
    rows = [_Row(folder, None, None, str(problem)) for folder, problem in problems.items()]
    for entry in entries:
        try:
            rows.append(_Row(entry.folder, entry, overview_of(entry, control)))
        except HistodistillError as error:
            rows.append(_Row(entry.folder, entry, None, str(error)))
    return sorted(rows, key=lambda row: row.folder)


@study_commands.command()
@study_argument
@click.argument("slides", nargs=-1, required=True, type=click.Path(path_type=Path))
@mpp_option
@json_option
def add(study: Path, slides: tuple[Path, ...], mpp: float | None, as_json: bool) -> None:
    """Put SLIDES into STUDY, which is made if it is new; one that it holds has its place brought up to date."""
    from napari_histodistill.nets import read_card
    from napari_histodistill.slide import open_slide
    from napari_histodistill.study import Study

    target, folders = Study.open_or_create(study), {}
    for path in slides:
        with open_slide(path, mpp=mpp) as slide:
            folders[path.name] = str(target.add_slide(slide, target_mpp=2 * read_card("bundled").mpp).folder)
    print_result(folders, as_json)


@study_commands.command()
@study_argument
@name_argument
@click.argument("label", type=click.Choice(LABELS))
@json_option
def label(study: Path, slide: str, label: str, as_json: bool) -> None:
    """Say whether a slide of STUDY holds tumour."""
    from napari_histodistill.study import SlideLabel, Study

    entry = Study.open(study).slide_named(slide)
    entry.label = SlideLabel(label)
    entry.save()
    print_result({"slide": entry.known_path.name, "label": label}, as_json)


@study_commands.command()
@study_argument
@click.argument("place", type=click.Path(path_type=Path, exists=True))
@click.option("--slide", "name", metavar="NAME", help="PLACE is this slide's file.  [default: look in PLACE for all]")
@json_option
def relink(study: Path, place: Path, name: str | None, as_json: bool) -> None:
    """Say where slides of STUDY are that have moved; they are known by content, whatever they are called now."""
    from napari_histodistill.study import Study, relink_from, relink_slide

    if name is not None:
        entry = Study.open(study).slide_named(name)
        relink_slide(entry, place)
        found = [entry]
    else:
        moved = [entry for entry in Study.open(study).slides() if not entry.is_there]
        found = run_shown(lambda _, control: relink_from(place, moved, control), None)
        if not found:
            missing = f"None of {len(moved)} missing slides is in {place}." if moved else "No slide is missing."
            click.secho(printable(missing), err=True, fg="yellow")
    if found or as_json:
        print_result({entry.folder.name: str(entry.known_path) for entry in found}, as_json)


@study_commands.command()
@study_argument
@name_argument
@json_option
def remove(study: Path, slide: str, as_json: bool) -> None:
    """Take a slide out of STUDY; what was done on it is moved to its folder "removed", not deleted."""
    from napari_histodistill.study import Study, remove_slide

    entry = Study.open(study).slide_named(slide)
    print_result({"slide": entry.known_path.name, "kept_in": str(remove_slide(entry.folder))}, as_json)


@study_commands.command()
@study_argument
@name_argument
@json_option
def restore(study: Path, slide: str, as_json: bool) -> None:
    """Put a slide back that was taken out of STUDY."""
    from napari_histodistill.study import Study, StudyError, StudySlide, removed_slides, restore_slide

    removed = {folder: StudySlide.open(folder).known_path.name for folder in removed_slides(Study.open(study))}
    meant = [folder for folder, name in removed.items() if slide in {name, folder.name}]
    if len(meant) != 1:
        have = ", ".join(folder.name for folder in removed) or "none"
        raise StudyError(f"{slide} does not name one slide that was taken out: choose one of {have}.")
    print_result({"slide": slide, "folder": str(restore_slide(meant[0]).folder)}, as_json)
