"""What can be said to the plugin: options and markers, a table each; and whether a run says any of it.

Of the options' table the command line, the ini keys, the help and the settings are made. Every run of pytest loads this
module and the entry point, and no other: each costs 0.2 ms, as pytest reads a plugin's bytecode in pieces of a few
bytes. What reads the values (`settings.py`, `marks.py`) is loaded where one is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

LEVELS = ("quick", "comprehensive")
EVERY = ("test", "param", "class", "module", "session")
LEAK_MODES = ("fail", "warn", "report", "off")
WATCHES = ("auto", "device", "host", "all")
PROCESSES = ("kill", "fail", "report", "off")
SWITCH = ("on", "off")
ASSIGN = ("off", "round-robin")
INIT = ("report", "fail", "off")
ON_LOST = ("report", "stop", "replace")


class Option:
    """One option, on the command line and, with underscores, as an ini key.

    A plain class: every run of pytest makes it, and a NamedTuple takes 0.15 ms.

    Args:
        flag: without dashes in front where it is an ini key alone.
        metavar: what the help calls its value.
        parser: the function that reads it, such as `units.parse_size`.
        default: as one would write it; the empty text where there is none.
        meaning: what it does, for the help.
        choices: what it may be; empty where its parser decides.
        kind: `list` where it may be said several times, in the ini file one a line; `switch` where it takes no value
            and cannot stand in the ini file.
    """

    __slots__ = ("choices", "default", "dest", "flag", "help", "is_on_command_line", "kind", "metavar", "parser")

    def __init__(
        self,
        flag: str,
        metavar: str,
        parser: str,
        default: str,
        meaning: str,
        choices: tuple[str, ...] = (),
        kind: str = "",
    ) -> None:
        self.flag, self.metavar, self.parser = flag, metavar, parser
        self.default, self.help, self.choices, self.kind = default, meaning, choices, kind
        self.is_on_command_line = flag.startswith("--")
        self.dest = flag.removeprefix("--").replace("-", "_")
        """Its ini key."""


OPTIONS = (
    Option(
        "--gpu-clean",
        "LEVEL",
        "units.parse_choice",
        "off",
        "give memory back after tests: off, quick or comprehensive (default: off); "
        "off on the command line silences markers and fixtures too",
        choices=("off", *LEVELS),
    ),
    Option(
        "--gpu-clean-every",
        "SCOPE",
        "units.parse_choice",
        "test",
        "when to clean: after each test, param (between the parametrized runs of a test), class, module or session "
        "(default: test)",
        choices=EVERY,
    ),
    Option(
        "--gpu-leak",
        "MODE",
        "units.parse_choice",
        "",
        "what a leak does: fail, warn, report or off (default, once the plugin is on: fail for device memory, warn "
        "for host memory that 'auto' chose to watch); on its own it turns the gate on without cleaning",
        choices=LEAK_MODES,
    ),
    Option(
        "--gpu-leak-threshold",
        "SIZE",
        "units.parse_size",
        "1MiB",
        "the largest growth that passes, such as 64MiB, 1.5GB or 4096 (default: 1MiB)",
    ),
    Option(
        "--gpu-leak-watch",
        "WHAT",
        "units.parse_choice",
        "auto",
        "which memory: auto (devices where the run has an accelerator, else host memory), device, host or all "
        "(default: auto)",
        choices=WATCHES,
    ),
    Option(
        "--gpu-leak-confirm",
        "N",
        "units.parse_count",
        "0",
        "how often to run a suspect again: growth in every run is a leak, growth in the first alone is told as "
        "kept once and does not fail (default: 0)",
    ),
    Option(
        "--gpu-leak-explain",
        "N",
        "units.parse_count",
        "20",
        "how many leaks of a run (under xdist: of each worker) get looked up who holds them, beside those that are "
        "allowed or known; 0 for none (default: 20)",
    ),
    Option(
        "--gpu-leak-baseline",
        "FILE",
        "units.parse_path",
        "",
        "a JSON file of leaks that are known by test, device and holder: only new and larger ones fail; on its own it "
        "turns the gate on (default: none)",
    ),
    Option(
        "--gpu-leak-update-baseline",
        "",
        "",
        "",
        "write the leaks of this run into the file of --gpu-leak-baseline and fail for none of them; it is not written "
        "where a test fails or not all of them run",
        kind="switch",
    ),
    Option(
        "gpu_leak_allow",
        "LIST",
        "leaks.allow.parse_allowances",
        "",
        "leaks that are allowed, one a line: a pattern of tests, of holders or of causes, two spaces, and the reason "
        "(default: none)",
        kind="list",
    ),
    Option(
        "--gpu-leak-trace",
        "SWITCH",
        "units.parse_choice",
        "off",
        "record where leaked memory was made: on CUDA by torch's memory history, elsewhere in the runs of "
        "--gpu-leak-confirm alone: on or off (default: off)",
        choices=SWITCH,
    ),
    Option(
        "--gpu-peak-limit",
        "SIZE",
        "units.parse_size",
        "",
        "fail a test whose peak of device memory is above this size (default: no limit)",
    ),
    Option(
        "--gpu-settle",
        "SECONDS",
        "units.parse_seconds",
        "10",
        "the upper bound of any wait for memory to come back or for processes to end (default: 10)",
    ),
    Option(
        "--gpu-processes",
        "MODE",
        "units.parse_choice",
        "",
        "what is done about processes that a test leaves behind: kill, fail (kill, and fail the test), report or off "
        "(default, once the plugin is on: kill)",
        choices=PROCESSES,
    ),
    Option(
        "--gpu-oom-retry",
        "N",
        "units.parse_count",
        "0",
        "how often a test that ran out of memory is run again after a comprehensive cleanup; the outcome of its last "
        "run counts (default: 0)",
    ),
    Option(
        "--gpu-on-lost",
        "MODE",
        "units.parse_choice",
        "",
        "what is done once an error has poisoned a device: report (which test did it, and what came of it), stop (the "
        "run) or replace (the worker of pytest-xdist) (default, once the plugin is on: report)",
        choices=ON_LOST,
    ),
    Option(
        "--gpu-host-wide",
        "NAMES",
        "processes.selectors.parse_selectors",
        "",
        "what may be stopped or cleared although it is not the run's own, under --gpu-clean=comprehensive, at the "
        "start, the end and after each module: tensorboard, ros2, port:N, script:NAME, drop-caches, gpu-reset, with "
        "commas between (default: nothing)",
    ),
    Option(
        "--gpu-assign",
        "HOW",
        "units.parse_choice",
        "off",
        "give each worker of pytest-xdist one of the visible GPUs: off or round-robin (default: off); -n auto is then "
        "one worker for each GPU",
        choices=ASSIGN,
    ),
    Option(
        "--gpu-init",
        "MODE",
        "units.parse_choice",
        "",
        "what is done where a device is initialised at collection or import, or in a controller, and not by a test: "
        "report, fail (the run) or off (default, once the plugin is on: report)",
        choices=INIT,
    ),
    Option(
        "gpu_subreaper",
        "SWITCH",
        "units.parse_choice",
        "on",
        "adopt the orphans of what tests start, so that none slips away (Linux): on or off (default: on)",
        choices=SWITCH,
    ),
    Option(
        "--gpu-report",
        "FILE",
        "reports.writers.parse_targets",
        "",
        "write what the run used, leaked and gave back into a file that ends in .json, .html or .md; may be said again "
        "(in the ini file: one a line); on its own it only looks, and fails or stops nothing (default: none)",
        kind="list",
    ),
)


MARKERS = {
    "gpu_clean": "gpu_clean(level, every='test'): clean after this test (quick or comprehensive); every: test, "
    "param, class, module or session",
    "gpu_leak": "gpu_leak(threshold=None, allow=None, until=None): judge this test's leaks by another threshold, or "
    "allow them for a reason, up to a day such as '2027-01-31'",
    "gpu_limit": "gpu_limit(peak): fail this test where its peak of device memory is above a size",
    "gpu_require": "gpu_require(count=1, memory=None, free=None): skip this test where there are not so many visible "
    "GPUs with so much memory; for free memory it waits, up to --gpu-settle",
    "gpu_exclusive": "gpu_exclusive(timeout=3600): hold back the other tests with this marker that use the same GPU, "
    "in all workers and runs of the machine; after so many seconds of waiting the test fails",
}
NEEDS = frozenset({"gpu_require", "gpu_exclusive"})
"""What a test needs: no cleaning, so these hold also where all of that is off."""
FIXTURES = frozenset({"gpu_clean", "gpu_clean_class", "gpu_clean_module", "gpu_clean_session"})


def add_options(parser: pytest.Parser) -> None:
    """Declare every option of the table."""
    group = parser.getgroup("gpuclean", "GPU memory: cleaning and leaks (pytest-gpuclean)")
    for option in OPTIONS:
        # The command line's default is None: a default that looks like a value would hide the ini key.
        if option.kind == "switch":
            group.addoption(option.flag, action="store_true", dest=option.dest, default=None, help=option.help)
            continue
        if option.is_on_command_line:
            action = "append" if option.kind == "list" else "store"
            group.addoption(
                option.flag, action=action, dest=option.dest, metavar=option.metavar, default=None, help=option.help
            )
        # A list cannot have the default of a text: pytest 7.4 splits it where it is asked for.
        text = f"{option.flag}: {option.help}"
        if option.kind == "list":
            parser.addini(option.dest, text, type="linelist", default=[])
        else:
            parser.addini(option.dest, text, default="")


def are_said(config: pytest.Config, said: object = None) -> bool:
    """Whether the command line or the ini file says anything of ours.

    Args:
        config: of the run.
        said: the values of the command line, where they are not yet in `config`: before the conftests are loaded.
    """
    said = config.option if said is None else said
    for option in OPTIONS:
        if getattr(said, option.dest, None) is not None:
            return True
        if option.kind != "switch" and _is_in_ini(config, option.dest):
            return True
    return False


def _is_in_ini(config: pytest.Config, name: str) -> bool:
    try:
        return config.getini(name) not in ("", None, [])
    except (TypeError, ValueError):  # of another type: refused where it is read
        return True


def asked_for(items: Iterable[pytest.Item]) -> tuple[bool, bool]:
    """Tell whether some test asks for cleaning or judging, by marker or fixture, and whether one has needs."""
    has_fixture = False
    looked_at: set[int] = set()
    names: set[str] = set()
    for item in items:
        has_fixture = has_fixture or asks_for_fixture(item)
        node: Any = item
        while node is not None and id(node) not in looked_at:
            looked_at.add(id(node))
            for mark in node.own_markers:
                names.add(mark.name)
            node = node.parent
    names.intersection_update(MARKERS)
    return has_fixture or bool(names - NEEDS), bool(names & NEEDS)


def asks_for_fixture(item: pytest.Item) -> bool:
    """Whether a test asks for a fixture of ours by name."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
