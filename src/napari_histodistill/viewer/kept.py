"""A layer that comes and goes and is the same one each time: a new one, with its controls, holds the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.viewer.layers import ROLE_KEY, add_layer

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_histodistill.viewer.layers import Role
    from napari_histodistill.viewer.slide_view import OpenSlideView


class KeptLayer:
    """A Labels layer of a slide that is emptied and hidden when it is not needed, and filled when it is again.

    While it is away it has no role: whoever looks for a layer by its role finds none, and a person who opens its eye
    in the layer list sees an empty layer that cannot be painted in.

    Parameters
    ----------
    view : OpenSlideView
    role : Role
        What the layer shows.
    """

    def __init__(self, view: OpenSlideView, role: Role) -> None:
        self._view, self._role, self._away = view, role, True
        self._kept: Labels | None = None
        self._rest = view.runner.timer(0, self._empty)

    @property
    def layer(self) -> Labels | None:
        """The layer while it is in use, None if it is not or if the user removed it."""
        return None if self._away else self._found

    @property
    def _found(self) -> Any:
        return self._kept if self._kept in self._view.viewer.layers else None

    def show(self, layer_data: tuple[Any, dict[str, Any], str]) -> Labels:
        """Bring the layer on screen, over all others, with what `layers` has made for it."""
        data, settings, _ = layer_data
        layer = self._found
        if layer is None:
            layer = self._kept = add_layer(self._view.viewer, layer_data)
        else:
            layers = self._view.viewer.layers
            layer.metadata[ROLE_KEY] = self._role
            layer.data, layer.scale, layer.translate = data, settings["scale"], settings["translate"]
            layer._reset_history()  # noqa: SLF001 - undo would bring back what it showed before
            if layers[-1] is not layer:
                layers.move(layers.index(layer), len(layers))
            layer.name = settings["name"]
            self._view.set_shown(layer, on=True)
        self._away = False
        kept: Labels = layer
        return kept

    def put_away(self) -> None:
        """Empty and hide the layer; whoever opens its eye in the layer list sees nothing that is no longer true."""
        layer = self.layer
        self._away = True
        if layer is not None:
            self._view.set_shown(layer, on=False)
            layer.name = f"{self._role} (off)"
            layer.metadata[ROLE_KEY] = None
            self._rest.start()

    def _empty(self) -> None:
        if self._away and self._found is not None:
            self._found.data = np.zeros(self._found.data.shape, np.uint8)
            self._found.editable = False  # setting data, here and in `show`, makes it editable

    def remove(self) -> None:
        """Take the layer out: it belonged to a result that is no longer shown."""
        self._away = True
        if self._found is not None:
            self._view.viewer.layers.remove(self._found)
