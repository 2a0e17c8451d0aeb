"""Libraries are loaded in the background once, and units are handed over only where nobody uses others."""

from __future__ import annotations

import sys

import pint
import pytest

from napari_histodistill.viewer import warming
from napari_histodistill.viewer.headless import HeadlessRunner
from napari_histodistill.viewer.warming import Warming, WarmRequest


@pytest.fixture
def unread(monkeypatch):
    """Units of an application that has used none yet."""
    monkeypatch.setattr(pint, "application_registry", pint.registry.ApplicationRegistry(pint.registry.LazyRegistry()))
    return pint.application_registry


def test_units_are_read_and_handed_over(unread):
    assert Warming(HeadlessRunner()).ended.is_set()
    assert type(unread.get()) is pint.UnitRegistry
    assert unread("2 um").to("mm").magnitude == pytest.approx(0.002)
    assert all(name in sys.modules for name in warming.MODULES)


def test_units_that_are_in_use_stay(unread):
    in_use = unread("1 um")
    before = unread.get()
    Warming(HeadlessRunner())
    assert unread.get() is before
    assert in_use + unread("1 mm")


def test_what_cannot_be_loaded_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(warming, "WarmRequest", lambda units: WarmRequest(("no_such_module",), units))
    runner = HeadlessRunner()
    assert Warming(runner).ended.is_set()
    assert "no_such_module" in str(runner.errors[0])
