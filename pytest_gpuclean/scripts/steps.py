"""The steps of a script's cleanup that are more than giving memory back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pytest_gpuclean.cleanup.garbage import collect_young
from pytest_gpuclean.cleanup.interface import Cleaner, Occasion, RefusedError, Skip
from pytest_gpuclean.cleanup.settle import NewThreads, wait_until
from pytest_gpuclean.cleanup.system import CACHE_CLEANERS
from pytest_gpuclean.memory.gauge import held
from pytest_gpuclean.model.memory import HEAP, Bytes
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.host_wide import carry_out, plan
from pytest_gpuclean.processes.ownership import Claim
from pytest_gpuclean.processes.selectors import Selector
from pytest_gpuclean.reports.processes import describe_left
from pytest_gpuclean.scripts.own import SETTLE_SECONDS, Fits, OwnProcesses
from pytest_gpuclean.scripts.session import Session
from pytest_gpuclean.units import MiB, format_size

_MOST_NAMED = 3
_NOTHING_LEFT = "none of this script's is left"
_OTHER_FLOW = "another thread or task is inside of a watch() too: whose they are cannot be told"


class OwnStep:
    """The processes that the script has started and that still run.

    Args:
        name: what they are called.
        own: where they are known; None where they cannot be told from those of others.
        fits: tells which are meant; all by default.
        at_once: whether to kill them without asking them to end first.
    """

    def __init__(self, name: str, own: OwnProcesses | None, fits: Fits | None = None, *, at_once: bool = False) -> None:
        self.name = name
        self.left: list[LeftProcess] = []
        self._own = own
        self._fits = fits
        self._at_once = at_once

    def clean(self, occasion: Occasion) -> str | Skip:  # noqa: ARG002
        """Stop them.

        Raises:
            RefusedError: where one of them is still there.
        """
        if self._own is None:
            return Skip(_OTHER_FLOW)
        self.left = self._own.stop_kind(self._fits, at_once=self._at_once) if self._fits else self._own.stop_all()
        return told(self.left) or Skip(_NOTHING_LEFT)

    def settle(self, limit_seconds: float) -> list[str]:
        """Wait until the GPU memory of what was stopped is back, and say what is not."""
        return self._own.settle(self.left, limit_seconds) if self._own is not None and self.left else []


class NamedStep:
    """The processes that the user has named, whoever has started them.

    Args:
        selectors: what is named.
        own: of this script: what is its own is none of this step's business.
        tell: is handed each line of the plan before anything is signalled.
    """

    name = "host-wide"

    def __init__(self, selectors: Iterable[Selector], own: Claim | None, tell: Callable[[str], None]) -> None:
        self.left: list[LeftProcess] = []
        self._selectors = tuple(selectors)
        self._own = own
        self._tell = tell

    def clean(self, occasion: Occasion) -> str | Skip:  # noqa: ARG002
        """Stop them.

        Raises:
            RefusedError: where one of them is still there.
        """
        planned = plan(self._selectors, self._own)
        self.left = carry_out(planned, self._own, tell=self._tell, settle_seconds=SETTLE_SECONDS)
        return told(self.left) or Skip(f"nothing runs that is {', '.join(map(str, self._selectors))}")


class RefusedStep:
    """Something that reaches beyond the script's own, and that nobody has named."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self._reason = reason

    def clean(self, occasion: Occasion) -> str | Skip:  # noqa: ARG002
        """Say so.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(self._reason)


class SettleStep:
    """A wait for memory of the last run's processes, and what its threads still hold. It ends as soon as it is back.

    Args:
        session: knows what was in use when the run began, and which threads there were.
        limit_seconds: the upper bound of each of the two.
        stopped: the steps by which processes were stopped.
    """

    name = "wait"

    def __init__(self, session: Session, limit_seconds: float, stopped: Iterable[OwnStep] = ()) -> None:
        self._session = session
        self._limit_seconds = limit_seconds
        self._stopped = tuple(stopped)

    def clean(self, occasion: Occasion) -> str | Skip:
        """Wait, where there is a reason to."""
        late = [line for step in self._stopped for line in step.settle(self._limit_seconds)]
        said = self._wait_for_threads(occasion)
        return "; ".join([*late, *([said] if isinstance(said, str) else [])]) if late else said

    def _wait_for_threads(self, occasion: Occasion) -> str | Skip:
        if self._is_back():
            return Skip("the memory is back")
        new = NewThreads(self._session.threads)
        if not new.are_alive():
            return Skip("no thread is left that could still give something back")
        limit_seconds = self._session.patience_for(self._limit_seconds)
        if limit_seconds <= 0:
            return Skip("no time is given for it")
        wait_until(self._is_back, limit_seconds, new.are_alive)
        # What came back has fallen into the frameworks' caches, some of which count as in use.
        for cleaner in cache_steps():
            cleaner.clean(occasion)
        missing = self._missing()
        self._session.learn(limit_seconds, helped=not missing)
        if not missing:
            return "the memory is back"
        alive = f"; still running: {', '.join(new.names[:_MOST_NAMED])}" if new.are_alive() else ""
        return f"{_said(missing)} more in use than before the run{alive}"

    def _is_back(self) -> bool:
        if not self._missing():
            return True
        collect_young()
        return not self._missing()

    def _missing(self) -> Bytes:
        """What is in use beyond what the run began with."""
        base = self._session.base
        found = {}
        for account, size in held(self._session.gauge.read()).items():
            if account == HEAP and account not in base:
                continue  # the heap is full of what is no tensor: without a base it tells nothing
            more = size - base.get(account, 0)
            # The heap moves by itself, with imports and logs.
            if more > (MiB if account == HEAP else 0):
                found[account] = more
        return found


def told(left: Sequence[LeftProcess]) -> str:
    """Say what became of processes; empty where there were none.

    Raises:
        RefusedError: where one of them should have gone and is still there.
    """
    text = "; ".join(describe_left(process) for process in left)
    if any(process.is_unkillable for process in left):
        raise RefusedError(text)
    return text


def cache_steps() -> list[Cleaner]:
    """Give the steps that clear the frameworks' caches on a device."""
    return [cleaner() for cleaner in CACHE_CLEANERS]


def _said(missing: Bytes) -> str:
    sums: dict[str, int] = {}
    for account, size in missing.items():
        sums[account.device] = sums.get(account.device, 0) + size
    return ", ".join(f"{device} {format_size(size)}" for device, size in sums.items())


def bound_for(total_runs: int, *, comprehensive: bool) -> float:
    """Give the upper bound of a wait between runs: the more runs there are, the more one late one may spoil.

    Args:
        total_runs: how many there are.
        comprehensive: whether the cleanup is.
    """
    least, most, runs_a_second = (10.0, 30.0, 10) if comprehensive else (5.0, 15.0, 20)
    return min(most, max(least, total_runs / runs_a_second))
