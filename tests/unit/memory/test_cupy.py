"""CuPy's pool, without a GPU."""

import sys
from unittest.mock import MagicMock

from pytest_gpuclean.memory.cupy import CupyProbe
from unit.fakes import fake_module, put, remove


def test_without_cupy_there_is_nothing_to_read(monkeypatch):
    remove(monkeypatch, "cupy")
    assert list(CupyProbe().read()) == []


def test_a_mock_in_its_place_gives_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", MagicMock())
    assert list(CupyProbe().read()) == []


def test_a_cupy_that_has_no_context_yet_is_not_given_one(monkeypatch):
    def forbidden(*arguments):
        raise AssertionError("this initialises the device")

    cuda = fake_module("cupy.cuda", Device=forbidden)
    put(monkeypatch, fake_module("cupy", get_default_memory_pool=forbidden, cuda=cuda))
    assert list(CupyProbe().read()) == []


def test_it_keeps_no_peak(monkeypatch):
    put(monkeypatch, fake_module("cupy"))
    CupyProbe().reset_peak()
