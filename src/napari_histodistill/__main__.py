"""``python -m napari_histodistill``: the command line."""

from napari_histodistill.cli import main

main(prog_name="histodistill")
