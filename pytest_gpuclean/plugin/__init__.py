"""The entry point: options, markers and fixtures. What runs per test is registered only where it is asked for."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_gpuclean.plugin.fixtures import gpu_clean, gpu_clean_class, gpu_clean_module, gpu_clean_session
from pytest_gpuclean.plugin.guard import guard_of, trouble_of
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


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Look out for who initialises a device, where that is asked for: a conftest may do it at its import."""
    if "GPUCLEAN_ASSIGNED" in os.environ:  # after pytest-env, which is among the first here; conftest files come last
        with guard_of(early_config, "the GPU that was assigned may not be kept"):
            from pytest_gpuclean.plugin.assign import keep_assigned

            keep_assigned(os.environ)
    with guard_of(early_config, "--gpu-init is not looked after"):
        if are_said_early(early_config):
            watch_initialisation(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, read the options, and come up where they say so."""
    with guard_of(config, "the markers are not declared"):
        for text in MARKERS.values():
            config.addinivalue_line("markers", text)
    with guard_of(config, "it has not come up as it should"):
        come_up(config)


def watch_initialisation(config: pytest.Config) -> None:
    """Register what looks out for who initialises a device, where that is asked for."""
    from pytest_gpuclean.plugin.settings import early_init_mode

    if early_init_mode(config) != "off":
        from pytest_gpuclean.plugin.init_watch import InitWatch

        config.pluginmanager.register(InitWatch(config), "gpuclean-init")


def come_up(config: pytest.Config) -> None:
    """Read the options, and register what they ask for."""
    hands_out = getattr(config.option, "dist", "no") != "no"
    if not (hands_out or are_said(config)):
        return
    from pytest_gpuclean.plugin.settings import settings_of

    if hands_out and settings_of(config).assign != "off":
        from pytest_gpuclean.plugin.assign import Assigning

        config.pluginmanager.register(Assigning(), "gpuclean-assign")
    if is_asked_for(config):
        activate(config)
    elif hands_out:
        tell(config)  # a worker's tests may have markers that this process never sees


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
        look_at_tests(config, items)
    return result


def look_at_tests(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Come up where one of the tests asks for it, and read their markers."""
    is_concerned, has_needs = asked_for(items)
    if has_needs:
        with guard_of(config, "gpu_require and gpu_exclusive hold no test back"):
            look_after_needs(config, items)
    # Asked for, and not running: what kept it from coming up may have passed.
    if (running(config) or is_concerned or is_asked_for(config)) and not is_silenced(config):
        hooks = activate(config)
        # Anew, so that our wrappers stand around those of conftest files that the collection has loaded.
        config.pluginmanager.unregister(hooks)
        config.pluginmanager.register(hooks, _HOOKS_NAME)
        try:
            hooks.plan(items)
        except pytest.UsageError as error:
            refuse(config, items, error)


def look_after_needs(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Register what keeps tests from running where they cannot, or must not yet."""
    from pytest_gpuclean.plugin.needs import Needs

    try:
        needs = Needs(config, items, lambda: tell(config))
    except pytest.UsageError as error:
        refuse(config, items, error)
    else:
        config.pluginmanager.register(needs, _NEEDS_NAME)


def is_asked_for(config: pytest.Config) -> bool:
    """Whether the options ask for what runs per test."""
    if not are_said(config):
        return False
    from pytest_gpuclean.plugin.settings import settings_of

    settings = settings_of(config)
    return settings.is_on or settings.concerns_failures


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
        trouble_of(config)  # where it has none itself, a worker may have
        telling = Telling(config, settings, baseline_of(config, settings))
        config.pluginmanager.register(telling, _TELLING_NAME)
        with guard_of(config, f"NOT WRITTEN {', '.join(settings.reports) or 'annotations'}"):
            if not is_worker(config):
                tell_more(config, telling)
    return telling


def tell_more(config: pytest.Config, telling: Telling) -> None:
    """Register what makes files and annotations of the records, in the run's controller."""
    from pytest_gpuclean.plugin.settings import settings_of

    settings = settings_of(config)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        with guard_of(config, "there are no annotations"):
            from pytest_gpuclean.plugin.annotations import Annotations

            config.pluginmanager.register(Annotations(config), "gpuclean-annotations")
    if settings.reports or settings.baseline or settings.allowances:
        from pytest_gpuclean.plugin.extent import Extent

        extent = Extent(config)
        config.pluginmanager.register(extent, "gpuclean-extent")
        with guard_of(config, "known leaks are neither compared nor written"):
            from pytest_gpuclean.plugin.ratchet import Ratchet

            config.pluginmanager.register(Ratchet(config, settings, telling, extent), "gpuclean-ratchet")
    if settings.reports:
        with guard_of(config, f"NOT WRITTEN {', '.join(settings.reports)}"):
            from pytest_gpuclean.plugin.reporting import Reporting

            config.pluginmanager.register(Reporting(config, settings, telling, extent), "gpuclean-reporting")


def running(config: pytest.Config) -> RunHooks | None:
    """Return what runs per test, where it is registered."""
    hooks: RunHooks | None = config.pluginmanager.get_plugin(_HOOKS_NAME)
    return hooks
