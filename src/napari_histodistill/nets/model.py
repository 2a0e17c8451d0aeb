"""Models on disk and in use: load, save, choose a device, predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from napari_histodistill.errors import HistodistillError, reason
from napari_histodistill.nets.card import CARD_NAME, WEIGHTS_NAME, ModelCard, ModelError, model_folder, read_card
from napari_histodistill.nets.encoders.base import IMAGENET_MEAN, IMAGENET_STD
from napari_histodistill.nets.folding import folded
from napari_histodistill.nets.network import SideNetwork, upsample
from napari_histodistill.nets.registry import ENCODERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_histodistill.nets.network import Maps

_PIXELS_AT_ONCE = 1024 * 1024  # bounds the activations: about 400 bytes a pixel
_FLOATS = ("F16", "BF16", "F32", "F64")
_REFLECT = 32  # mirrored surroundings of an image, so that the zero padding of the network lies outside


class DeviceError(HistodistillError):
    """The device that was asked for is not there."""


def pick_device(wanted: str = "auto") -> str:
    """The device to compute on.

    Parameters
    ----------
    wanted : {"auto", "cpu", "cuda", "mps"}
        "auto" takes CUDA, else MPS, else the CPU.

    Raises
    ------
    DeviceError
        If the device that was asked for is unknown or not available here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, there in available.items() if there)
    if not available.get(wanted.split(":", maxsplit=1)[0], False):
        names = ", ".join(name for name, there in available.items() if there)
        raise DeviceError(f"The device {wanted!r} is not available here: choose auto or one of {names}.")
    return wanted


def build_network(card: ModelCard) -> SideNetwork:
    """The network that a card describes, with fresh weights.

    Raises
    ------
    ModelError
        If the card names an encoder that is not here, or weights that are not as many as its maps.
    RegistryError
        If the package that adds the encoder is broken.
    """
    plan = card.architecture
    if plan.encoder not in ENCODERS.names():
        raise ModelError(
            f"The model uses the encoder {plan.encoder!r}, which is not here: update napari-histodistill or "
            "install the package that adds it."
        )
    sides = len(ENCODERS.load(plan.encoder).channels)
    if sides != len(plan.weights):
        raise ModelError(f"The model card gives {len(plan.weights)} fusion weights for {sides} side outputs: mend it.")
    return SideNetwork(plan.encoder, plan.weights, plan.attention)


def normalise(images: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] as the encoders want them: ImageNet's statistics, channels last in memory."""
    n, channels, h, w = images.shape
    mean, std = (torch.tensor(of, device=images.device).repeat(w) for of in (IMAGENET_MEAN, IMAGENET_STD))
    rows = images.permute(0, 2, 3, 1).reshape(n, h, w * channels)  # long rows: three numbers at a time are slow
    return ((rows - mean) / std).view(n, h, w, channels).permute(0, 3, 1, 2)


class Model:
    """A network ready to predict, with the weights that it has when it is handed in.

    Attributes
    ----------
    card : ModelCard
    network : SideNetwork
    device : str
    """

    def __init__(self, network: SideNetwork, card: ModelCard, device: str = "cpu") -> None:
        self.card, self.device = card, device
        self.network = network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._inference = folded(self.network).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Tumour probability of every pixel, the fusion of the side outputs.

        Parameters
        ----------
        images : uint8 (n, h, w, 3)
            At ``card.mpp``; any size.

        Returns
        -------
        float32 (n, h, w)
            In [0, 1]. Within ``card.margin`` pixels of an edge the values depend on where the image was cut.
        """
        return self._predict(images, lambda maps: maps.fused[:, None])[..., 0]

    @torch.inference_mode()
    def predict_sides(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The side outputs apart, float32 (n, h, w, s), shallowest first; see `predict`."""
        return self._predict(images, lambda maps: maps.sides)

    def _predict(self, images: NDArray[np.uint8], choose: Callable[[Maps], Tensor]) -> NDArray[np.float32]:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 (n, h, w, 3), not {images.dtype} {images.shape}")
        n, h, w = images.shape[:3]
        if not images.size:
            return np.empty((n, h, w, 1), np.float32)
        step = max(1, _PIXELS_AT_ONCE // (h * w))
        return np.concatenate([self._forward(images[i : i + step], choose) for i in range(0, n, step)])

    def _forward(self, images: NDArray[np.uint8], choose: Callable[[Maps], Tensor]) -> NDArray[np.float32]:
        h, w = images.shape[1:3]
        pad = [_padding(side, self.network.multiple) for side in (h, w)]
        padded = np.pad(images, [(0, 0), *pad, (0, 0)], mode="symmetric")
        x = torch.from_numpy(padded).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        stride, offset = self.network.stride, self.network.offset
        maps = upsample(choose(self._inference(normalise(x))), stride, -offset / stride)
        inner: NDArray[np.float32] = maps[..., _REFLECT : _REFLECT + h, _REFLECT : _REFLECT + w].cpu().numpy()
        return inner.transpose(0, 2, 3, 1)


def _padding(length: int, multiple: int) -> tuple[int, int]:
    return _REFLECT, _REFLECT + -(length + 2 * _REFLECT) % multiple


def load_model(where: str | Path = "bundled", device: str | None = None) -> Model:
    """Load a model from a folder with ``model.json`` and ``model.safetensors``, or the bundled one.

    Parameters
    ----------
    where : str or Path
        A folder, or the name of a model that comes with the package: "bundled", "bundled-student".
    device : str, optional
        As `pick_device` takes it; "auto" if None.

    Raises
    ------
    ModelError
        If the folder holds no model, or a broken one.
    """
    folder = model_folder(where)
    card = read_card(folder)
    network = build_network(card)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ModelError(f"{folder} has a card but no weights ({WEIGHTS_NAME}): copy the whole folder.")
    try:
        _check_header(path, network)
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise ModelError(f"{path} is damaged ({reason(error)}): copy or train the model again.") from error
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise ModelError(f"{path} holds weights that are no numbers: copy or train the model again.")
    try:
        counters = {name: value for name, value in network.state_dict().items() if not value.is_floating_point()}
        network.load_state_dict(counters | {name: value.float() for name, value in weights.items()}, strict=True)
    except RuntimeError as error:
        raise _unfit(path) from error
    return Model(network, card, pick_device(device or "auto"))


def _check_header(path: Path, network: SideNetwork) -> None:
    """Compare names, shapes and types in a weights file with the network's before any of it is read.

    Raises
    ------
    ModelError
        If they are not those of the network.
    """
    wanted = {name: list(value.shape) for name, value in network.state_dict().items() if value.is_floating_point()}
    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != set(wanted):
            raise _unfit(path)
        for name, shape in wanted.items():
            found = file.get_slice(name)
            if list(found.get_shape()) != shape or found.get_dtype() not in _FLOATS:
                raise _unfit(path)


def _unfit(path: Path) -> ModelError:
    return ModelError(f"The weights in {path} do not fit their card: the files are not from one model.")


def save_model(folder: str | Path, network: SideNetwork, card: ModelCard, *, half: bool = False) -> Path:
    """Write ``model.safetensors`` and ``model.json`` into a folder, each complete or not at all.

    Parameters
    ----------
    half : bool
        Store the weights in 16 bits, half the size.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (value.half() if half else value).cpu().contiguous()
        for name, value in network.state_dict().items()
        if value.dtype.is_floating_point
    }
    _write_whole(folder / WEIGHTS_NAME, save(tensors, {"format": "pt"}))  # save_file: readable by the owner only
    _write_whole(folder / CARD_NAME, card.to_json().encode())
    return folder


def _write_whole(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
