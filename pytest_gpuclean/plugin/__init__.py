"""The entry point: fixtures and hooks, which every run of pytest loads. `coming_up.py` has the rest.

PYTEST_DONT_REWRITE: it may be imported before pytest marks it for that, and need not be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gpuclean.plugin.options import MARKERS, add_options, are_said, asked_for

if TYPE_CHECKING:
    from pytest_gpuclean.plugin.handle import Handle

_COMING_UP = f"{__name__}.coming_up"
_HOOKS = (
    "pytest_gpuclean_cleaners",
    "pytest_gpuclean_leak",
    "pytest_gpuclean_probes",
    "pytest_gpuclean_process_families",
)


# -- fixtures: a handle for each scope, which cleans at the end of its scope ----------------------------------------


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


def _handle(request: pytest.FixtureRequest) -> Generator[Handle, Any, None]:
    from pytest_gpuclean.plugin.handle import Handle

    name = str(request.fixturename)
    handle = Handle(None, name)
    try:
        from pytest_gpuclean.plugin.coming_up import hand_out

        handle = hand_out(request.config, name)
    except BaseException as error:
        _take_in(request.config, f"{name} does nothing", error)
    yield handle
    try:
        handle.end()
    except BaseException as error:
        _take_in(request.config, f"nothing is cleaned at the end of {name}", error)


# -- hooks ----------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini keys."""
    add_options(parser)


def pytest_plugin_registered(manager: pytest.PytestPluginManager) -> None:
    """Declare the hooks for others, once somebody has one of them."""
    if not vars(manager.hook).keys().isdisjoint(_HOOKS):
        from pytest_gpuclean.plugin.hookspecs import declare

        declare(manager)


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Look out for who initialises a device, where that is asked for: a conftest may do it at its import."""
    try:
        if "GPUCLEAN_ASSIGNED" in os.environ:  # after pytest-env, among the first here; conftest files come last
            from pytest_gpuclean.plugin.assign import keep_assigned

            keep_assigned(os.environ)
    except BaseException as error:
        _take_in(early_config, "the GPU that was assigned may not be kept", error)
    try:
        if are_said(early_config, early_config.known_args_namespace):
            from pytest_gpuclean.plainly import plainly

            with plainly:
                from pytest_gpuclean.plugin.coming_up import watch_initialisation

                watch_initialisation(early_config)
    except BaseException as error:
        _take_in(early_config, "--gpu-init is not looked after", error)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, read the options, and come up where they say so."""
    try:
        for text in MARKERS.values():
            config.addinivalue_line("markers", text)
    except BaseException as error:
        _take_in(config, "the markers are not declared", error)
    try:
        hands_out = getattr(config.option, "dist", "no") != "no"
        if hands_out or are_said(config):
            from pytest_gpuclean.plainly import plainly

            with plainly:
                from pytest_gpuclean.plugin.coming_up import come_up

                come_up(config, hands_out=hands_out)
    except BaseException as error:
        _take_in(config, "it has not come up as it should", error)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Say how many workers `-n auto` is, where each is given a GPU."""
    try:
        if are_said(config):
            from pytest_gpuclean.plugin.settings import settings_of

            if settings_of(config).assign != "off":
                from pytest_gpuclean.plugin.assign import workers_for_auto

                return workers_for_auto(config)
    except BaseException as error:
        _take_in(config, "the GPUs are not counted for -n auto", error)
    return None


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Come up where a collected test asks for it, and refuse markers that do not parse."""
    result = yield
    try:
        is_concerned, has_needs = asked_for(items)
        # Where something of ours has come up already, `coming_up` is loaded.
        if is_concerned or has_needs or are_said(config) or _COMING_UP in sys.modules:
            from pytest_gpuclean.plainly import plainly

            with plainly:
                from pytest_gpuclean.plugin.coming_up import look_at_tests

                look_at_tests(config, items, is_concerned=is_concerned, has_needs=has_needs)
    except BaseException as error:
        _take_in(config, "the tests were not looked at as they should", error)
    return result


def _take_in(config: pytest.Config, what: str, error: BaseException) -> None:
    """Tell of trouble of our own, which few runs come into; what is none is raised again."""
    from pytest_gpuclean.plugin.guard import guard_of

    with guard_of(config, what):
        raise error
