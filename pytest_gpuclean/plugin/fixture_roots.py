"""Which objects belong to a live fixture of a wider scope: its value, and what its setup set on a class or module."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest

from pytest_gpuclean.plugin import retention


class FixtureRoots:
    """Finds them when they are asked for, and keeps the fixtures' definitions and names alone."""

    def __init__(self) -> None:
        self._definitions: dict[int, pytest.FixtureDef[Any]] = {}
        self._attributes: dict[int, list[tuple[Any, list[str]]]] = {}

    def begin(self, request: pytest.FixtureRequest) -> list[tuple[Any, dict[str, int]]]:
        """Note what its class and its module look like before a setup."""
        owners = [owner for owner in (_owner(request, "cls"), _owner(request, "module")) if owner is not None]
        return [(owner, {name: id(value) for name, value in vars(owner).items()}) for owner in owners]

    def end(self, fixturedef: pytest.FixtureDef[Any], before: list[tuple[Any, dict[str, int]]]) -> None:
        """Note what the setup has set there: `setUpClass`, or `request.cls.model = ...`."""
        self._definitions[id(fixturedef)] = fixturedef
        changed = []
        for owner, known in before:
            names = [name for name, value in list(vars(owner).items()) if known.get(name) != id(value)]
            if names:
                changed.append((owner, names))
        self._attributes[id(fixturedef)] = changed

    def values(self, keys: Collection[int]) -> Iterator[tuple[int, list[Any]]]:
        """Give the values to look into, for fixtures by their keys."""
        for key in list(keys):
            if key in self._definitions:
                values = retention.fixture_value(self._definitions[key])
                for owner, names in self._attributes.get(key, ()):
                    values += [vars(owner)[name] for name in names if name in vars(owner)]
                yield key, values

    def error_frames(self) -> Iterator[int]:
        """Give the frames (by `id`) of the errors with which live fixtures failed: they will be raised again."""
        for definition in self._definitions.values():
            yield from retention.fixture_error_frames(definition)

    def forget(self, key: int) -> None:
        """Drop a fixture that has ended."""
        self._definitions.pop(key, None)
        self._attributes.pop(key, None)


def _owner(request: pytest.FixtureRequest, name: str) -> Any:
    if request.scope not in ("class", "module"):
        return None
    try:
        return getattr(request, name)
    except AttributeError:  # a module-scope request has no class
        return None
