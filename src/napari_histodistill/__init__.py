"""Tumour masks for H&E whole-slide images from image-level labels, interactive in napari.

The names of `__all__` are the public interface (docs/api.md). Importing this package is cheap: it loads neither
torch, napari nor Qt; a name is loaded when it is first asked for.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("napari-histodistill")
except PackageNotFoundError:  # run from its sources without having been installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from napari_histodistill.api import (
        cut_dataset,
        describe_slide,
        distill_dataset,
        distill_study,
        evaluate_model,
        export_files,
        import_file,
        load_model,
        open_slide,
        open_study,
        sample_slide,
        segment,
        train_teacher,
    )
    from napari_histodistill.errors import HistodistillError

__all__ = [
    "HistodistillError",
    "cut_dataset",
    "describe_slide",
    "distill_dataset",
    "distill_study",
    "evaluate_model",
    "export_files",
    "import_file",
    "load_model",
    "open_slide",
    "open_study",
    "sample_slide",
    "segment",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "HistodistillError":
        from napari_histodistill.errors import HistodistillError

        return HistodistillError
    from napari_histodistill import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
