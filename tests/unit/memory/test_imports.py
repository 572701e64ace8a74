"""Arrays that came with an import."""

import sys
from types import ModuleType

from pytest_gpuclean.memory.imports import ImportWatch
from unit.fakes import fake_module, put


def test_the_values_of_modules_that_came_since_the_mark_are_given(monkeypatch):
    watch = ImportWatch()
    watch.mark()
    table = object()

    class Filter:
        kernel = object()

    Filter.__module__ = "package_that_came"
    put(monkeypatch, fake_module("package_that_came", TABLE=table, Filter=Filter))
    values = list(watch.new_values())
    assert any(value is table for value in values)
    assert any(value is Filter.kernel for value in values)


def test_modules_that_were_there_at_the_mark_are_not(monkeypatch):
    put(monkeypatch, fake_module("package_that_was_there", TABLE=object()))
    watch = ImportWatch()
    watch.mark()
    assert list(watch.new_values()) == []


def test_what_a_test_puts_there_by_hand_was_not_imported(monkeypatch):
    watch = ImportWatch()
    watch.mark()
    made_by_hand = ModuleType("made_by_hand")
    made_by_hand.TABLE = object()
    put(monkeypatch, made_by_hand)
    assert list(watch.new_values()) == []


def test_a_lazy_module_is_not_loaded(monkeypatch):
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(f"{name} would load it")

    watch = ImportWatch()
    watch.mark()
    sys.modules["lazy_that_came"] = Lazy("lazy_that_came")
    try:
        assert list(watch.new_values()) == []
    finally:
        del sys.modules["lazy_that_came"]
