"""A slide as a lazy pyramid: sources, levels, metadata checks, tissue and artefacts, grids."""
