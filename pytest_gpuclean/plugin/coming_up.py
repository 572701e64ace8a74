"""Coming up: what the options, the markers and the fixtures of a run ask for is registered, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.hookspecs import declare
from pytest_gpuclean.plugin.options import are_said
from pytest_gpuclean.plugin.settings import early_init_mode, settings_of
from pytest_gpuclean.plugin.trouble import trouble_of

if TYPE_CHECKING:
    from pytest_gpuclean.plugin.handle import Handle
    from pytest_gpuclean.plugin.hooks import RunHooks
    from pytest_gpuclean.plugin.telling import Telling

_HOOKS_NAME = "gpuclean-run"
_NEEDS_NAME = "gpuclean-needs"
_TELLING_NAME = "gpuclean-telling"


def watch_initialisation(config: pytest.Config) -> None:
    """Register what looks out for who initialises a device, where that is asked for."""
    if early_init_mode(config) != "off":
        from pytest_gpuclean.plugin.init_watch import InitWatch

        config.pluginmanager.register(InitWatch(config), "gpuclean-init")


def come_up(config: pytest.Config, *, hands_out: bool) -> None:
    """Read the options, and register what they ask for.

    Args:
        config: of the run.
        hands_out: whether xdist hands the tests out to workers.
    """
    if hands_out and settings_of(config).assign != "off":
        from pytest_gpuclean.plugin.assign import Assigning

        config.pluginmanager.register(Assigning(), "gpuclean-assign")
    if is_asked_for(config):
        activate(config)
    elif hands_out:
        tell(config)  # a worker's tests may have markers that this process never sees


def look_at_tests(config: pytest.Config, items: list[pytest.Item], *, is_concerned: bool, has_needs: bool) -> None:
    """Come up where one of the tests asks for it, and read their markers.

    Args:
        config: of the run.
        items: the tests.
        is_concerned: whether one of them asks for what runs per test.
        has_needs: whether one says what it needs.
    """
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
    settings = settings_of(config)
    return settings.is_on or settings.concerns_failures


def is_silenced(config: pytest.Config) -> bool:
    """Whether the command line says that nothing of ours shall run."""
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

        declare(config.pluginmanager)
        hooks = RunHooks(config, settings_of(config), tell(config))
        config.pluginmanager.register(hooks, _HOOKS_NAME)
    return hooks


def hand_out(config: pytest.Config, name: str) -> Handle:
    """Make what a fixture hands out; it is inert where the command line says off.

    Args:
        config: of the run.
        name: of the fixture.
    """
    from pytest_gpuclean.plugin.handle import Handle

    if is_silenced(config):
        return Handle(None, name)
    by_hand = activate(config).by_hand
    handle = Handle(by_hand, name)
    handle.since = by_hand.begin()
    return handle


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
