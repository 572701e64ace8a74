"""The process functions of the old cleaners. Importing this marks what the script starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import pytest_gpuclean.scripts.mark  # noqa: F401  see there
from pytest_gpuclean.cleanup.interface import Cleaner
from pytest_gpuclean.model.cleanup import CleanupResult
from pytest_gpuclean.processes.host_wide import plan
from pytest_gpuclean.processes.selectors import Selector, parse_selectors
from pytest_gpuclean.scripts.cleanups import named_steps
from pytest_gpuclean.scripts.naming import HostWide, read_host_wide
from pytest_gpuclean.scripts.own import is_robot, is_script
from pytest_gpuclean.scripts.session import session
from pytest_gpuclean.scripts.steps import OwnStep
from pytest_gpuclean.scripts.telling import Teller

_MOST_NAMED = 3


def kill_ros2_processes(verbose: bool = True, *, host_wide: HostWide = None) -> CleanupResult:
    """Stop the ROS 2 launches, nodes, commands and daemons that the script has started, and Gazebo.

    Args:
        verbose: whether each step is printed.
        host_wide: True stops those of others too, of this user.

    Returns:
        What each step did.

    Raises:
        ValueError: where `host_wide` is anything else than True or `ros2`.
    """
    source = "kill_ros2_processes()"
    selectors = read_host_wide(host_wide, source, true_means="ros2", only=("ros2",))
    own = [OwnStep("ROS 2", session().own(), is_robot)]
    return _stop(source, own, selectors, (Selector("ros2"),), Teller(verbose))


def kill_python_experiment_processes(*scripts: str, verbose: bool = True, host_wide: HostWide = None) -> CleanupResult:
    """Stop the Python scripts that the script has started, with what they have started.

    Args:
        *scripts: the file names of those that are meant, such as `bag_test.py`; any by default.
        verbose: whether each step is printed.
        host_wide: True stops those of these names that others have started too, of this user; or their names, such as
            `script:bag_test.py`.

    Returns:
        What each step did.

    Raises:
        ValueError: where a name or `host_wide` does not parse.
    """
    source = "kill_python_experiment_processes()"
    meant = _scripts(scripts, source)
    selectors = read_host_wide(host_wide, source, true_means=",".join(map(str, meant)), only=("script",))
    own = [OwnStep("Python scripts", session().own(), partial(is_script, names=scripts))]
    return _stop(source, own, selectors, meant, Teller(verbose))


def force_kill_processes(*scripts: str, verbose: bool = True, host_wide: HostWide = None) -> CleanupResult:
    """Kill the script's ROS 2 processes and Python scripts without asking them to end first.

    There is hardly any need: the two functions that ask kill, within 10 s, what does not end by it.

    Args:
        *scripts: the file names of the Python scripts that are meant; any by default.
        verbose: whether each step is printed.
        host_wide: True stands for `ros2` and these scripts; or names, such as `ros2,script:bag_test.py`.

    Returns:
        What each step did.

    Raises:
        ValueError: where a name or `host_wide` does not parse.
    """
    source = "force_kill_processes()"
    meant = (Selector("ros2"), *_scripts(scripts, source))
    selectors = read_host_wide(host_wide, source, true_means=",".join(map(str, meant)), only=("ros2", "script"))
    own = session().own()
    steps = [
        OwnStep("ROS 2", own, is_robot, at_once=True),
        OwnStep("Python scripts", own, partial(is_script, names=scripts), at_once=True),
    ]
    return _stop(source, steps, selectors, meant, Teller(verbose))


def _stop(
    title: str, own: Iterable[Cleaner], selectors: Sequence[Selector], meant: Iterable[Selector], tell: Teller
) -> CleanupResult:
    here = session()
    steps = [*own, *named_steps(here, selectors, tell)]
    result = here.clean(steps, "quick")
    tell.result(title, result, [] if selectors or not tell.verbose else _left_alone(meant))
    return result


def _left_alone(meant: Iterable[Selector]) -> list[str]:
    """Say what of the same kind the script has not started: it is left alone."""
    own = session().own()
    others = plan(meant, own.run.claim if own is not None else None).to_stop
    if not others:
        return []
    names = ", ".join(f"{other.name} (pid {other.key.pid})" for other in others[:_MOST_NAMED])
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return [f"left alone, as this script has not started it: {names}{more}; host_wide=True would stop it"]


def _scripts(names: Iterable[object], source: str) -> tuple[Selector, ...]:
    found = [f"script:{name}" if isinstance(name, str) else name for name in names]
    return parse_selectors(found, source) if found else ()
