"""What ends with a test: its parametrized run, its class, its module, the session."""

from __future__ import annotations

from typing import Any, cast

import pytest


def ends_module(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Whether the next test, if any, is in another module."""
    if nextitem is not None and nextitem.parent is item.parent:
        return False
    return nextitem is None or _container(item, pytest.Module) is not _container(nextitem, pytest.Module)


def ends(every: str, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Whether a cleanup that is due at a scope is due after this test.

    Args:
        every: `test`, `param`, `class`, `module` or `session`.
        item: the test that ends.
        nextitem: the test that follows in this process.
    """
    if every == "test":
        return True
    if every == "param":
        return getattr(item, "callspec", None) is not None
    if every == "session" or nextitem is None:
        return nextitem is None
    if every == "class":
        own, following = _container(item, pytest.Class), _container(nextitem, pytest.Class)
        return own is not following if own is not None else ends_module(item, nextitem)
    return ends_module(item, nextitem)


def module_of(item: pytest.Item) -> str:
    """Name the module that a test is in; tests outside of any are told by their file."""
    container = _container(item, pytest.Module)
    return container.nodeid if container is not None else item.nodeid.partition("::")[0]


def _container(item: pytest.Item, kind: type[pytest.Collector]) -> pytest.Collector | None:
    found: Any = item.getparent(kind)
    if found is None and kind is pytest.Module:
        # Custom items and doctests in text files: their file is what a module is elsewhere.
        found = item.getparent(pytest.File)
    return cast("pytest.Collector | None", found)
