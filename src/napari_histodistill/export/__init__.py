"""Files for other tools: OME-Zarr, GeoJSON for QuPath, PNG and CSV."""

from napari_histodistill.export.export import (
    FORMATS,
    ExportError,
    check_formats,
    export_csv,
    export_geojson,
    export_ome_zarr,
    export_png,
    export_slide,
)

__all__ = [
    "FORMATS",
    "ExportError",
    "check_formats",
    "export_csv",
    "export_geojson",
    "export_ome_zarr",
    "export_png",
    "export_slide",
]
