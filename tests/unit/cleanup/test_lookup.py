"""What is at hand: an older release lacks functions, and a lazy or mocked module stays as it is."""

import sys
import warnings
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from pytest_gpuclean.cleanup.lookup import call, find, loaded_module
from unit.fakes import fake_module, put


class LazyModule(ModuleType):
    def __getattribute__(self, name):
        raise AssertionError(f"{name} would load it")


def test_a_module_that_is_imported_is_found(monkeypatch):
    module = fake_module("framework")
    put(monkeypatch, module)
    assert loaded_module("framework") is module


def test_a_module_that_is_not_there_is_absent():
    assert loaded_module("framework_that_is_not_there") is None


STAND_INS = {
    "blocked": lambda: None,
    "mock": MagicMock,
    "object": object,
    "lazy": lambda: LazyModule("framework"),
    "made by hand": lambda: ModuleType("framework"),
}


@pytest.mark.parametrize("kind", STAND_INS)
def test_what_only_stands_in_for_a_module_is_absent(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "framework", STAND_INS[kind]())
    assert loaded_module("framework") is None


def test_a_module_that_is_still_being_imported_is_absent(monkeypatch):
    module = fake_module("framework")
    module.__spec__._initializing = True
    put(monkeypatch, module)
    assert loaded_module("framework") is None


def test_a_dotted_name_is_followed_through_modules_and_objects():
    inner = fake_module("framework.memory", empty_cache=len)
    assert find(fake_module("framework", memory=inner), "memory", "empty_cache") is len
    assert find(fake_module("framework", holder=MagicMock(size=3)), "holder", "size") == 3


def test_what_is_missing_is_none():
    module = fake_module("framework", memory=fake_module("framework.memory"))
    assert find(module, "memory", "empty_cache") is None
    assert find(module, "accelerator", "memory", "empty_cache") is None


def test_looking_does_not_load_what_a_module_loads_on_first_use():
    def load(name):
        raise AssertionError(f"{name} would be loaded")

    assert find(fake_module("framework", __getattr__=load), "keras") is None


def test_a_function_that_is_missing_does_nothing():
    assert call("cache", None) == []


def test_a_function_that_warns_does_not_fail_under_w_error():
    def clear():
        warnings.warn("use another", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call("cache", clear) == ["cache"]
