"""The warnings of a test, which pytest keeps until the test is over: what they refer to is let go of before."""

from __future__ import annotations

import sys
import warnings


class _Gone:
    """Stands for the source of a warning: what is told of a source is that there is one."""


def let_go_of_sources() -> None:
    """Let go of the arguments and sources of recorded warnings; what is told of them stays the same."""
    # The only way to what `catch_warnings(record=True)` has recorded so far, which only its caller is given.
    recorded = getattr(getattr(warnings, "_showwarnmsg_impl", None), "__self__", None)
    for record in recorded if isinstance(recorded, list) else ():
        if not isinstance(record, warnings.WarningMessage):
            continue
        if record.source is not None and not _traces():
            record.source = _Gone()
        # One that has a way of its own to say it may need them for that.
        if isinstance(record.message, Warning) and type(record.message).__str__ is Warning.__str__:
            _make_text(record)


def _make_text(record: warnings.WarningMessage) -> None:
    """Make its text of a warning's arguments, unless somebody else has the warning too."""
    nobody_elses = warnings.WarningMessage(Warning(), Warning, "", 0)
    if _references(record) <= _references(nobody_elses):
        record.message.args = (str(record.message),)  # type: ignore[union-attr]


def _references(record: warnings.WarningMessage) -> int:
    return sys.getrefcount(record.message)


def _traces() -> bool:
    """Whether what is told of a source is where it was made."""
    import tracemalloc  # it comes with much, and few tests warn of what they left open

    return tracemalloc.is_tracing()
