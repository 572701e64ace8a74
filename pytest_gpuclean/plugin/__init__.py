"""The entry point: options, markers and fixtures, which every run of pytest loads. `coming_up.py` has the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest

from pytest_gpuclean.plugin.fixtures import gpu_clean, gpu_clean_class, gpu_clean_module, gpu_clean_session
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.markers import MARKERS, asked_for
from pytest_gpuclean.plugin.options import add_options, are_said, are_said_early

__all__ = ["gpu_clean", "gpu_clean_class", "gpu_clean_module", "gpu_clean_session"]

_COMING_UP = f"{__name__}.coming_up"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini keys."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks for others."""
    from pytest_gpuclean.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Look out for who initialises a device, where that is asked for: a conftest may do it at its import."""
    with guard_of(early_config, "the GPU that was assigned may not be kept"):
        if "GPUCLEAN_ASSIGNED" in os.environ:  # after pytest-env, among the first here; conftest files come last
            from pytest_gpuclean.plugin.assign import keep_assigned

            keep_assigned(os.environ)
    with guard_of(early_config, "--gpu-init is not looked after"):
        if are_said_early(early_config):
            from pytest_gpuclean.plugin.coming_up import watch_initialisation

            watch_initialisation(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, read the options, and come up where they say so."""
    with guard_of(config, "the markers are not declared"):
        for text in MARKERS.values():
            config.addinivalue_line("markers", text)
    with guard_of(config, "it has not come up as it should"):
        hands_out = getattr(config.option, "dist", "no") != "no"
        if hands_out or are_said(config):
            from pytest_gpuclean.plugin.coming_up import come_up

            come_up(config, hands_out=hands_out)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Say how many workers `-n auto` is, where each is given a GPU."""
    with guard_of(config, "the GPUs are not counted for -n auto"):
        if are_said(config):
            from pytest_gpuclean.plugin.settings import settings_of

            if settings_of(config).assign != "off":
                from pytest_gpuclean.plugin.assign import workers_for_auto

                return workers_for_auto(config)
    return None


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Come up where a collected test asks for it, and refuse markers that do not parse."""
    result = yield
    with guard_of(config, "the tests were not looked at as they should"):
        is_concerned, has_needs = asked_for(items)
        # Where something of ours has come up already, `coming_up` is loaded.
        if is_concerned or has_needs or are_said(config) or _COMING_UP in sys.modules:
            from pytest_gpuclean.plugin.coming_up import look_at_tests

            look_at_tests(config, items, is_concerned=is_concerned, has_needs=has_needs)
    return result
