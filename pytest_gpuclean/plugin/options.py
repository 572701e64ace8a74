"""The options: one table, from which the command line, the ini keys, the help and the settings are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.units import parse_choice, parse_count, parse_seconds, parse_size

if TYPE_CHECKING:
    from pytest_gpuclean.model import Level

LEVELS = ("quick", "comprehensive")
EVERY = ("test", "param", "class", "module", "session")
LEAK_MODES = ("fail", "warn", "report", "off")
WATCHES = ("auto", "device", "host", "all")

Parser = Callable[[object, str], Any]


class Option(NamedTuple):
    """One option, on the command line and, with underscores, as an ini key."""

    flag: str
    metavar: str
    parse: Parser
    default: str
    """As one would write it; the empty text where there is none."""
    help: str

    @property
    def dest(self) -> str:
        """Its ini key."""
        return self.flag.removeprefix("--").replace("-", "_")


def _choice(choices: tuple[str, ...]) -> Parser:
    return lambda value, source: parse_choice(value, choices, source)


OPTIONS = (
    Option(
        "--gpu-clean",
        "LEVEL",
        _choice(("off", *LEVELS)),
        "off",
        "give memory back after tests: off, quick or comprehensive (default: off); "
        "off on the command line silences markers and fixtures too",
    ),
    Option(
        "--gpu-clean-every",
        "SCOPE",
        _choice(EVERY),
        "test",
        "when to clean: after each test, param (between the parametrized runs of a test), class, module or session "
        "(default: test)",
    ),
    Option(
        "--gpu-leak",
        "MODE",
        _choice(LEAK_MODES),
        "",
        "what a leak does: fail, warn, report or off (default, once the plugin is on: fail for device memory, warn "
        "for host memory that 'auto' chose to watch); on its own it turns the gate on without cleaning",
    ),
    Option(
        "--gpu-leak-threshold",
        "SIZE",
        parse_size,
        "1MiB",
        "the largest growth that passes, such as 64MiB, 1.5GB or 4096 (default: 1MiB)",
    ),
    Option(
        "--gpu-leak-watch",
        "WHAT",
        _choice(WATCHES),
        "auto",
        "which memory: auto (devices where the run has an accelerator, else host memory), device, host or all "
        "(default: auto)",
    ),
    Option(
        "--gpu-leak-confirm",
        "N",
        parse_count,
        "0",
        "how often to run a suspect again: growth in every run is a leak, growth in the first alone is told as "
        "kept once and does not fail (default: 0)",
    ),
    Option(
        "--gpu-peak-limit",
        "SIZE",
        parse_size,
        "",
        "fail a test whose peak of device memory is above this size (default: no limit)",
    ),
    Option(
        "--gpu-settle",
        "SECONDS",
        parse_seconds,
        "10",
        "the upper bound of any wait for memory to come back (default: 10)",
    ),
)


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
    peak_limit_bytes: int | None = None
    settle_seconds: float = 10.0

    @property
    def is_on(self) -> bool:
        """Whether tests without any marker are concerned."""
        gate = self.leak_mode not in (None, "off")
        return not self.silenced and (self.level is not None or gate or self.peak_limit_bytes is not None)

    def mode_of(self, device: str) -> str:
        """What a leak on this device does."""
        if self.leak_mode is not None:
            return self.leak_mode
        return "warn" if device == "cpu" and self.watch == "auto" else "fail"


def add_options(parser: pytest.Parser) -> None:
    """Declare every option of the table."""
    group = parser.getgroup("gpuclean", "GPU memory: cleaning and leaks (pytest-gpuclean)")
    for option in OPTIONS:
        # The command line's default is None: a default that looks like a value would hide the ini key.
        group.addoption(option.flag, dest=option.dest, metavar=option.metavar, default=None, help=option.help)
        parser.addini(option.dest, f"{option.flag}: {option.help}", default="")


def read_settings(config: pytest.Config) -> Settings:
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
        peak_limit_bytes=read("gpu_peak_limit"),
        settle_seconds=read("gpu_settle"),
    )


def _read(config: pytest.Config, dest: str) -> Any:
    option = next(option for option in OPTIONS if option.dest == dest)
    value: object = config.getoption(dest, None)
    source = option.flag
    if value is None:
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
        return option.parse(value, source)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
