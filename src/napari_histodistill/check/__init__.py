"""Checking a study: what of it is damaged, exactly, and how the rest is recovered."""

from napari_histodistill.check.check import CheckRequest, check_study
from napari_histodistill.check.inspection import Finding, Report

__all__ = ["CheckRequest", "Finding", "Report", "check_study"]
