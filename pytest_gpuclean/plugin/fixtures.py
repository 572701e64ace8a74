"""The fixtures: a handle for each scope, which cleans at the end of its scope."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuclean.plugin.guard import guard_of

if TYPE_CHECKING:
    from pytest_gpuclean.plugin.handle import Handle


def _handle(request: pytest.FixtureRequest) -> Generator[Handle, Any, None]:
    from pytest_gpuclean.plugin.handle import Handle

    name = str(request.fixturename)
    handle = Handle(None, name)
    with guard_of(request.config, f"{name} does nothing"):
        handle = _begin(request.config, name)
    yield handle
    with guard_of(request.config, f"nothing is cleaned at the end of {name}"):
        handle.end()


def _begin(config: pytest.Config, name: str) -> Handle:
    from pytest_gpuclean.plugin.coming_up import activate
    from pytest_gpuclean.plugin.handle import Handle
    from pytest_gpuclean.plugin.settings import settings_of

    if settings_of(config).silenced:
        return Handle(None, name)
    by_hand = activate(config).by_hand
    handle = Handle(by_hand, name)
    handle.since = by_hand.begin()
    return handle


@pytest.fixture
def gpu_clean(request: pytest.FixtureRequest) -> Generator[Handle, Any, None]:
    """A handle on GPU memory (snapshot, clean, peak, on_cleanup, no_leak); cleans when the test ends."""
    yield from _handle(request)


@pytest.fixture(scope="class")
def gpu_clean_class(request: pytest.FixtureRequest) -> Generator[Handle, Any, None]:
    """The same handle; cleans when the last test of the class ends."""
    yield from _handle(request)


@pytest.fixture(scope="module")
def gpu_clean_module(request: pytest.FixtureRequest) -> Generator[Handle, Any, None]:
    """The same handle; cleans when the last test of the module ends."""
    yield from _handle(request)


@pytest.fixture(scope="session")
def gpu_clean_session(request: pytest.FixtureRequest) -> Generator[Handle, Any, None]:
    """The same handle; cleans when the last test of the run ends."""
    yield from _handle(request)
