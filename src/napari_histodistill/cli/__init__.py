"""The command line: ``histodistill``.

Results go to stdout (one JSON object with ``--json``), progress and warnings to stderr. What the user can mend is one
sentence on stderr and exit code 2.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import click

from napari_histodistill import __version__
from napari_histodistill.cli.membership import study_commands
from napari_histodistill.cli.report import report
from napari_histodistill.cli.slides import demo, info, segment
from napari_histodistill.cli.study import audit, check, export, import_file
from napari_histodistill.cli.training import cut, distill, evaluate, train_teacher
from napari_histodistill.errors import HistodistillError
from napari_histodistill.jobs import JobCancelled
from napari_histodistill.logs import LEVELS, start_log

logger = logging.getLogger(__name__)

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
        """Run a command; Ctrl-C ends in a sentence too. The log has its name, how it ended, and after how long."""
        started, how = time.monotonic(), "failed"
        try:
            result = super().invoke(ctx)
            how = "done"
            return result
        except HistodistillError as error:
            how = f"refused ({type(error).__name__})"
            logger.debug("%s", error)
            raise _UserError(str(error)) from error
        except JobCancelled as error:
            how = "stopped"
            raise _Interrupted("Stopped; what was finished is kept, --resume goes on.") from error
        except (click.ClickException, click.exceptions.Exit):
            how = "ended"
            raise
        except Exception:
            logger.exception("command failed")
            raise
        finally:
            logger.info("%s %s after %.1f s", ctx.invoked_subcommand, how, time.monotonic() - started)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="histodistill")
@click.option("--verbose", "-v", is_flag=True, help="Print the log on stderr.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    help="How much the log holds; at debug it holds names and paths.  [default: $HISTODISTILL_LOG_LEVEL, else info]",
)
def main(verbose: bool, log_level: str | None) -> None:
    """Tumour masks for H&E slides, from models trained on image-level labels only. For research, not for diagnosis."""
    start_log(log_level, verbose=verbose)
    logger.info("version %s, Python %s, %s", __version__, sys.version.split()[0], sys.platform)


for _command in (
    info,
    segment,
    study_commands,
    import_file,
    export,
    audit,
    check,
    cut,
    train_teacher,
    distill,
    evaluate,
    demo,
    report,
):
    main.add_command(_command)
