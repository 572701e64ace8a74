"""What the options of a run say. Loaded only where they say something, or a test asks for the plugin."""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_gpuclean import units
from pytest_gpuclean.errors import InputError
from pytest_gpuclean.model.cleanup import Level
from pytest_gpuclean.plugin.options import OPTIONS, Option

if TYPE_CHECKING:
    from pytest_gpuclean.leaks.allow import Allowed
    from pytest_gpuclean.processes.selectors import Selector

SETTINGS = pytest.StashKey["Settings"]()


class Settings(NamedTuple):
    """What the options of a run say."""

    threshold_bytes: int
    silenced: bool = False
    """`--gpu-clean=off` on the command line: nothing runs, whatever markers and fixtures say."""
    level: Level | None = None
    every: str = "test"
    leak_mode: str | None = None
    """As it was said; None where it was not."""
    watch: str = "auto"
    confirm: int = 0
    explain: int = 20
    traces: bool = False
    peak_limit_bytes: int | None = None
    settle_seconds: float = 10.0
    processes: str | None = None
    """As it was said; None where it was not."""
    oom_retry: int = 0
    on_lost: str | None = None
    """As it was said; None where it was not."""
    is_subreaper: bool = True
    host_wide: tuple[Selector, ...] = ()
    """What the user has named beyond the run's own."""
    assign: str = "off"
    """Whether each worker is given a GPU of its own."""
    init: str | None = None
    """As it was said; None where it was not."""
    reports: tuple[str, ...] = ()
    """The files that reports go to, as absolute paths."""
    baseline: str = ""
    """The file of known leaks, as an absolute path."""
    updates_baseline: bool = False
    allowances: tuple[Allowed, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether tests without any marker are concerned."""
        asks = self.concerns_memory or self.processes not in (None, "off") or self.reports
        return bool(asks) and not self.silenced

    @property
    def judges(self) -> bool:
        """Whether tests without any marker are judged."""
        return self.concerns_memory or bool(self.reports)

    @property
    def only_observes(self) -> bool:
        """Whether tests without any marker are looked at for the report alone: nothing fails, nothing is stopped."""
        return bool(self.reports) and self.leak_mode is None and not self.concerns_memory

    @property
    def concerns_failures(self) -> bool:
        """Whether failures are looked into in tests that nothing else concerns."""
        return not self.silenced and (self.oom_retry > 0 or self.on_lost is not None)

    @property
    def concerns_memory(self) -> bool:
        """Whether memory is cleaned or judged in tests without any marker."""
        gate = self.leak_mode not in (None, "off")
        knows = bool(self.baseline) and self.leak_mode is None
        return self.level is not None or gate or self.peak_limit_bytes is not None or knows

    @property
    def init_mode(self) -> str:
        """What is done about a device that no test has initialised."""
        if self.silenced:
            return "off"
        return self.init or ("report" if self.is_on else "off")

    @property
    def processes_mode(self) -> str:
        """What is done about processes that tests without any marker leave."""
        looks = self.reports and not self.concerns_memory
        return self.processes or ("report" if looks else "kill")

    def mode_of(self, device: str) -> str:
        """What a leak on this device does."""
        if self.leak_mode is not None:
            return self.leak_mode
        return "warn" if device == "cpu" and self.watch == "auto" else "fail"


def settings_of(config: pytest.Config) -> Settings:
    """Return the settings of a run, read once.

    Raises:
        pytest.UsageError: where a value does not parse.
    """
    settings = config.stash.get(SETTINGS, None)
    if settings is None:
        settings = config.stash[SETTINGS] = read_settings(config)
    return settings


class _EarlyConfig:
    """A run's options before its conftests are loaded: those that were said on the command line, and the ini file."""

    def __init__(self, config: pytest.Config) -> None:
        self._said = config.known_args_namespace
        self.getini = config.getini
        self.inipath = config.inipath

    def getoption(self, name: str, default: object = None) -> object:
        return getattr(self._said, name, default)


def early_init_mode(config: pytest.Config) -> str:
    """Read `--gpu-init` before the conftests are loaded; `off` where something does not parse, which is told later."""
    try:
        return read_settings(_EarlyConfig(config)).init_mode
    except pytest.UsageError:
        return "off"


def read_settings(config: pytest.Config | _EarlyConfig) -> Settings:
    """Read the options, the command line before the ini file.

    Raises:
        pytest.UsageError: where a value does not parse.
    """
    read = partial(_read, config)
    level = read("gpu_clean")
    said_off = level == "off" and config.getoption("gpu_clean", None) is not None
    return Settings(
        silenced=said_off,
        level=None if level == "off" else level,
        every=read("gpu_clean_every"),
        leak_mode=read("gpu_leak"),
        threshold_bytes=read("gpu_leak_threshold"),
        watch=read("gpu_leak_watch"),
        confirm=read("gpu_leak_confirm"),
        explain=read("gpu_leak_explain"),
        traces=read("gpu_leak_trace") == "on",
        peak_limit_bytes=read("gpu_peak_limit"),
        settle_seconds=read("gpu_settle"),
        processes=read("gpu_processes"),
        oom_retry=read("gpu_oom_retry"),
        on_lost=read("gpu_on_lost"),
        is_subreaper=read("gpu_subreaper") == "on",
        host_wide=read("gpu_host_wide") or (),
        assign=read("gpu_assign"),
        init=read("gpu_init"),
        baseline=_baseline_of(config, read("gpu_leak_baseline")),
        updates_baseline=bool(config.getoption("gpu_leak_update_baseline", None)),
        allowances=read("gpu_leak_allow") or (),
        reports=tuple(path_of(config, "gpu_report", path) for path in read("gpu_report") or ()),
    )


def _baseline_of(config: pytest.Config | _EarlyConfig, path: str | None) -> str:
    if path is None and config.getoption("gpu_leak_update_baseline", None):
        raise pytest.UsageError("--gpu-leak-update-baseline: it needs the file, --gpu-leak-baseline=FILE")
    return path_of(config, "gpu_leak_baseline", path) if path is not None else ""


def path_of(config: pytest.Config | _EarlyConfig, dest: str, path: str) -> str:
    """Say which file an option means: below the working directory, or that of the ini file where it says so."""
    if config.getoption(dest, None) is None and config.inipath is not None:
        path = os.path.join(config.inipath.parent, path)
    return os.path.abspath(os.path.expanduser(path))


def _read(config: pytest.Config | _EarlyConfig, dest: str) -> Any:
    option = next(option for option in OPTIONS if option.dest == dest)
    value: object = config.getoption(dest, None)
    source = option.flag
    if value is None or not option.is_on_command_line:
        file = config.inipath.name if config.inipath else "the ini file"
        source = f"{dest} in {file}"
        try:
            value = config.getini(dest)
        except (TypeError, ValueError) as error:  # pytest 9 refuses a TOML number for a text
            raise pytest.UsageError(f"{source}: {error}; write it in quotes") from None
        if value in ("", None, []):
            value, source = option.default, f"the default of {option.flag}"
            if value == "":
                return None
    try:
        return _parse(option, value, source)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def _parse(option: Option, value: object, source: str) -> Any:
    if option.choices:
        return units.parse_choice(value, option.choices, source)
    module, _, name = option.parser.rpartition(".")
    return getattr(importlib.import_module(f"pytest_gpuclean.{module}"), name)(value, source)
