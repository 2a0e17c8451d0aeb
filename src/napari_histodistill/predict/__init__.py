"""Tiled inference onto the working grid, streamed into zarr."""
