"""Colours of the overlays: told apart by colour-blind people, and against the pink and violet of H&E.

Tumour is a strong blue-green that H&E does not hold; its map of probabilities runs through transparency, so that the
tissue stays visible where the model sees nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_histodistill.slide.labels import IGNORE, NORMAL, OUTSIDE, TUMOUR

TRANSPARENT: Final = (0.0, 0.0, 0.0, 0.0)
TUMOUR_COLOUR: Final = (0.0, 0.78, 0.55, 1.0)
TISSUE_COLOUR: Final = (0.0, 0.45, 0.70, 1.0)
PREDICTION_COLOUR: Final = (0.90, 0.60, 0.0, 1.0)
ADDED_COLOUR: Final = (1.0, 0.85, 0.0, 1.0)
GONE_COLOUR: Final = (0.0, 0.35, 0.9, 1.0)
IGNORE_COLOUR: Final = (0.25, 0.25, 0.25, 1.0)
NORMAL_COLOUR: Final = (0.34, 0.71, 0.91, 1.0)
"""Normal tissue where it must be seen: light blue, which H&E does not hold either."""
REMOVED_COLOUR: Final = (1.0, 1.0, 1.0, 1.0)
BECOMES_TUMOUR: Final = (0.95, 0.90, 0.25, 1.0)
PLACE_COLOUR: Final = (0.0, 0.0, 0.0, 1.0)
UNCERTAINTY_COLOUR: Final = (0.73, 0.21, 0.33, 1.0)
"""The middle of the map of uncertainty, for a button."""
IMPORT_TUMOUR_COLOUR: Final = (0.95, 0.75, 0.0, 1.0)
IMPORT_NORMAL_COLOUR: Final = (0.35, 0.55, 0.95, 0.35)


def pseudo_mask_colours() -> DirectLabelColormap:
    """Tumour in colour, ignored areas grey, the rest transparent."""
    return DirectLabelColormap(
        color_dict={
            None: TRANSPARENT,
            OUTSIDE: TRANSPARENT,
            TUMOUR: TUMOUR_COLOUR,
            NORMAL: TRANSPARENT,
            IGNORE: IGNORE_COLOUR,
        }
    )


def prediction_colours() -> DirectLabelColormap:
    """Tumour in the orange of the colour-blind palette, apart from the pseudo-mask's; the rest as there."""
    return DirectLabelColormap(
        color_dict={
            None: TRANSPARENT,
            OUTSIDE: TRANSPARENT,
            TUMOUR: PREDICTION_COLOUR,
            NORMAL: TRANSPARENT,
            IGNORE: IGNORE_COLOUR,
        }
    )


def difference_colours() -> DirectLabelColormap:
    """1, tumour in the prediction only: yellow; 2, tumour in the pseudo-mask only: blue."""
    return DirectLabelColormap(color_dict={None: TRANSPARENT, 0: TRANSPARENT, 1: ADDED_COLOUR, 2: GONE_COLOUR})


def import_colours() -> DirectLabelColormap:
    """What would come in, every value in a colour that the layers below it do not have."""
    return DirectLabelColormap(
        color_dict={
            None: TRANSPARENT,
            OUTSIDE: TRANSPARENT,
            TUMOUR: IMPORT_TUMOUR_COLOUR,
            NORMAL: IMPORT_NORMAL_COLOUR,
            IGNORE: IGNORE_COLOUR,
        }
    )


def tissue_colours() -> DirectLabelColormap:
    """Tissue blue, artefacts grey, background transparent."""
    return DirectLabelColormap(
        color_dict={
            None: TRANSPARENT,
            OUTSIDE: TRANSPARENT,
            TUMOUR: TISSUE_COLOUR,
            NORMAL: TRANSPARENT,
            IGNORE: IGNORE_COLOUR,
        }
    )


def corrections_colours() -> DirectLabelColormap:
    """What a person set, by value plus one: each value in a colour, nothing where nothing was set."""
    return DirectLabelColormap(
        color_dict={
            None: TRANSPARENT,
            0: TRANSPARENT,
            1 + OUTSIDE: REMOVED_COLOUR,
            1 + TUMOUR: TUMOUR_COLOUR,
            1 + NORMAL: NORMAL_COLOUR,
            1 + IGNORE: IGNORE_COLOUR,
        }
    )


def preview_colours() -> DirectLabelColormap:
    """What would change: tumour to be in yellow, which no other overlay has; the rest as among corrections."""
    return DirectLabelColormap(
        color_dict={
            None: TRANSPARENT,
            0: TRANSPARENT,
            1 + OUTSIDE: REMOVED_COLOUR,
            1 + TUMOUR: BECOMES_TUMOUR,
            1 + NORMAL: NORMAL_COLOUR,
            1 + IGNORE: IGNORE_COLOUR,
        }
    )


def probability_colours() -> Colormap:
    """From nothing at 0 through yellow and orange to dark red at 1; opacity rises with the probability."""
    stops = np.array(
        [
            [1.00, 0.95, 0.30, 0.00],
            [1.00, 0.90, 0.20, 0.15],
            [1.00, 0.75, 0.00, 0.60],
            [0.90, 0.35, 0.00, 0.80],
            [0.55, 0.00, 0.10, 0.90],
        ]
    )
    return Colormap(stops, controls=[0.0, 0.2, 0.5, 0.75, 1.0], name="tumour probability")


def place_colours() -> DirectLabelColormap:
    """A frame that both tissue and glass let see: black."""
    return DirectLabelColormap(color_dict={None: TRANSPARENT, 0: TRANSPARENT, 1: PLACE_COLOUR})


def audit_colours() -> DirectLabelColormap:
    """Outlines in a patch: every value in the colour that it has among corrections."""
    return DirectLabelColormap(
        color_dict={
            None: TRANSPARENT,
            OUTSIDE: TRANSPARENT,
            TUMOUR: TUMOUR_COLOUR,
            NORMAL: NORMAL_COLOUR,
            IGNORE: IGNORE_COLOUR,
        }
    )


def uncertainty_colours() -> Colormap:
    """Matplotlib's inferno, whose order the colour-blind see too, from nothing at 0; opacity rises with uncertainty.

    Added to the bright picture of a stained slide, as one does with fluorescence, every map ends in white.
    """
    stops = np.array(
        [
            [0.00, 0.00, 0.02, 0.00],
            [0.34, 0.06, 0.43, 0.25],
            [0.73, 0.21, 0.33, 0.60],
            [0.98, 0.55, 0.04, 0.80],
            [0.99, 1.00, 0.64, 0.95],
        ]
    )
    return Colormap(stops, controls=[0.0, 0.25, 0.5, 0.75, 1.0], name="uncertainty")
