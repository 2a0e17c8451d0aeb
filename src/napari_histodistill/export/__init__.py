"""Masks and probabilities as files that other tools open."""
