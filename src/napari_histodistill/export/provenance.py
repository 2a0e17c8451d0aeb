"""What made an exported file: kept in the file where its format has a place for it, otherwise beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from napari_histodistill import __version__

KEY = "histodistill"
"""Name under which a file carries its provenance: a member of a JSON document, a PNG text chunk, a zarr attribute."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Provenance:
    """What made a mask.

    Parameters
    ----------
    what : str
        "pseudo", "corrections" or "prediction".
    slide, fingerprint : str
        File name of the slide, and what names its content (`Slide.fingerprint`).
    slide_shape : (int, int)
        Level-0 (height, width).
    mpp : (float, float)
        Size of a level-0 pixel as (y, x) in µm.
    origin : (int, int)
        Level-0 (y, x) where QuPath's coordinates begin.
    model : str or None
        The card's name and a digest of the weights; None for what only a person set.
    round : int or None
    threshold : float or None
        Probability from which a pixel is tumour, 0 to 1.
    smoothing_um : float or None
        Sigma of the Gaussian before the threshold.
    support : float or None
        Bag score that the surroundings of tumour had to reach, 0 to 1.
    options : dict
        How the file was made of it, for instance a tolerance; JSON values.
    version, date : str
        Of the software, and when the file was made (UTC, ISO 8601).
    """

    what: str
    slide: str
    fingerprint: str
    slide_shape: tuple[int, int]
    mpp: tuple[float, float]
    origin: tuple[int, int] = (0, 0)
    model: str | None = None
    round: int | None = None
    threshold: float | None = None
    smoothing_um: float | None = None
    support: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    version: str = __version__
    date: str = field(default_factory=_now)

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Provenance:
        """What `as_dict` gave, as of now: by this version, at this moment."""
        kept = {name: value for name, value in said.items() if name not in {"software", "version", "date"}}
        return cls(**kept)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"software": "napari-histodistill", **asdict(self)}

    def to_json(self, indent: int | None = None) -> str:
        """One JSON object in ASCII: every other character is escaped, so it is safe in XML, TIFF tags and terminals."""
        return json.dumps(self.as_dict(), indent=indent, ensure_ascii=True, allow_nan=False)
