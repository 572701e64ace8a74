"""Which objects belong to a live fixture of a wider scope: its value, and what its setup set on a class or module."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest

from pytest_gpuclean.plugin import retention
from pytest_gpuclean.plugin.internals import tears_class_down

Before = list[tuple[Any, dict[str, int]]]
"""Classes and global namespaces, with the identity of each value in them."""


class FixtureRoots:
    """Finds them when they are asked for, and keeps the fixtures' definitions and names alone."""

    def __init__(self) -> None:
        self._definitions: dict[int, pytest.FixtureDef[Any]] = {}
        self._attributes: dict[int, list[tuple[Any, list[str]]]] = {}
        self._torn_down: dict[int, Before] = {}
        """Classes that tear themselves down, and their bases, as they were: what tests set there is theirs too."""

    def begin(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Before:
        """Note what its class with its bases, its module and its own globals look like before a setup."""
        owners = [
            *getattr(_member(request, "cls"), "__mro__", ()),
            getattr(_member(request, "module"), "__dict__", None),
            getattr(fixturedef.func, "__globals__", None),
        ]
        distinct = {id(owner): owner for owner in owners if isinstance(owner, (type, dict))}
        return [(owner, {name: id(value) for name, value in _names(owner).items()}) for owner in distinct.values()]

    def end(self, fixturedef: pytest.FixtureDef[Any], before: Before) -> None:
        """Note what the setup has set there: `setUpClass`, `request.cls.model = ...`, `global ENGINE`."""
        self._definitions[id(fixturedef)] = fixturedef
        changed = []
        classes = [(owner, known) for owner, known in before if isinstance(owner, type)]
        if classes and tears_class_down(fixturedef, classes[0][0]):
            self._torn_down[id(fixturedef)] = classes
        for owner, known in before:
            if names := _changed(owner, known):
                changed.append((owner, names))
        self._attributes[id(fixturedef)] = changed

    def values(self, keys: Collection[int]) -> Iterator[tuple[int, list[Any]]]:
        """Give the values to look into, for fixtures by their keys."""
        for key in list(keys):
            if key in self._definitions:
                values = retention.fixture_value(self._definitions[key])
                attributes = list(self._attributes.get(key, ()))
                attributes += [(owner, _changed(owner, known)) for owner, known in self._torn_down.get(key, ())]
                for owner, names in attributes:
                    values += [_names(owner)[name] for name in names if name in _names(owner)]
                yield key, values

    def all_values(self) -> Iterator[tuple[int, list[Any]]]:
        """Give the values of every live fixture."""
        return self.values(self._definitions)

    def words(self) -> dict[int, str]:
        """Name live fixtures by the `id` of their definition and of their value."""
        named: dict[int, str] = {}
        for definition in self._definitions.values():
            name = f"fixture {definition.argname!r} ({definition.scope} scope)"
            named.update((id(part), name) for part in (definition, *retention.fixture_value(definition)))
        return named

    def error_frames(self) -> Iterator[int]:
        """Give the frames (by `id`) of the errors with which live fixtures failed: they will be raised again."""
        for definition in self._definitions.values():
            yield from map(id, retention.fixture_error_frames(definition))

    def forget(self, key: int) -> pytest.FixtureDef[Any] | None:
        """Drop a fixture that has ended, and return it where it was known."""
        self._attributes.pop(key, None)
        self._torn_down.pop(key, None)
        return self._definitions.pop(key, None)


def _member(request: pytest.FixtureRequest, name: str) -> Any:
    if request.scope not in ("class", "module"):
        return None
    try:
        return getattr(request, name)
    except AttributeError:  # a module-scope request has no class
        return None


def _changed(owner: Any, known: Mapping[str, int]) -> list[str]:
    return [name for name, value in list(_names(owner).items()) if known.get(name) != id(value)]


def _names(owner: Any) -> Mapping[str, Any]:
    return owner if isinstance(owner, dict) else vars(owner)
