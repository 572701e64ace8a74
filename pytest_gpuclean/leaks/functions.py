"""What a function holds beside its code, and how a function is called from outside."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, raw

_WRAPPERS = (staticmethod, classmethod)


class Variable(NamedTuple):
    """A variable that belongs to a function and not to a call of it."""

    kind: str
    variable: str
    width: int
    """How many steps of the path it takes."""


def name_of(function: types.FunctionType) -> str:
    """Name a function with its module: `test_model.make.<locals>.hook`."""
    module, name = raw.text_of(function.__module__), raw.text_of(function.__qualname__)
    return f"{module}.{name}" if module else name


def callable_name(value: Any) -> str:
    """Name what somebody has passed as a callback."""
    kind = type(value)
    if kind is types.FunctionType:
        return name_of(value)
    if kind is types.MethodType:
        return callable_name(value.__func__)
    if kind is types.BuiltinFunctionType:
        return raw.text_of(value.__qualname__)
    if kind is functools.partial:
        return callable_name(value.func)
    return raw.type_name(value if raw.is_class(value) else kind)


def name_of_cache(wrapper: Any) -> str:
    """Name the function that functools.cache or lru_cache stands around."""
    wrapped = raw.attribute(wrapper, "__wrapped__")
    return name_of(wrapped) if type(wrapped) is types.FunctionType else raw.type_name(type(wrapped))


def variable_behind(path: Sequence[Any], at: int) -> Variable | None:
    """Find which variable of the function `path[at]` leads on along a path; None where it is something else."""
    function, value = path[at], path[at + 1]
    following = path[at + 2] if at + 2 < len(path) else raw.MISSING
    code = function.__code__
    if value is function.__closure__ and type(following) is types.CellType:
        index = raw.position_of(iter(value), following)
        name = raw.text_of(code.co_freevars[index]) if index is not None and index < len(code.co_freevars) else ""
        return Variable(causes.CLOSURE, name, 3 if at + 3 < len(path) else 2)
    if value is function.__defaults__ and following is not raw.MISSING:
        index = raw.position_of(iter(value), following)
        names = code.co_varnames[: code.co_argcount][-len(value) :]
        name = raw.text_of(names[index]) if index is not None and index < len(names) else ""
        return Variable(causes.DEFAULT_ARGUMENT, name, 2)
    if value is function.__kwdefaults__ and following is not raw.MISSING:
        return Variable(causes.DEFAULT_ARGUMENT, raw.text_of(raw.key_of(value, following)), 2)
    if following is not raw.MISSING and type(value) is dict:
        key = raw.key_of(value, following)
        if type(key) is str and value is raw.instance_dict(function):
            return Variable(causes.FUNCTION_ATTRIBUTE, raw.name_text(key), 2)
    return None


def is_named_by_its_module(value: Any) -> bool:
    """Tell whether a function, one with a cache around it, or a class is found in its module under its own name."""
    if raw.is_class(value):
        return _found_in(raw.module_of(value), raw.qualname_of(value)) is value
    inner = value if type(value) is types.FunctionType else raw.attribute(value, "__wrapped__")
    if type(inner) is not types.FunctionType:
        return False
    found = _found_in(raw.text_of(inner.__module__), raw.text_of(inner.__qualname__, 1000))
    if any(type(found) is wrapper for wrapper in _WRAPPERS):
        found = raw.attribute(found, "__func__")
    return found is value


def _found_in(module: str, qualname: str) -> Any:
    namespace = raw.module_dict(sys.modules.get(module))
    if namespace is None:
        return raw.MISSING
    first, *rest = qualname.split(".")
    found = raw.find(namespace, first)
    for name in rest:
        if not raw.is_class(found):
            return raw.MISSING
        found = raw.find(raw.namespace_of(found), name)
    return found
