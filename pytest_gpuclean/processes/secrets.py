"""Secrets in command lines: they are told on terminals, in reports and in ledgers, and have no business there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

HIDDEN = "***"
_SECRET = {"password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "credential", "credentials"}
_SECRET_PAIRS = {("api", "key"), ("access", "key"), ("private", "key"), ("account", "key"), ("auth", "key")}
_NAME = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.-]*)(?P<sign>=)(?P<value>.*)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_IN_ADDRESS = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s/@:]*:)[^\s/@]+(?=@)")
_KNOWN = re.compile(
    r"\b(hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|AKIA)[A-Za-z0-9_-]{12,}"  # by their makers' own prefixes
)


def without_secrets(argv: Iterable[str]) -> tuple[str, ...]:
    """Hide what looks like a secret in a command line: by the name of its option or variable, or by its own shape.

    Args:
        argv: the words.
    """
    return tuple(_hidden(argv))


def _hidden(argv: Iterable[str]) -> Iterator[str]:
    is_value = False
    for word in argv:
        if is_value and not _OPTION.fullmatch(word):
            yield HIDDEN
            is_value = False
            continue
        is_value = _OPTION.fullmatch(word) is not None and _is_secret(word)
        named = _NAME.fullmatch(word)
        if named is not None and _is_secret(named["name"]):
            yield f"{named['name']}={HIDDEN}"
        else:
            yield _KNOWN.sub(rf"\1{HIDDEN}", _IN_ADDRESS.sub(rf"\g<head>{HIDDEN}", word))


def _is_secret(name: str) -> bool:
    parts = [part for part in re.split(r"[-_.]+", name.lower()) if part]
    return not _SECRET.isdisjoint(parts) or any(pair in _SECRET_PAIRS for pair in pairwise(parts))
