"""The whole loop in a real napari window, driven with the mouse: pictures for people, figures for the record."""
