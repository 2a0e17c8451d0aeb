"""The card of a model: what it is, what it was trained on, what it is for, and how well it does; a JSON file.

A card lies beside the weights as ``model.json``. It is read without torch, so that a window can show the scope of a
model before anything heavy starts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from napari_histodistill.errors import HistodistillError, reason
from napari_histodistill.nets.masking import MaskSettings

FORMAT = "histodistill-model"
VERSION = 3
"""Written. A new entry makes a new version, as who knows only earlier ones refuses it. Version 2 is read too, without
`ModelCard.support`, and version 1, also without `Architecture.attention` and `Training.start`."""
CARD_NAME = "model.json"
WEIGHTS_NAME = "model.safetensors"
LARGEST_CARD = 1 << 24
"""Bytes; a card that lists a hundred thousand patients has a tenth."""
BUNDLED = {name: Path(__file__).parent / name.replace("-", "_") for name in ("bundled", "bundled-student")}
"""Folders of the models that come with the package, by name."""


class ModelError(HistodistillError):
    """A model folder that cannot be used: the message says what is wrong with it."""


@dataclass(frozen=True)
class Architecture:
    """How to build the network that the weights fit.

    Attributes
    ----------
    encoder : str
        Name of the encoder.
    weights : tuple of float
        Fusion weights of the side outputs, shallowest first.
    attention : bool
        Whether there is criss-cross attention at every depth.
    """

    encoder: str
    weights: tuple[float, ...]
    attention: bool = False


@dataclass(frozen=True)
class Training:
    """What a model was trained on and how.

    Attributes
    ----------
    data : str
        Name of the data set.
    labels : str
        What supervised it, in words.
    family : str
        The bag loss.
    patients : dict
        Patients in "train" and "val": evaluation on the same data set leaves them out.
    seed : int
    recipe : dict
        Settings of the training, as they were.
    start : str
        What the encoder's weights were at the start, in words.
    terms, citation : str
        Of the data; and of weights that the training started from.
    """

    data: str = ""
    labels: str = ""
    family: str = ""
    patients: dict[str, list[str]] = field(default_factory=dict)
    seed: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    terms: str = ""
    citation: str = ""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model.

    Attributes
    ----------
    name : str
    architecture : Architecture
    mpp : float
        µm per pixel of the images that the network reads.
    margin : int
        Pixels at ``mpp`` from an edge within which a prediction may depend on where the window was cut (with attention
        all do a little; it is the margin without).
    multiple : int
        Windows that are shifted by a multiple of this many pixels agree away from their edges.
    threshold : float
        Probability from which a pixel counts as tumour.
    smoothing_um : float
        Standard deviation of the Gaussian that smooths probabilities before the threshold, 0 for none.
    support : float
        Bag score that the surroundings of tumour must reach, 0 for none (`masking.supported`).
    classes : tuple of str
    stain_normalisation : str or None
        Stain normalisation that is applied unless a user turns it off: "reinhard" or none.
    stain_reference : dict or None
        Colours of the training tissue, what the normalisation aims at (`stain.StainStatistics.to_card`).
    organ, stain : str
    scope : tuple of str
        Sentences that a user must have seen before using the model.
    training : Training
    figures : dict
        Measured quality, by data set.
    """

    name: str
    architecture: Architecture
    mpp: float
    margin: int = 128
    multiple: int = 16
    threshold: float = 0.5
    smoothing_um: float = 0.0
    support: float = 0.0
    classes: tuple[str, ...] = ("background", "tumour")
    stain_normalisation: str | None = None
    stain_reference: dict[str, Any] | None = None
    organ: str = ""
    stain: str = "H&E"
    scope: tuple[str, ...] = ()
    training: Training = field(default_factory=Training)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.05 <= self.mpp <= 8:
            raise ModelError(f"The model card gives {self.mpp} µm per pixel, which no slide has: mend its mpp.")
        if not 0 < self.threshold < 1:
            raise ModelError(f"The model card gives the threshold {self.threshold}, which must lie between 0 and 1.")
        if not 0 <= self.support < 1:
            raise ModelError(f"The model card gives the support {self.support}, which must lie between 0 and 1.")
        if not (1 <= self.multiple <= 4096 and 0 <= self.margin <= 4096 and 0 <= self.smoothing_um <= 1000):
            raise ModelError(
                "The model card gives a negative margin, multiple or smoothing, or an absurd one: mend it."
            )
        weights = self.architecture.weights
        if not weights or not min(weights) >= 0 or not abs(sum(weights) - 1) <= 1e-3:
            raise ModelError(f"The model card gives the fusion weights {weights}, which must sum to one.")

    @property
    def mask_settings(self) -> MaskSettings:
        """How the model's probabilities become a mask unless a user says otherwise."""
        return MaskSettings(self.threshold, self.smoothing_um, self.support)

    def digest(self, folder: Path | None) -> str:
        """Twelve digits that name what decides a model's answers: pixel size, stain, and the weights in a folder."""
        digest = hashlib.sha256(repr((self.mpp, self.stain_normalisation, self.stain_reference)).encode())
        weights = None if folder is None else folder / WEIGHTS_NAME
        if weights is not None and weights.is_file():
            with weights.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
        return digest.hexdigest()[:12]

    def to_json(self) -> str:
        """The text of ``model.json``."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "the model card") -> Self:
        """Read the text of a ``model.json``.

        Raises
        ------
        ModelError
            If it is no card, one of a later version, or one with wrong or missing entries.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{where} is not JSON ({reason(error)}): the model must be saved anew.") from error
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ModelError(f"{where} is not the card of a histodistill model: choose a folder that was trained here.")
        version = data.pop("version", None)
        if not isinstance(version, int) or version > VERSION:
            raise ModelError(f"{where} has version {version}, later than {VERSION}: update napari-histodistill.")
        try:
            data["architecture"] = Architecture(**_known(Architecture, data["architecture"]))
            data["training"] = Training(**_known(Training, data.get("training", {})))
            return cls(**_known(cls, data))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ModelError(f"{where} is not complete ({reason(error)}): the model must be saved anew.") from error


