"""Sizes, seconds and dates as people write them; text that is safe to print.

Every parser is pure, reads the whole text, and names the source of a value that it refuses.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re

from pytest_gpuclean.errors import InputError

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

_FACTORS = {
    "b": 1,
    "kb": 10**3,
    "kib": KiB,
    "mb": 10**6,
    "mib": MiB,
    "gb": 10**9,
    "gib": GiB,
    "tb": 10**12,
    "tib": 1024 * GiB,
}
_SIZE = r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?"


def parse_size(value: object, source: str) -> int:
    """Read a size in bytes.

    Args:
        value: a text such as `64MiB`, `1.5GB` or `4096`, or a whole number of bytes.
        source: where the value came from, named in the error.

    Raises:
        InputError: where the value is no size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(_SIZE, value.strip(), re.IGNORECASE | re.ASCII) if isinstance(value, str) else None
    unit = (match[2] or "b").lower() if match else ""
    if match is None or unit not in _FACTORS:
        raise InputError(
            f"{source}: {value!r} is no size; write a number with B, KB, KiB, MB, MiB, GB or GiB, such as 64MiB"
        )
    return int(float(match[1]) * _FACTORS[unit]) if "." in match[1] else int(match[1]) * _FACTORS[unit]


def format_size(size_bytes: int) -> str:
    """Write a number of bytes for people: `64.0 MiB`, `-3.2 KiB`, `512 B`."""
    magnitude = abs(size_bytes)
    for factor, unit in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if magnitude >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def parse_seconds(value: object, source: str) -> float:
    """Read a length of time in seconds, such as `10`, `0.5` or `2s`.

    Raises:
        InputError: where the value is no finite number of seconds from 0 upwards.
    """
    seconds = -1.0
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            seconds = float(value.strip().removesuffix("s") if isinstance(value, str) else value)
    if not math.isfinite(seconds) or seconds < 0:
        raise InputError(f"{source}: {value!r} is no time; write seconds from 0 upwards, such as 10")
    return seconds


def format_seconds(seconds: float) -> str:
    """Write a length of time for people: `1.24 s`, `18 ms`, `0.4 ms`."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def parse_count(value: object, source: str) -> int:
    """Read a whole number from 0 upwards.

    Raises:
        InputError: where the value is none.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    raise InputError(f"{source}: {value!r} is no count; write a whole number from 0 upwards")


def parse_choice(value: object, choices: tuple[str, ...], source: str) -> str:
    """Read one of a few words.

    Raises:
        InputError: where the value is not one of them.
    """
    if isinstance(value, str) and value.strip() in choices:
        return value.strip()
    raise InputError(f"{source}: {value!r} is not one of {', '.join(choices)}")


def parse_path(value: object, source: str) -> str:
    """Read the path of a file.

    Raises:
        InputError: where there is none.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise InputError(f"{source}: {value!r} is no file")


def parse_date(value: object, source: str) -> dt.date:
    """Read a day: a text such as `2027-01-31`, or a `datetime.date`.

    Raises:
        InputError: where the value is no day of the calendar.
    """
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.strip(), re.ASCII):
        try:
            return dt.date.fromisoformat(value.strip())
        except ValueError:
            pass
    raise InputError(f"{source}: {value!r} is no date; write year-month-day, such as 2027-01-31")


def shorten(text: str, longest: int) -> str:
    """Cut a text off, and write characters that are not printable by their numbers: a terminal would obey them."""
    cut = text[: longest + 1]  # a command line may be megabytes long
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)
    return plain if len(plain) <= longest else plain[: longest - 3] + "..."
