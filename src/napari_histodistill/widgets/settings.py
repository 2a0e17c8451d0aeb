"""The form under "More settings" of the Distil dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from magicgui.widgets import ComboBox, Container, FloatSpinBox, SpinBox

from napari_histodistill.distill import RECIPES
from napari_histodistill.nets.registry import ENCODERS
from napari_histodistill.viewer.distil import DistilSettings
from napari_histodistill.widgets.teacher import DEVICES

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

AS_TEACHER: Final = ""
FIELDS: Final = ("epochs", "most_tiles", "correction_weight", "recipe", "encoder", "device")
"""Of `DistilSettings`, in the order of the form."""


class MoreSettings(Container[Any]):
    """What is seldom changed of a distillation.

    Attributes
    ----------
    boxes : tuple of QWidget
        What is set, without the labels.
    """

    def __init__(self) -> None:
        super().__init__(
            widgets=[
                SpinBox(
                    name="epochs", label="Epochs", min=1, max=100, tooltip="Passes over the training tiles in a round"
                ),
                SpinBox(
                    name="most_tiles",
                    label="Tiles",
                    min=1,  # with a larger one superqt refuses to let "80" be typed, since "8" is too small
                    max=5000,
                    step=50,
                    tooltip="At most this many are learnt from in a round; those with corrections come first",
                ),
                FloatSpinBox(
                    name="correction_weight",
                    label="Your weight",
                    min=1,
                    max=15,
                    step=1,
                    tooltip="How much a corrected pixel counts beside one that the model labelled itself",
                ),
                ComboBox(
                    name="recipe",
                    label="Recipe",
                    choices=list(RECIPES),
                    tooltip="default: the best found; paper: as He, Li and Zemp (2024) did it, slow on a CPU",
                ),
                ComboBox(
                    name="encoder",
                    label="Network",
                    choices=[("as the teacher", AS_TEACHER), *((name, name) for name in ENCODERS.names())],
                    tooltip="The encoder of the students",
                ),
                ComboBox(
                    name="device",
                    label="Compute on",
                    choices=list(DEVICES.items()),
                    tooltip="The processor, or a graphics card where there is one",
                ),
            ]
        )
        self.margins = (0, 0, 0, 0)
        self.boxes: tuple[QWidget, ...] = tuple(self[name].native for name in FIELDS)

    def show_settings(self, settings: DistilSettings) -> None:
        """Show what is chosen."""
        for name in FIELDS:
            value = getattr(settings, name)
            self[name].value = AS_TEACHER if value is None else value

    def keep(self, settings: DistilSettings) -> None:
        """Write what the form says into ``settings``."""
        for name in FIELDS:
            value = self[name].value
            setattr(settings, name, None if name == "encoder" and value == AS_TEACHER else value)

    @property
    def means(self) -> str:
        """What another network than the teacher's means, in a sentence or two; empty without one."""
        if self["encoder"].value == AS_TEACHER:
            return ""
        return (
            "Students of another network begin anew, with nothing of what the model knows, so the first rounds are "
            "likely worse than the best. mobilenet-v3-small learns about six times as fast on a laptop as "
            "efficientnet-lite0; vgg16, the published one, takes six times as long."
        )
