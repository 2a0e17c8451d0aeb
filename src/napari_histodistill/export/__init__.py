"""Files for other tools and from them: OME-Zarr, OME-TIFF, GeoJSON for QuPath, ASAP XML, PNG and CSV."""

from napari_histodistill.export.export import (
    FORMATS,
    ExportOptions,
    ExportRequest,
    check_formats,
    export_slide,
    export_source,
    run_export,
)
from napari_histodistill.export.importing import ImportPreview, ImportRequest, apply_import, preview_import
from napari_histodistill.export.rasterise import ImportFileError
from napari_histodistill.export.source import WHAT, ExportError, Place, Source, source_of

__all__ = [
    "FORMATS",
    "WHAT",
    "ExportError",
    "ExportOptions",
    "ExportRequest",
    "ImportFileError",
    "ImportPreview",
    "ImportRequest",
    "Place",
    "Source",
    "apply_import",
    "check_formats",
    "export_slide",
    "export_source",
    "preview_import",
    "run_export",
    "source_of",
]
