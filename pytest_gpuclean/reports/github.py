"""Annotations of GitHub Actions: a line of output that becomes a note beside the line of the test that leaked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.reports.digest import held_by
from pytest_gpuclean.reports.terminal import leak_headline
from pytest_gpuclean.units import format_size

MOST_SHOWN = 10
"""GitHub shows that many of a step and of a kind, and drops the others."""
_LONGEST = 1000


class Annotation(NamedTuple):
    """A leak, and where its test is."""

    kind: Literal["error", "warning"]
    file: str
    """An absolute path."""
    line: int
    """From 1 on; 0 where it is not known."""
    test: str
    leak: Leak


def annotation_lines(annotations: Sequence[Annotation], workspace: str) -> Iterator[str]:
    """Write the commands that GitHub reads in the output of a step, the largest leaks first.

    Args:
        annotations: whose texts are foreign: nothing in them becomes a command, or another parameter of one.
        workspace: where the repository lies; the empty text where that is not known.
    """
    for kind in ("error", "warning"):
        found = sorted((a for a in annotations if a.kind == kind), key=lambda a: -a.leak.leaked_bytes)
        for annotation in found[:MOST_SHOWN]:
            yield _line(annotation, workspace)
        rest = found[MOST_SHOWN:]
        if rest:
            size = format_size(sum(a.leak.leaked_bytes for a in rest))
            yield f"and {len(rest)} more {kind}s, {size}: GitHub shows {MOST_SHOWN}"


def escape_data(text: str) -> str:
    """Write a text so that it ends no command: GitHub reads `%0A` as the end of a line."""
    plain = "".join(letter if letter.isprintable() or letter in "\r\n" else " " for letter in text[:_LONGEST])
    return plain.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Write a text so that it ends no parameter of a command either."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _line(annotation: Annotation, workspace: str) -> str:
    file = annotation.file
    if workspace:  # GitHub looks for it from there
        file = file.removeprefix(workspace.rstrip(os.sep) + os.sep).replace(os.sep, "/")
    title = leak_headline(annotation.leak).removeprefix("gpuclean: ")
    holder = held_by(annotation.leak)
    text = "\n".join(filter(None, (annotation.test, holder and f"held by {holder}", annotation.leak.note)))
    where = f"file={escape_property(file)},line={max(1, annotation.line)}"
    return f"::{annotation.kind} {where},title={escape_property(f'gpuclean: {title}')}::{escape_data(text)}"
