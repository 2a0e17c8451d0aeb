"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Folder for samples and added levels: ``$HISTODISTILL_CACHE``, else the user's; it may not exist yet."""
    return Path(os.environ.get("HISTODISTILL_CACHE") or platformdirs.user_cache_dir("napari-histodistill"))
