"""The ini list `gpu_leak_allow`: patterns of tests or holders whose leaks are allowed, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.model.leaks import Leak


@dataclass(frozen=True, slots=True)
class Allowed:
    """One line of the list."""

    pattern: str
    """`*` stands for any text and `?` for any letter; brackets are what they are: parameters of tests have them."""
    reason: str

    def matches(self, text: str) -> bool:
        """Whether the whole of a text is what the pattern says."""
        return _expression(self.pattern).fullmatch(text) is not None

    def covers(self, leak: Leak, test: str) -> bool:
        """Whether a leak is allowed by this line.

        By its holders only where no other holder keeps more of it than may pass.

        Args:
            leak: what leaked.
            test: the test at which it is told.
        """
        if self.matches(test) or self.matches(leak.name):
            return True
        found = leak.explanation
        if found is None or leak.leaked_bytes - found.explained_bytes > leak.threshold_bytes:
            return False
        other = [h for h in found.holders if not (self.matches(h.chain) or self.matches(h.cause))]
        return len(other) < len(found.holders) and sum(h.held_bytes for h in other) <= leak.threshold_bytes


def parse_allowances(value: object, source: str) -> tuple[Allowed, ...]:
    """Read the list.

    Args:
        value: its lines: `pattern  reason`, with two spaces or a tab between where the pattern has spaces.
        source: where they came from, named in the error.

    Raises:
        InputError: where a line has no reason.
    """
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list):
        raise InputError(f"{source}: {value!r} is no list of lines: pattern  reason")
    return tuple(_parse(str(line).strip(), source) for line in lines if str(line).strip() not in ("", "#"))


def allowance_of(allowances: Iterable[Allowed], leak: Leak, test: str) -> Allowed | None:
    """Find the first line that allows a leak."""
    return next((allowed for allowed in allowances if allowed.covers(leak, test)), None)


def _parse(line: str, source: str) -> Allowed:
    parts = re.split(r"\s{2,}|\t", line, maxsplit=1)
    if len(parts) < 2:
        parts = line.split(maxsplit=1)
    if len(parts) < 2:
        raise InputError(f"{source}: {line!r} has no reason; write: {line}  why it is allowed")
    return Allowed(parts[0], parts[1].strip())


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
