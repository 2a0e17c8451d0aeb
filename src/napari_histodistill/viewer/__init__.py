"""Study and slide as napari layers (no Qt)."""