def _known(kind: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    """The entries of a JSON object that ``kind`` has fields for, lists as tuples where the field is one."""
    types = {f.name: str(f.type) for f in fields(kind)}
    unknown = sorted(set(data) - set(types))
    if unknown:
        raise TypeError(f"unknown entry {unknown[0]!r}")
    for name, value in data.items():
        _check_type(name, types[name], value)
        if types[name].startswith("tuple"):
            for item in value:
                _check_type(f"an item of {name}", types[name].removeprefix("tuple[").split(",")[0], item)
    return {name: tuple(v) if types[name].startswith("tuple") else v for name, v in data.items()}


def _check_type(name: str, kind: str, value: object) -> None:
    expected: dict[str, type | tuple[type, ...]] = {
        "str": str,
        "bool": bool,
        "int": int,
        "float": (int, float),
        "str | None": (str, type(None)),
        "tuple[str, ...]": list,
        "tuple[float, ...]": list,
        "dict[str, Any]": dict,
        "dict[str, Any] | None": (dict, type(None)),
        "dict[str, list[str]]": dict,
    }
    wanted = expected.get(kind)
    if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)):
        raise TypeError(f"{name} is {value!r}")


def bundled_models() -> list[str]:
    """Names of the models that come with this version of the package."""
    return [name for name, folder in BUNDLED.items() if (folder / CARD_NAME).is_file()]


def model_folder(where: str | Path) -> Path:
    """The folder of a model: one of `BUNDLED` by name, or a folder."""
    return BUNDLED.get(str(where), Path(where))


def read_card(where: str | Path) -> ModelCard:
    """The card of a model: the name of one that comes with the package, or a folder.

    Raises
    ------
    ModelError
        If the folder holds no card or a broken one.
    """
    folder = model_folder(where)
    path = folder / CARD_NAME
    if not path.is_file():
        raise ModelError(f"There is no model in {folder}: choose a folder with {CARD_NAME} in it.")
    try:
        if path.stat().st_size > LARGEST_CARD:
            raise ModelError(f"{path} is absurdly large for a model card: choose a folder that was trained here.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read ({error}): check the file.") from error
    return ModelCard.from_json(text, str(path))
