"""What can be chosen by name, and how other packages add to it.

A registry lists the names of the built-in choices and of those that installed packages announce with an entry point
(``docs/extending.md``). Listing names imports none of them.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from napari_histodistill.errors import HistodistillError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_histodistill.nets.encoders.base import Encoder

T = TypeVar("T")


class RegistryError(HistodistillError):
    """A name that nothing stands behind, or something that cannot be loaded."""


class Registry(Generic[T]):
    """Choices by name: built-in ones first, then entry points of a group; a built-in name cannot be taken.

    Parameters
    ----------
    group : str
        Of the entry points.
    kind : str
        What is chosen, for messages: "encoder".
    builtin : mapping of str to str
        "module:attribute" by name, as in an entry point.
    fits : callable
        Whether something loaded is of the right kind.
    """

    def __init__(self, group: str, kind: str, builtin: Mapping[str, str], fits: Callable[[object], bool]) -> None:
        self.group, self.kind = group, kind
        self._builtin, self._fits = builtin, fits

    def names(self) -> tuple[str, ...]:
        """All names, built-in ones first."""
        return tuple(self._entries())

    def load(self, name: str) -> T:
        """What a name stands for, imported now.

        Raises
        ------
        RegistryError
            If there is no such name, or what it stands for cannot be imported or is of another kind.
        """
        entries = self._entries()
        if name not in entries:
            raise RegistryError(f"There is no {self.kind} {name!r}: choose one of {', '.join(entries)}.")
        entry = entries[name]
        try:
            loaded = entry.load()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise RegistryError(
                f"The {self.kind} {name!r} of {_owner(entry)} cannot be loaded ({why}): mend it."
            ) from error
        if not self._fits(loaded):
            raise RegistryError(f"What {_owner(entry)} registers as the {self.kind} {name!r} is none: mend it.")
        return loaded  # type: ignore[no-any-return]  # `fits` has looked

    def _entries(self) -> dict[str, EntryPoint]:
        """By name; of two packages with one name the first that is found."""
        entries = {name: EntryPoint(name, value, self.group) for name, value in self._builtin.items()}
        for entry in entry_points(group=self.group):
            entries.setdefault(entry.name, entry)
        return entries


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "this package"


def _is_encoder(loaded: object) -> bool:
    from napari_histodistill.nets.encoders.base import Encoder

    return isinstance(loaded, type) and issubclass(loaded, Encoder)


ENCODERS: Registry[type[Encoder]] = Registry(
    "histodistill.encoders",
    "encoder",
    {
        "efficientnet-lite0": "napari_histodistill.nets.encoders.lite0:EfficientNetLite0",
        "vgg16": "napari_histodistill.nets.encoders.vgg:TruncatedVGG16",
        "mobilenet-v3-small": "napari_histodistill.nets.encoders.mobilenet:MobileNetV3Small",
        "swin-t": "napari_histodistill.nets.encoders.swin:SwinTiny",
    },
    _is_encoder,
)
