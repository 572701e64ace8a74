"""A chain as a person reads it: where it begins, the expression to type, and the types where no code leads further."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, raw
from pytest_gpuclean.leaks.landmarks import Start
from pytest_gpuclean.leaks.links import Link, link_at

_MOST_LINKS = 12
_KEPT_FIRST = 5
_KEPT_LAST = 4
_WHOLE = frozenset({causes.MOCK, causes.TORCH_MODULE, causes.FORWARD_HOOK, causes.BACKWARD_HOOK, causes.OPTIMIZER})
"""Things that are one holder with all of their attributes."""


class Chain(NamedTuple):
    """A way from a root to a leaked object, in words."""

    kind: str
    text: str
    detail: str
    is_users: bool
    trunk: str
    """What it has in common with other chains that are one holder to a person: up to the first container."""
    root: str
    """Where it begins."""
    anchor: int
    """Which object of the path the trunk stands for."""


def describe(path: Sequence[Any], start: Start, suffix: str) -> Chain:
    """Write a path down.

    Args:
        path: objects each of which refers to the next one, to a leaked one.
        start: how it begins.
        suffix: what follows the last one.
    """
    text = _Text(start)
    links = list(islice(_links(path, start.width), _MOST_LINKS))
    shown = links
    end = links[-1][0] + links[-1][1].width if links else len(path) - 1
    if end < len(path) - 1:
        tail = _tail(path, links[_KEPT_FIRST][0])
        shown, last = links[:_KEPT_FIRST], list(_links(path, tail))
        _add(text, shown, path)
        text.leave_out(_count_links(path, links[_KEPT_FIRST][0], tail))
        shown, links = last, links[:_KEPT_FIRST] + last
    _add(text, shown, path)
    kind, detail = _kind(start, [link for _, link in links], suffix)
    trunk = root = start.group or f"{start.words}{start.text}{start.head}"
    anchor = start.width
    if links and links[0][1].typed.startswith(".") and not start.group and links[0][1].kind not in _WHOLE:
        trunk = f"{root}{links[0][1].typed}"
        anchor += links[0][1].width
    return Chain(kind, f"{text}{suffix}", detail, start.is_users, trunk, root, min(anchor, len(path) - 1))


def _links(path: Sequence[Any], at: int) -> Iterator[tuple[int, Link]]:
    while at < len(path) - 1:
        link = link_at(path, at)
        yield at, link
        at += link.width


def _add(text: _Text, links: list[tuple[int, Link]], path: Sequence[Any]) -> None:
    for at, link in links:
        after = at + link.width
        text.add(link, path[at], "" if after >= len(path) - 1 else raw.type_name(type(path[after])))


def _tail(path: Sequence[Any], least: int) -> int:
    """Find where the last few links begin: not between an instance and its `__dict__`."""
    at = len(path) - 1
    for _ in range(_KEPT_LAST):
        at -= 2 if _is_dict_of(path, at - 1) else 1
    return max(at, least)


def _count_links(path: Sequence[Any], begin: int, end: int) -> int:
    return sum(not _is_dict_of(path, at) for at in range(begin, end))


def _is_dict_of(path: Sequence[Any], at: int) -> bool:
    return type(path[at]) is dict and not raw.is_a(type(path[at - 1]), dict, list, tuple)


def is_in_container(path: Sequence[Any]) -> bool:
    """Tell whether a leaked object is an item among others, not an attribute, and not what a root itself holds."""
    at = len(path) - 2
    if at < 2 or _is_dict_of(path, at):
        return False
    return any(type(path[at]) is kind for kind in (dict, list, tuple, set))


def _kind(start: Start, links: list[Link], suffix: str) -> tuple[str, str]:
    """Choose what tells most: the first special thing on the way, where the chain begins, or how."""
    detail = start.detail or next((link.detail for link in links if link.detail), "")
    if suffix.startswith(".grad_fn") and start.kind not in (causes.NO_HOLDER, causes.NOT_FOLLOWED):
        return causes.KEPT_GRAPH, detail
    kinds = [start.kind, *(link.kind for link in links)]
    # A thread that stands in code of a library is a worker: what it works on says more.
    weak = causes.WEAK if start.is_users else causes.WEAK | {causes.THREAD}
    for unremarkable in (causes.GENERIC | weak, causes.GENERIC):
        special = next((kind for kind in kinds if kind not in unremarkable), "")
        if special:
            return special, detail
    if suffix.startswith(".grad"):
        return causes.GRADIENT, detail
    if start.kind == causes.MODULE_GLOBAL and links and links[0].kind == causes.INSTANCE_ATTRIBUTE:
        return causes.INSTANCE_ATTRIBUTE, detail
    return start.kind, detail


class _Text:
    """A chain that is being written: parts of words, an expression, and what stands for the thing itself."""

    def __init__(self, start: Start) -> None:
        self._parts: list[tuple[str, str]] = [(start.words, start.head or start.text)]
        self._lead = start.lead
        self._ends_with_type = False

    def leave_out(self, count: int) -> None:
        self._parts += [(f"... {count:,} more ...", ""), ("", "")]

    def add(self, link: Link, owner: Any, next_type: str) -> None:
        words, expression = self._parts[-1]
        if link.words:
            if self._ends_with_type or self._parts == [("", link.subject)]:
                self._parts.pop()
            self._parts.append((link.words, link.head))
            self._lead = link.lead
        elif link.typed and not expression:
            self._parts[-1] = (words, self._first(link.typed, "" if words else raw.type_name(type(owner))))
        elif link.typed:
            self._parts[-1] = (words, f"{expression}{link.typed}")
        elif next_type:
            self._parts.append(("", next_type))
        self._ends_with_type = not link.words and not link.typed and bool(next_type)

    def _first(self, typed: str, owner: str) -> str:
        lead = owner or self._lead
        if lead:
            return f"{lead}{typed}"
        return typed.removeprefix(".") if typed.startswith(".") else f"value{typed}"

    def __str__(self) -> str:
        return " -> ".join(": ".join(filter(None, part)) for part in self._parts if any(part))
