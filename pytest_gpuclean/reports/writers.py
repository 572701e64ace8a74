"""The formats of `--gpu-report`, by the suffix of the file."""

from __future__ import annotations

import os

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.reports.html import HtmlWriter
from pytest_gpuclean.reports.interface import Writer
from pytest_gpuclean.reports.json import JsonWriter
from pytest_gpuclean.reports.markdown import MarkdownWriter

WRITERS: tuple[Writer, ...] = (JsonWriter(), HtmlWriter(), MarkdownWriter())


def writer_for(path: str, source: str) -> Writer:
    """Choose the format of a file.

    Args:
        path: the file.
        source: what names it, for the error.

    Raises:
        InputError: where its suffix is none that is known.
    """
    suffix = os.path.splitext(path)[1].lower()
    for writer in WRITERS:
        if writer.suffix == suffix:
            return writer
    known = ", ".join(writer.suffix for writer in WRITERS)
    raise InputError(f"{source}: {path!r} ends in none of {known}, which say the format")


def parse_targets(value: object, source: str) -> tuple[str, ...]:
    """Read the files that reports go to.

    Args:
        value: one path, or a list of them.
        source: where it came from, named in the error.

    Raises:
        InputError: where one ends in no known suffix.
    """
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list):
        raise InputError(f"{source}: {value!r} is no file; write a path that ends in .json, .html or .md")
    for path in paths:
        if not isinstance(path, str) or not path.strip():
            raise InputError(f"{source}: {path!r} is no file; write a path that ends in .json, .html or .md")
        writer_for(path, source)
    return tuple(dict.fromkeys(paths))
