"""Looking at frameworks without touching them."""

import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from pytest_gpuclean.memory.interface import Probe, first_line, loaded, member, whole
from unit.fakes import ScriptedProbe, fake_module, put


class LazyModule(ModuleType):
    """As importlib's LazyLoader, transformers and TensorFlow make them."""

    def __getattribute__(self, name):
        raise AssertionError(f"{name} would load it")


class ModuleWithLazyParts(ModuleType):
    """Fully imported itself; some of its names load on first use."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} would load it")


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
    assert loaded("framework") is None


def test_a_module_that_is_still_being_imported_is_absent(monkeypatch):
    module = fake_module("framework")
    module.__spec__._initializing = True
    put(monkeypatch, module)
    assert loaded("framework") is None


def test_an_imported_module_is_found_also_where_some_of_its_names_are_lazy(monkeypatch):
    module = ModuleWithLazyParts("framework")
    vars(module).update(vars(fake_module("framework")))
    put(monkeypatch, module)
    assert loaded("framework") is module
    assert member(module, "keras") is None


def test_a_dotted_name_is_looked_up_in_namespaces_alone():
    inner = fake_module("framework.version", cuda="12.4")
    module = fake_module("framework", version=inner)
    assert member(module, "version", "cuda") == "12.4"
    assert member(module, "version", "hip") is None
    assert member(module, "accelerator", "current_accelerator") is None


def test_a_modules_own_getattr_is_not_asked():
    def load(name):
        raise AssertionError(f"{name} would be loaded")

    assert member(fake_module("framework", __getattr__=load), "keras") is None


@pytest.mark.parametrize("value", [MagicMock(), 1.0, "1", None, True])
def test_a_figure_that_is_no_whole_number_is_refused(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        whole(value)


def test_an_error_is_named_in_one_line():
    class Silent(Exception):
        def __str__(self):
            raise OSError("cannot say")

    assert first_line(ValueError("no\nmore")) == "ValueError: no"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(Silent()) == "Silent"


def test_a_probe_is_known_by_what_it_has():
    assert isinstance(ScriptedProbe(), Probe)
    assert not isinstance(object(), Probe)
