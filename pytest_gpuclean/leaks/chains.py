"""A chain as a person reads it: where it begins, the expression to type, and the types where no code leads further."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, raw
from pytest_gpuclean.leaks.links import Link, link_at
from pytest_gpuclean.leaks.roots import Roots, Start

_MOST_LINKS = 12
_KEPT_FIRST = 5
_KEPT_LAST = 4


class Chain(NamedTuple):
    """A way from a root to a leaked object, in words."""

    kind: str
    text: str
    detail: str
    is_users: bool
    trunk: str
    """What it has in common with chains to the same root."""


def describe(path: Sequence[Any], roots: Roots, suffix: str) -> Chain:
    """Write a path down.

    Args:
        path: a root, then objects each of which refers to the next one, to a leaked one.
        roots: what knows how the first one is called.
        suffix: what follows the last one.
    """
    start = roots.start(path)
    return _written(path, start, suffix)


def describe_without_root(path: Sequence[Any], start: Start, suffix: str) -> Chain:
    """Write down a path that begins with something nobody has a name for."""
    return _written(path, start, suffix)


def _written(path: Sequence[Any], start: Start, suffix: str) -> Chain:
    text = _Text(start)
    links = list(_links(path, start.width))
    hidden = len(links) - _KEPT_FIRST - _KEPT_LAST if len(links) > _MOST_LINKS else 0
    for number, (at, link) in enumerate(links):
        if hidden and number == _KEPT_FIRST:
            text.leave_out(hidden)
        if hidden and _KEPT_FIRST <= number < _KEPT_FIRST + hidden:
            continue
        after = at + link.width
        text.add(link, path[at], "" if after >= len(path) - 1 else raw.type_name(type(path[after])))
    kind, detail = _kind(start, [link for _, link in links])
    first = links[0][1].typed if links and links[0][1].typed.startswith(".") else ""
    return Chain(kind, f"{text}{suffix}", detail, start.is_users, f"{start.text}{start.words}{start.head}{first}")


def _links(path: Sequence[Any], at: int) -> list[tuple[int, Link]]:
    found: list[tuple[int, Link]] = []
    while at < len(path) - 1:
        link = link_at(path, at)
        found.append((at, link))
        at += link.width
    return found


def _kind(start: Start, links: list[Link]) -> tuple[str, str]:
    special = next((link for link in links if link.kind not in causes.GENERIC), None)
    if start.kind not in causes.GENERIC:
        return start.kind, start.detail or next((link.detail for link in links if link.detail), "")
    if special is not None:
        return special.kind, special.detail
    if start.kind == causes.MODULE_GLOBAL and links and links[0].kind == causes.INSTANCE_ATTRIBUTE:
        return causes.INSTANCE_ATTRIBUTE, start.detail
    return start.kind, start.detail


class _Text:
    """A chain that is being written."""

    def __init__(self, start: Start) -> None:
        self._parts: list[tuple[str, str]] = [(start.words, start.head or start.text)]

    def leave_out(self, count: int) -> None:
        self._parts += [(f"... {count:,} more ...", ""), ("", "")]

    def add(self, link: Link, owner: Any, next_type: str) -> None:
        words, expression = self._parts[-1]
        if link.words:
            if self._parts == [("", link.subject)]:
                self._parts.clear()
            self._parts.append((link.words, link.head))
        elif link.typed and words and not expression:
            head = link.typed.removeprefix(".") if link.typed.startswith(".") else f"value{link.typed}"
            self._parts[-1] = (words, head)
        elif link.typed and not words and not expression:
            self._parts[-1] = ("", f"{raw.type_name(type(owner))}{link.typed}")
        elif link.typed:
            self._parts[-1] = (words, f"{expression}{link.typed}")
        elif next_type:
            self._parts.append(("", next_type))

    def __str__(self) -> str:
        return " -> ".join(": ".join(filter(None, part)) for part in self._parts if any(part))
