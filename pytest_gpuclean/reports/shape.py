"""Between frozen dataclasses and plain data: written without what is at its default, read with every type checked."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pytest_gpuclean.errors import InputError

_T = TypeVar("_T")
_MOST = 2**63
"""No figure is beyond it; a number of a thousand digits in a file is no figure."""


def plain(value: Any) -> Any:
    """Write a value as plain data; fields of a dataclass that are at their default are left out."""
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        return {
            field.name: plain(got) for field in _fields(kind) if (got := getattr(value, field.name)) != _default(field)
        }
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, collections.abc.Mapping):
        return {key: plain(part) for key, part in value.items()}
    return value


def read(kind: type[_T], value: Any, where: str) -> _T:
    """Read plain data as a dataclass. Fields that it does not know are left out: a later version may have more.

    Args:
        kind: the dataclass.
        value: what was parsed.
        where: what to call it in an error.

    Raises:
        InputError: where something is missing or of another type, naming it.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where}: {_called(value)} where {kind.__name__} belongs, which is an object")
    found: dict[str, Any] = {}
    fields: Any = kind
    hints = hints_of(fields)
    for field in _fields(fields):
        if field.name in value:
            found[field.name] = _read(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif _default(field) is dataclasses.MISSING:
            raise InputError(f"{where}: {field.name} is missing")
    return kind(**found)


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """Say which type each field of a dataclass has."""
    return typing.get_type_hints(kind)


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast("type[Any]", hint), value, where)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _read(inner, value, where)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{where}: {_called(value)} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin in (tuple, collections.abc.Iterable):
        if not isinstance(value, list):
            raise InputError(f"{where}: {_called(value)} where an array belongs")
        return tuple(_read(arguments[0], part, f"{where}[{number}]") for number, part in enumerate(value))
    if origin is collections.abc.Mapping:
        if not isinstance(value, dict):
            raise InputError(f"{where}: {_called(value)} where an object belongs")
        return {str(key): _read(arguments[1], part, f"{where}.{key}") for key, part in value.items()}
    return _read_simple(hint, value, where)


def _read_simple(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) in (int, float) and math.isfinite(value) and abs(value) < _MOST:
        return float(value)
    if type(value) is hint and not (hint is int and abs(value) >= _MOST):
        return value
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise InputError(f"{where}: {_called(value)} where {names[hint]} belongs")


def _called(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:37]}...")
    return "a number"


@functools.cache
def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
