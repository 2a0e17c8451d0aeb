"""The command ``report``."""

from __future__ import annotations

import click

from napari_histodistill.cli.console import run_shown


@click.command()
def report() -> None:
    """Print what a report of an error should hold: versions, devices, the end of the log; no names, no paths."""
    from napari_histodistill.logs import log_file
    from napari_histodistill.report import ReportRequest, make_report

    click.echo(run_shown(make_report, ReportRequest()), nl=False)
    click.echo(f"The log is {log_file()} (this line, which has your path, is not part of the report).", err=True)
