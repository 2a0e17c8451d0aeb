"""Encoders, side outputs, fusion, model files and the bundled teacher."""
