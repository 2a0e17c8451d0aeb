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
from napari_histodistill.export.importing import (
    ImportPreview,
    ImportRequest,
    apply_import,
    import_tool,
    preview_import,
    read_classes,
)
from napari_histodistill.export.picture import sampled
from napari_histodistill.export.provenance import KEY, Provenance
from napari_histodistill.export.rasterise import ImportFileError
from napari_histodistill.export.source import WHAT, ExportError, Place, Source, provenance_of, source_of

__all__ = [
    "FORMATS",
    "KEY",
    "WHAT",
    "ExportError",
    "ExportOptions",
    "ExportRequest",
    "ImportFileError",
    "ImportPreview",
    "ImportRequest",
    "Place",
    "Provenance",
    "Source",
    "apply_import",
    "check_formats",
    "export_slide",
    "export_source",
    "import_tool",
    "preview_import",
    "provenance_of",
    "read_classes",
    "run_export",
    "sampled",
    "source_of",
]
