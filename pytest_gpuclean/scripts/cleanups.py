"""Cleaning up between the runs of a script, and after a training. Importing this marks what the script starts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest_gpuclean.scripts.mark  # noqa: F401  see there
from pytest_gpuclean.cleanup.callables import CallableCleaner
from pytest_gpuclean.cleanup.interface import Cleaner
from pytest_gpuclean.errors import InputError
from pytest_gpuclean.model.cleanup import CleanupResult, Level, StepResult
from pytest_gpuclean.processes.selectors import Selector
from pytest_gpuclean.scripts.naming import HostWide, read_host_wide
from pytest_gpuclean.scripts.own import is_board, is_robot, is_script
from pytest_gpuclean.scripts.session import Session, session
from pytest_gpuclean.scripts.steps import NamedStep, OwnStep, SettleStep, bound_for
from pytest_gpuclean.scripts.telling import Teller
from pytest_gpuclean.units import parse_count, parse_seconds

_QUICK_SECONDS, _COMPREHENSIVE_SECONDS = 5.0, 10.0
_UNWATCHED = (
    "outside of watch() only {kinds} of this script's are stopped; put a run into `with watch():` to have all that it "
    "started stopped"
)
_NOTHING_NAMED = "beyond this script's own nothing is stopped or cleared; host_wide='ros2,drop-caches' would name it"


def quick_cleanup(wait_time: float | None = None, verbose: bool = True) -> CleanupResult:
    """Stop what the script has left running, and give memory back where it moved.

    Args:
        wait_time: the upper bound in seconds for memory to come back (default: 5).
        verbose: whether each step is printed.

    Returns:
        What each step did.

    Raises:
        ValueError: where the time is none.
    """
    seconds = _seconds(wait_time, "quick_cleanup()", _QUICK_SECONDS)
    return _clean_up("quick cleanup", "quick", seconds, Teller(verbose))


def comprehensive_cleanup(
    wait_time: float | None = None, verbose: bool = True, *, host_wide: HostWide = None
) -> CleanupResult:
    """Stop what the script has left running, and give back all that can be, compile caches included.

    Args:
        wait_time: the upper bound in seconds for memory to come back (default: 10).
        verbose: whether each step is printed.
        host_wide: what may be reached beyond the script's own, as `--gpu-host-wide` takes it: `tensorboard`, `ros2`,
            `port:N`, `script:NAME`, `drop-caches`, `gpu-reset`.

    Returns:
        What each step did.

    Raises:
        ValueError: where an argument does not parse; nothing is done then.
    """
    selectors = read_host_wide(host_wide, "comprehensive_cleanup()")
    seconds = _seconds(wait_time, "comprehensive_cleanup()", _COMPREHENSIVE_SECONDS)
    return _clean_up("comprehensive cleanup", "comprehensive", seconds, Teller(verbose), selectors)


def cleanup_between_runs(
    run_index: int,
    total_runs: int,
    comprehensive: bool = True,
    wait_time: float | None = None,
    verbose: bool = True,
    *,
    host_wide: HostWide = None,
) -> CleanupResult:
    """Clean up after one of many runs; after the last one nothing is done.

    Args:
        run_index: of the run that has just ended, from 0.
        total_runs: how many there are.
        comprehensive: whether the cleanup is comprehensive, or quick.
        wait_time: the upper bound in seconds for memory to come back (default: 10 to 30 by the number of runs, 5 to
            15 for a quick one). It ends as soon as the memory is back.
        verbose: whether each step is printed.
        host_wide: as for `comprehensive_cleanup`, which it takes.

    Returns:
        What each step did.

    Raises:
        ValueError: where an argument does not parse; nothing is done then.
    """
    source = "cleanup_between_runs()"
    run_index, total_runs = _count(run_index, f"{source}: run_index"), _count(total_runs, f"{source}: total_runs")
    selectors = read_host_wide(host_wide, source)
    if selectors and not comprehensive:
        raise InputError(f"{source}: host_wide takes comprehensive=True")
    seconds = _seconds(wait_time, source, bound_for(total_runs, comprehensive=comprehensive))
    level: Level = "comprehensive" if comprehensive else "quick"
    if run_index >= total_runs - 1:
        return CleanupResult(
            level=level, steps=(StepResult(name="cleanup", status="skipped", detail="this was the last run"),)
        )
    title = f"{level} cleanup after run {run_index + 1} of {total_runs}"
    return _clean_up(title, level, seconds, Teller(verbose), selectors)


def cleanup_training_resources(
    wait_time: float | None = None, verbose: bool = True, *, host_wide: HostWide = None
) -> CleanupResult:
    """Clean up after a training: the TensorBoards that the script has started, and all memory that can be given back.

    Inside of `watch()` every process goes that was started there.

    Args:
        wait_time: the upper bound in seconds for memory to come back (default: 10).
        verbose: whether each step is printed.
        host_wide: as for `comprehensive_cleanup`; True stands for `tensorboard`.

    Returns:
        What each step did.

    Raises:
        ValueError: where an argument does not parse; nothing is done then.
    """
    source = "cleanup_training_resources()"
    selectors = read_host_wide(host_wide, source, true_means="tensorboard")
    seconds = _seconds(wait_time, source, _COMPREHENSIVE_SECONDS)
    return _clean_up("cleanup after training", "comprehensive", seconds, Teller(verbose), selectors, of_training=True)


def _clean_up(
    title: str,
    level: Level,
    wait_seconds: float,
    tell: Teller,
    selectors: Iterable[Selector] = (),
    *,
    of_training: bool = False,
) -> CleanupResult:
    here = session()
    selectors = tuple(selectors)
    stopping = _process_steps(here, of_training=of_training)
    steps: list[Cleaner] = [
        *map(CallableCleaner, here.take_callables()),
        *stopping,
        *named_steps(here, selectors, tell),
        *here.cleaners,
        SettleStep(here, wait_seconds, stopping),
        *here.system.named([selector.kind for selector in selectors]),
    ]
    result = here.clean(steps, level, ends_run=True)
    tell.result(title, result, _hints(here, result, selectors, of_training=of_training))
    return result


def _process_steps(here: Session, *, of_training: bool) -> list[OwnStep]:
    own = here.own()
    if here.is_watched:
        return [OwnStep("processes", own)]
    if of_training:
        return [OwnStep("TensorBoard", own, is_board)]
    return [OwnStep("ROS 2", own, is_robot), OwnStep("Python scripts", own, is_script)]


def named_steps(here: Session, selectors: Iterable[Selector], tell: Teller) -> list[Cleaner]:
    """Give the step that stops what the user has named; none where no process is.

    Args:
        here: this script.
        selectors: what is named.
        tell: is told each process before it is signalled.
    """
    processes = [selector for selector in selectors if selector.means_processes]
    own = here.own()
    return [NamedStep(processes, own.run.claim if own else None, lambda line: tell(f"  {line}"))] if processes else []


def _hints(here: Session, result: CleanupResult, selectors: tuple[Selector, ...], *, of_training: bool) -> list[str]:
    """Say once a script what is not done unless it is asked for."""
    hints = []
    if not here.is_watched:
        hints.append(_UNWATCHED.format(kinds="TensorBoards" if of_training else "ROS 2 and Python scripts"))
    if not selectors and result.level == "comprehensive":
        hints.append(_NOTHING_NAMED)
    new = [hint for hint in hints if hint not in here.hints_told]
    here.hints_told.update(new)
    return new


def _seconds(value: float | None, source: str, default: float) -> float:
    return default if value is None else parse_seconds(value, f"{source}: wait_time")


def _count(value: object, source: str) -> int:
    # NumPy's and pandas' numbers too: a loop over a data frame hands them in.
    try:
        return parse_count(value.__index__() if hasattr(value, "__index__") else value, source)
    except TypeError:
        return parse_count(None, source)
