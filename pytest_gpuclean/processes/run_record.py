"""What a run's ledger says: lines of JSON, the first about the run, each other one about a process that it had."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pytest_gpuclean.processes.command import shorten_command
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import Claim
from pytest_gpuclean.units import shorten

VERSION = 1
_LONGEST_TEXT = 200
_LONGEST_CGROUP = 4096
_ID = re.compile(r"[0-9a-f]{16}")


class UnreadableLedgerError(ValueError):
    """A ledger that says nothing that could be believed."""


class NewerLedgerError(UnreadableLedgerError):
    """A ledger of a later version of this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process that a run had."""

    key: ProcessKey
    label: str = ""
    started_by: str = ""
    """The test or fixture that started it."""

    def to_line(self) -> bytes:
        """Write it as one line."""
        label, started_by = shorten(self.label, _LONGEST_TEXT), shorten(self.started_by, _LONGEST_TEXT)
        return _line({"seen": list(self.key), "label": label, "started_by": started_by})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run, as it wrote itself down."""

    claim: Claim
    key: ProcessKey
    """The process that the run is."""
    command: str
    started_at: float
    """Seconds since 1970."""
    terminal: int = 0
    """Its controlling terminal; 0 where it has none."""
    cgroup: str = ""
    seen: tuple[Seen, ...] = ()
    kept: frozenset[ProcessKey] = frozenset()
    """What the user has disowned: it goes on, with what is below it."""

    @property
    def id(self) -> str:
        """The last part of its cookie, which is its own."""
        return self.claim.cookie.rpartition("/")[2]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{shorten_command(self.command, 80)} (pid {self.key.pid})"

    def started_by(self, key: ProcessKey) -> str:
        """Say which test of which run started a process."""
        test = next((seen.started_by for seen in self.seen if seen.key == key), "")
        return f"{test}, in {self.name}" if test else self.name

    def to_line(self) -> bytes:
        """Write the first line: all but the processes."""
        return _line(
            {
                "version": VERSION,
                "claim": replace(self.claim, recorded=frozenset()).to_wire(),
                "key": list(self.key),
                "command": self.command,
                "started_at": self.started_at,
                "terminal": self.terminal,
                "cgroup": self.cgroup[:_LONGEST_CGROUP],
            }
        )

    def to_lines(self) -> bytes:
        """Write all of it."""
        return b"".join([self.to_line(), *(seen.to_line() for seen in self.seen), kept_lines(self.kept)])

    @classmethod
    def from_lines(cls, data: bytes) -> RunRecord:
        """Read what `to_lines` wrote. A last line that was cut off when the run was killed is left out.

        Raises:
            NewerLedgerError: where a later version wrote it.
            UnreadableLedgerError: where it is anything else than that.
        """
        # What follows the last end of a line is empty, or the line that was being written.
        lines = data.split(b"\n")[:-1]
        try:
            first, *others = [json.loads(line) for line in lines]
            if type(first["version"]) is int and first["version"] > VERSION:
                raise NewerLedgerError(f"version {first['version']}")
            return _record(first, others)
        except UnreadableLedgerError:
            raise
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UnreadableLedgerError(f"{type(error).__name__}: {shorten(str(error), _LONGEST_TEXT)}") from None


def kept_lines(keys: Iterable[ProcessKey]) -> bytes:
    """Write what the user has disowned, a line each."""
    return b"".join(_line({"kept": list(key)}) for key in keys)


def _record(first: dict[str, Any], others: list[dict[str, Any]]) -> RunRecord:
    if first["version"] != VERSION:
        raise UnreadableLedgerError(f"version {first['version']!r}")
    claim = Claim.from_wire(first["claim"])
    seen = tuple(
        Seen(key=_key(line["seen"]), label=str(line["label"]), started_by=str(line["started_by"]))
        for line in others
        if "seen" in line
    )
    kept = frozenset(_key(line["kept"]) for line in others if "kept" in line)
    claim = replace(claim, recorded=frozenset(each.key for each in seen) - kept)
    _check(claim)
    return RunRecord(
        claim=claim,
        key=_key(first["key"]),
        command=shorten(str(first["command"]), _LONGEST_TEXT),
        started_at=float(first["started_at"]),
        terminal=int(first["terminal"]),
        cgroup=str(first["cgroup"]),
        seen=seen,
        kept=kept,
    )


def _check(claim: Claim) -> None:
    """Refuse a claim that would prove too much: an empty cookie stands in everybody's environment."""
    ledger = claim.ledger
    numbers = [claim.uid, claim.start_ticks, *([ledger.device, ledger.inode, ledger.flags] if ledger else [])]
    if ledger is not None:
        numbers.append(ledger.descriptor)
    texts = [claim.cookie, claim.boot_id, claim.pid_namespace]
    if not all(type(number) is int and number >= 0 for number in numbers) or not all(map(_is_text, texts)):
        raise UnreadableLedgerError("the claim is none")
    if not _ID.fullmatch(claim.cookie.rpartition("/")[2]):
        raise UnreadableLedgerError("the cookie is none")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _key(value: Any) -> ProcessKey:
    pid, start_ticks = value
    if type(pid) is not int or type(start_ticks) is not int or pid < 1 or start_ticks < 0:
        raise UnreadableLedgerError(f"{value!r} is no process")
    return ProcessKey(pid, start_ticks)


def _line(wire: dict[str, Any]) -> bytes:
    return json.dumps(wire, separators=(",", ":")).encode() + b"\n"
