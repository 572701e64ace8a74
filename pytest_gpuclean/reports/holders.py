"""Text of what a leak is made of, who holds it, and what to do about that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_gpuclean.model.leaks import Content, Explanation, Holder
from pytest_gpuclean.reports.advice import advice_on
from pytest_gpuclean.units import format_size

_MOST_CONTENTS = 2
_MOST_HOLDERS = 3
_MOST_LEFT = 2


def explanation_lines(explanation: Explanation, *, whole: bool = False) -> Iterator[str]:
    """Give the lines of a failure text, without their indentation.

    Args:
        explanation: what was found out.
        whole: whether to tell all of it.
    """
    yield from _first(list(map(_content_line, explanation.contents)), _MOST_CONTENTS, "sorts", whole=whole)
    most = len(explanation.holders) if whole else _MOST_HOLDERS
    told = explanation.holders[:most]
    for holder in told:
        yield _holder_line(holder, explanation)
        if holder.detail:
            yield f"  {holder.detail}"
    if len(explanation.holders) > most:
        yield f"and {len(explanation.holders) - most} more holders (all: -vv)"
    yield from filter(None, (explanation.unexplained, explanation.cut))
    yield from _first([f"left too: {what}" for what in explanation.left], _MOST_LEFT, "things left", whole=whole)
    causes = list(dict.fromkeys(holder.cause for holder in told))
    yield from map(advice_on, causes if whole else causes[:1])


def _first(lines: Sequence[str], most: int, what: str, *, whole: bool) -> Iterator[str]:
    yield from lines if whole else lines[:most]
    if len(lines) > most and not whole:
        yield f"and {len(lines) - most} more {what} (all: -vv)"


def _content_line(content: Content) -> str:
    shape = f" {content.dtype} {list(content.shape)}" if content.dtype else ""
    made = f", made at {content.made_at}" if content.made_at else ""
    count = f"{content.count} x " if content.count > 1 else ""
    return f"{count}{content.type_name}{shape} ({format_size(content.held_bytes)}){made}, still alive"


def _holder_line(holder: Holder, explanation: Explanation) -> str:
    # What holds everything needs no figure of its own.
    is_all = holder.held_bytes >= explanation.explained_bytes
    share = "" if is_all else f"{format_size(holder.held_bytes)} in {holder.count}"
    if not holder.is_known:
        return f"{holder.chain}{f': {share}' if share else ''}"
    return f"held by {holder.chain} ({', '.join(filter(None, (holder.kind, share)))})"
