"""The file of `--gpu-leak-baseline`: one known leak a line, in a stable order, so that it reads well in a diff."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.leaks.baseline import Known
from pytest_gpuclean.reports.json import check_version, parse_json
from pytest_gpuclean.reports.shape import plain, read

FORMAT = "pytest-gpuclean baseline"
VERSION = 1
MOST_BYTES = 64 * 2**20
_FIELDS = {"format", "version", "leaks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    leaks: tuple[Known, ...]


def baseline_text(known: Iterable[Known]) -> str:
    """Write known leaks down."""
    lines = [json.dumps(plain(one), ensure_ascii=False) for one in sorted(known)]
    head = f'{{"format": {json.dumps(FORMAT)}, "version": {VERSION},\n"leaks": ['
    return f"{head}{''.join(f'{chr(10)}{line},' for line in lines).rstrip(',')}\n]}}\n"


def parse_baseline(text: str, source: str) -> tuple[Known, ...]:
    """Read what `baseline_text` wrote and people may have edited.

    Args:
        text: what the file holds.
        source: what names it, for the error.

    Raises:
        InputError: where it is no list of known leaks, with the place; also for fields that are not known, as a
            word with a mistake in it would be.
    """
    found = parse_json(text, source)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f'{source}: this is no baseline of pytest-gpuclean: there is no "format": "{FORMAT}"')
    check_version(found.get("version"), VERSION, source)
    _refuse_unknown(found, _FIELDS, source)
    known = read(_File, found, source).leaks
    owners = set()
    for number, (one, wire) in enumerate(zip(known, found["leaks"], strict=True)):
        where = f"{source}.leaks[{number}]"
        _refuse_unknown(wire, Known.__dataclass_fields__.keys(), where)
        if one.leaked_bytes < 0:
            raise InputError(f"{where}.leaked_bytes: {one.leaked_bytes} is less than nothing")
        if bool(one.fixture) != (one.kind == "fixture"):
            raise InputError(f"{where}: a fixture has its name in `fixture`, and nothing else has")
        if one.owner in owners:
            raise InputError(f"{where}: {one} ({one.source}) is there twice")
        owners.add(one.owner)
    return known


def _refuse_unknown(found: dict[str, object], known: Iterable[str], where: str) -> None:
    wrong = sorted(set(found) - set(known))
    if wrong:
        raise InputError(f"{where}: {wrong[0]!r} is not known here; there are {', '.join(sorted(known))}")
