"""What the first slide and the first mask need, loaded on a thread before anyone asks for it.

In a fresh napari the first slide costs 0.4 s of processor time on the main thread for libraries alone, most of it pint
reading its definitions of units. A thread that does it while the user chooses a file takes turns with the window.
"""

from __future__ import annotations

import importlib
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pint

from napari_histodistill.jobs import ThreadJob

if TYPE_CHECKING:
    from napari_histodistill.jobs import JobControl
    from napari_histodistill.viewer.work import Runner

logger = logging.getLogger(__name__)

MODULES: Final = ("napari_histodistill.slide", "imagecodecs", "openslide", "zarr", "pandas", "skimage.measure")
"""Imported when a slide is opened, a layer of labels added, tissue found: in this order."""


@dataclass(frozen=True)
class WarmRequest:
    """What to import, and whether to read the definitions of units."""

    modules: tuple[str, ...] = MODULES
    units: bool = True


def load(request: WarmRequest, control: JobControl) -> pint.UnitRegistry | None:
    """Import the modules; gives units with their definitions read, if they are asked for."""
    units = pint.UnitRegistry(on_redefinition="raise") if request.units else None
    for number, name in enumerate(request.modules, start=1):
        control.checkpoint()
        importlib.import_module(name)
        control.progress(number, len(request.modules))
    return units


class Warming:
    """Loads in the background; what fails to load is left to whoever needs it, who also tells the user.

    Parameters
    ----------
    runner : Runner

    Attributes
    ----------
    ended : threading.Event
        Set when there is nothing more to wait for.
    """

    def __init__(self, runner: Runner) -> None:
        self.ended = threading.Event()
        request = WarmRequest(units=_units_are_unread())
        runner.start(ThreadJob(load, request), progress=_ignore, done=self._on_done, failed=self._on_failed)

    def _on_done(self, units: pint.UnitRegistry | None) -> None:
        if units is not None and _units_are_unread():  # nobody has used the application's own meanwhile
            pint.set_application_registry(units)
        self.ended.set()

    def _on_failed(self, error: Exception) -> None:
        logger.info("not everything could be loaded ahead of time: %s", error)
        self.ended.set()


def _units_are_unread() -> bool:
    """Whether the application's units are yet to be read, which their first use would do there and then."""
    return type(pint.get_application_registry().get()) is pint.registry.LazyRegistry


def _ignore(_news: object) -> None:
    """Nobody looks at the progress."""
