"""The entry point: options, markers and fixtures. What runs per test is registered only where it is asked for."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_gpuclean.plugin.fixtures import gpu_clean, gpu_clean_class, gpu_clean_module, gpu_clean_session
from pytest_gpuclean.plugin.markers import MARKERS, asked_for
from pytest_gpuclean.plugin.options import add_options, are_said, are_said_early

if TYPE_CHECKING:
    from pytest_gpuclean.plugin.hooks import RunHooks
    from pytest_gpuclean.plugin.telling import Telling

__all__ = ["gpu_clean", "gpu_clean_class", "gpu_clean_module", "gpu_clean_session"]

_HOOKS_NAME = "gpuclean-run"
_NEEDS_NAME = "gpuclean-needs"
_TELLING_NAME = "gpuclean-telling"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini keys."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks for others."""
    from pytest_gpuclean.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Look out for who initialises a device, where that is asked for: a conftest may do it at its import."""
    if not are_said_early(early_config):
        return
    from pytest_gpuclean.plugin.settings import early_init_mode

    if early_init_mode(early_config) != "off":
        from pytest_gpuclean.plugin.init_watch import InitWatch

        early_config.pluginmanager.register(InitWatch(early_config), "gpuclean-init")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, read the options, and come up where they say so."""
    for text in MARKERS.values():
        config.addinivalue_line("markers", text)
    hands_out = getattr(config.option, "dist", "no") != "no"
    if not (hands_out or are_said(config)):
        return
    from pytest_gpuclean.plugin.settings import settings_of

    settings = settings_of(config)
    if hands_out and settings.assign != "off":
        from pytest_gpuclean.plugin.assign import Assigning

        config.pluginmanager.register(Assigning(), "gpuclean-assign")
    if settings.is_on or settings.concerns_failures:
        activate(config)
    elif hands_out:
        tell(config)  # a worker's tests may have markers that this process never sees


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Say how many workers `-n auto` is, where each is given a GPU."""
    if not are_said(config):
        return None
    from pytest_gpuclean.plugin.settings import settings_of

    if settings_of(config).assign == "off":
        return None
    from pytest_gpuclean.plugin.assign import workers_for_auto

    return workers_for_auto(config)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Come up where a collected test asks for it, and refuse markers that do not parse."""
    result = yield
    is_concerned, has_needs = asked_for(items)
    if has_needs:
        look_after_needs(config, items)
    if (running(config) or is_concerned) and not is_silenced(config):
        hooks = activate(config)
        # Anew, so that our wrappers stand around those of conftest files that the collection has loaded.
        config.pluginmanager.unregister(hooks)
        config.pluginmanager.register(hooks, _HOOKS_NAME)
        try:
            hooks.plan(items)
        except pytest.UsageError as error:
            refuse(config, items, error)
    return result


def look_after_needs(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Register what keeps tests from running where they cannot, or must not yet."""
    from pytest_gpuclean.plugin.needs import Needs

    try:
        needs = Needs(config, items, lambda: tell(config))
    except pytest.UsageError as error:
        refuse(config, items, error)
    else:
        config.pluginmanager.register(needs, _NEEDS_NAME)


def is_silenced(config: pytest.Config) -> bool:
    """Whether the command line says that nothing of ours shall run."""
    from pytest_gpuclean.plugin.settings import settings_of

    return settings_of(config).silenced


def refuse(config: pytest.Config, items: list[pytest.Item], error: pytest.UsageError) -> None:
    """End the run for a marker that does not parse: in a worker of xdist, by telling the controller."""
    if not hasattr(config, "workeroutput"):
        raise error
    config.workeroutput["gpuclean_usage_error"] = str(error)
    items.clear()


def activate(config: pytest.Config) -> RunHooks:
    """Register what runs per test, once."""
    hooks = running(config)
    if hooks is None:
        from pytest_gpuclean.plugin.hooks import RunHooks
        from pytest_gpuclean.plugin.settings import settings_of

        hooks = RunHooks(config, settings_of(config), tell(config))
        config.pluginmanager.register(hooks, _HOOKS_NAME)
    return hooks


def tell(config: pytest.Config) -> Telling:
    """Register what prints and collects the records, once."""
    telling: Telling | None = config.pluginmanager.get_plugin(_TELLING_NAME)
    if telling is None:
        from pytest_gpuclean.plugin.baseline import baseline_of
        from pytest_gpuclean.plugin.settings import settings_of
        from pytest_gpuclean.plugin.telling import Telling, is_worker

        settings = settings_of(config)
        telling = Telling(config, settings, baseline_of(config, settings))
        config.pluginmanager.register(telling, _TELLING_NAME)
        if is_worker(config):
            return telling
        if os.environ.get("GITHUB_ACTIONS") == "true":
            from pytest_gpuclean.plugin.annotations import Annotations

            config.pluginmanager.register(Annotations(config), "gpuclean-annotations")
        if settings.reports or settings.baseline or settings.allowances:
            from pytest_gpuclean.plugin.extent import Extent
            from pytest_gpuclean.plugin.ratchet import Ratchet

            extent = Extent(config)
            config.pluginmanager.register(extent, "gpuclean-extent")
            config.pluginmanager.register(Ratchet(config, settings, telling, extent), "gpuclean-ratchet")
        if settings.reports:
            from pytest_gpuclean.plugin.reporting import Reporting

            config.pluginmanager.register(Reporting(config, settings, telling, extent), "gpuclean-reporting")
    return telling


def running(config: pytest.Config) -> RunHooks | None:
    """Return what runs per test, where it is registered."""
    hooks: RunHooks | None = config.pluginmanager.get_plugin(_HOOKS_NAME)
    return hooks
