"""The command line: ``histodistill``.

Results go to stdout (one JSON object with ``--json``), progress and warnings to stderr. What the user can mend is one
sentence on stderr and exit code 2.
"""

from __future__ import annotations

from typing import Any

import click

from napari_histodistill import __version__
from napari_histodistill.cli.membership import study_commands
from napari_histodistill.cli.slides import demo, info, segment
from napari_histodistill.cli.study import audit, export, import_file
from napari_histodistill.cli.training import cut, distill, evaluate, train_teacher
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import JobCancelled

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class _UserError(click.ClickException):
    exit_code = EXIT_USER_ERROR


class _Interrupted(click.ClickException):
    exit_code = EXIT_INTERRUPTED


class _Commands(click.Group):
    """Commands in the order of the work, whose errors that a user can mend become one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """As they were added, not by the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C ends in a sentence too."""
        try:
            return super().invoke(ctx)
        except HistodistillError as error:
            raise _UserError(str(error)) from error
        except JobCancelled as error:
            raise _Interrupted("Stopped; what was finished is kept, --resume goes on.") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="histodistill")
def main() -> None:
    """Tumour masks for H&E slides, from models trained on image-level labels only. For research, not for diagnosis."""


for _command in (
    info,
    segment,
    study_commands,
    import_file,
    export,
    audit,
    cut,
    train_teacher,
    distill,
    evaluate,
    demo,
):
    main.add_command(_command)
