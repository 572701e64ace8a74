"""One step of a chain, from an object to what it holds, as Python text that one can type."""

from __future__ import annotations

import _thread
import collections
import contextvars
import functools
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import arrays, causes, frames, functions, raw
from pytest_gpuclean.leaks.instances import attribute_at


class Link(NamedTuple):
    """A step, or several that are one to a person: an instance, its `__dict__`, and the value in it."""

    width: int
    """How many objects of the path it goes over."""
    typed: str = ""
    """What is appended to the expression: `["a"]`, `.weight`."""
    words: str = ""
    """Where no code leads further: `closure of test_model.hook`; a new part of the chain begins."""
    head: str = ""
    """The variable with which the new part goes on."""
    lead: str = ""
    """What stands for the object itself, where no variable is named and it is followed by anything."""
    kind: str = ""
    """What it is, where that tells more than where the chain begins."""
    detail: str = ""
    subject: str = ""
    """The function that the words speak of, as it is called by itself."""


Path = Sequence[Any]
_CellType = types.CellType
_SEQUENCES = (list, tuple, collections.deque)
_SETS = (set, frozenset)


def link_at(path: Path, at: int) -> Link:
    """Describe the step from `path[at]` to what follows it.

    Args:
        path: objects, each of which refers to the next one.
        at: where the step begins; it is not the last.
    """
    kind = type(path[at])
    for wanted, describe in _BY_TYPE:
        if raw.is_a(kind, wanted):
            found = describe(path, at)
            if found is not None:
                return found
    for module, name, describe in _BY_NAME:
        if raw.is_named(kind, module, name):
            found = describe(path, at)
            if found is not None:
                return found
    return _of_instance(path, at)


def _of_dict(path: Path, at: int) -> Link | None:
    mapping, value = path[at], path[at + 1]
    key = raw.key_of(mapping, value)
    if key is not raw.MISSING:
        return Link(1, raw.key_text(key))
    if any(key is value for key, _ in raw.pairs_of(mapping)):
        return Link(1, ".keys()")
    return None


def _of_sequence(path: Path, at: int) -> Link | None:
    sequence, value = path[at], path[at + 1]
    kind = type(sequence)
    base = next(base for base in _SEQUENCES if raw.is_a(kind, base))
    index = raw.position_of(base.__iter__(sequence), value)
    if index is None:
        return None
    field = _field_of(sequence, index) if base is tuple else ""
    return Link(1, f".{field}" if field else f"[{index}]")


def _field_of(value: Any, index: int) -> str:
    """Name the field of a named tuple, or of a call that a mock has kept, which may go without its name."""
    kind = type(value)
    if kind is tuple:
        return ""
    if raw.is_named(kind, "unittest.mock", "_Call"):
        return ("name", "args", "kwargs")[index + 3 - tuple.__len__(value)]
    for base in raw.mro_of(kind):
        fields = raw.find(raw.namespace_of(base), "_fields")
        if type(fields) is tuple and index < len(fields):
            return raw.text_of(fields[index])
    return ""


def _of_set(path: Path, at: int) -> Link | None:
    return Link(1) if any(type(path[at]) is one for one in _SETS) else None


def _of_function(path: Path, at: int) -> Link | None:
    found = functions.variable_behind(path, at)
    if found is None:
        return None
    name = functions.name_of(path[at])
    if found.kind == causes.FUNCTION_ATTRIBUTE:
        return Link(found.width, f".{found.variable}", kind=found.kind)
    return Link(found.width, words=f"{found.kind} of {name}", head=found.variable, kind=found.kind, subject=name)


def _of_cache(path: Path, at: int) -> Link | None:
    """A function with functools.cache or lru_cache: its results, or the arguments that it was called with."""
    wrapper, value = path[at], path[at + 1]
    name = functions.name_of_cache(wrapper)
    if raw.attribute_name(wrapper, value) is not None:
        return None
    words = f"functools.cache of {name}"
    width = 1
    is_argument = type(value) is tuple
    if type(value) is dict and at + 2 < len(path):
        if raw.is_instance_dict(wrapper, value):
            return None
        width = 2
        is_argument = raw.key_of(value, path[at + 2]) is raw.MISSING
    lead = "argument" if is_argument else "result"
    if is_argument and type(path[at + width]) is tuple and at + width + 1 < len(path):
        index = raw.position_of(iter(path[at + width]), path[at + width + 1])
        return Link(width + 1, words=words, head=f"argument {index}", kind=causes.FUNCTOOLS_CACHE, subject=name)
    return Link(width, words=words, head=lead, kind=causes.FUNCTOOLS_CACHE, subject=name)


def _of_suspended(path: Path, at: int) -> Link | None:
    suspended, value = path[at], path[at + 1]
    kind = {types.GeneratorType: causes.GENERATOR, types.CoroutineType: causes.COROUTINE}.get(
        type(suspended), causes.ASYNC_GENERATOR
    )
    frame = frames.frame_of(suspended)
    width = 1
    if type(value) is types.FrameType and at + 2 < len(path):  # 3.10
        width, value = 2, path[at + 2]
    if frame is None:
        return Link(width, words=f"{kind} {frames.code_name(frames.code_of(suspended))}", kind=kind)
    variable, width = _variable(frame, path, at, width)
    name = frames.function_of(frame)
    standing = frames.standing_of(frame)
    return Link(width, words=f"{kind} {name}", head=variable, kind=kind, detail=f"suspended at {standing}")


def _variable(frame: types.FrameType, path: Path, at: int, width: int) -> tuple[str, int]:
    """Name the variable by which a frame leads on, and return how many steps that takes.

    A variable of a closure is in a cell; until 3.12 a frame may have a copy of its variables in a dict.
    """
    variable = frames.variable_of(frame, path[at + width])
    is_between = type(path[at + width]) is _CellType or type(path[at + width]) is dict
    if not variable and is_between and at + width + 1 < len(path):
        variable = frames.variable_of(frame, path[at + width + 1])
        width += bool(variable)
    return variable, width


def _of_frame(path: Path, at: int) -> Link | None:
    frame = path[at]
    if type(path[at + 1]) is types.FrameType:
        return Link(1, ".f_back")
    variable, width = _variable(frame, path, at, 1)
    return Link(width, words=f"frame of {frames.function_of(frame)}", head=variable, detail=frames.standing_of(frame))


def _of_exception(path: Path, at: int) -> Link | None:
    exception = path[at]
    if type(path[at + 1]) is not types.TracebackType:
        for name in _EXCEPTION_FIELDS:
            if BaseException.__dict__[name].__get__(exception) is path[at + 1]:
                return Link(1, f".{name}")
        return None
    link = _of_traceback(path, at + 1)
    assert link is not None
    what = f"traceback of {raw.qualname_of(type(exception))}{link.words.removeprefix('traceback')}"
    return link._replace(width=link.width + 1, words=what)


def _of_traceback(path: Path, at: int) -> Link | None:
    end = at
    line = None
    while end < len(path) and type(path[end]) is types.TracebackType:
        line = path[end].tb_lineno
        end += 1
    if end >= len(path) - 1 or type(path[end]) is not types.FrameType:
        return Link(end - at, words="traceback", kind=causes.EXCEPTION)
    raised_in = path[end]
    callers = 0
    while end + 1 < len(path) - 1 and type(path[end + 1]) is types.FrameType:
        end, callers = end + 1, callers + 1
    frame = path[end]
    inner = _of_frame(path, end)
    assert inner is not None
    standing = frames.standing_of(frame) if callers else frames.place_in(raised_in.f_code, line)
    where = f"caller {frames.function_of(frame)}" if callers else frames.function_of(frame)
    return Link(
        end - at + inner.width,
        words=f"traceback in {where}",
        head=inner.head,
        kind=causes.EXCEPTION,
        detail=standing,
    )


def _of_method(path: Path, at: int) -> Link | None:
    method, value = path[at], path[at + 1]
    typed = ".__self__" if method.__self__ is value else ".__func__"
    return Link(1, typed, kind=causes.BOUND_METHOD)


def _of_builtin(_path: Path, _at: int) -> Link | None:
    """A method of a built-in object, such as `some_list.append`."""
    return Link(1, ".__self__", kind=causes.BOUND_METHOD)


def _of_partial(path: Path, at: int) -> Link | None:
    name = raw.attribute_name(path[at], path[at + 1])
    return Link(1, f".{name}", kind=causes.PARTIAL) if name else None


def _of_cell(_path: Path, _at: int) -> Link | None:
    return Link(1, ".cell_contents")


def _of_reference(_path: Path, _at: int) -> Link | None:
    return Link(1, ".__callback__", kind=causes.WEAKREF_CALLBACK)


def _of_class(path: Path, at: int) -> Link | None:
    holder, value = path[at], path[at + 1]
    if type(value) is dict and at + 2 < len(path):
        key = raw.key_of(value, path[at + 2])
        if type(key) is str and raw.find(raw.namespace_of(holder), key) is path[at + 2]:
            return Link(2, f".{raw.name_text(key)}", kind=causes.CLASS_ATTRIBUTE)
    for key, found in raw.namespace_of(holder).items():
        if found is value:
            return Link(1, f".{raw.name_text(key)}", kind=causes.CLASS_ATTRIBUTE)
    return None


def _of_context(path: Path, at: int) -> Link | None:
    """The variables of a context are in a tree of nodes in C."""
    end = at + 1
    while end < len(path) - 1 and raw.qualname_of(type(path[end])).startswith("hamt"):
        end += 1
    for variable, value in contextvars.Context.items(path[at]):
        if value is path[end]:
            words = f"context variable '{raw.text_of(variable.name)}'"
            return Link(end - at, words=words, lead="value", kind=causes.CONTEXT_VARIABLE)
    return None


def _of_context_variable(_path: Path, _at: int) -> Link | None:
    return Link(1, ".get()", kind=causes.CONTEXT_VARIABLE)  # its default


def _of_token(_path: Path, _at: int) -> Link | None:
    return Link(1, ".old_value", kind=causes.CONTEXT_VARIABLE)


def _of_local(path: Path, at: int) -> Link | None:
    """A thread-local object: in a dict by thread it has the attributes of each."""
    following = path[at + 1 : at + 4]
    if len(following) < 3 or any(type(each) is not dict for each in following[:2]):
        return None
    key = raw.key_of(following[1], following[2])
    return Link(3, f".{raw.name_text(key)}", kind=causes.THREAD_LOCAL) if type(key) is str else None


def _of_queue(path: Path, at: int) -> Link | None:
    """A queue in C, which until 3.12 has its items in a list."""
    return Link(2 if sys.version_info < (3, 13) and at + 2 < len(path) else 1)


def _of_array(path: Path, at: int) -> Link | None:
    index = raw.position_of(iter(arrays.elements_of(path[at], arrays.array_type())), path[at + 1])
    return None if index is None else Link(1, f".flat[{index}]")


def _of_instance(path: Path, at: int) -> Link:
    found = attribute_at(path, at)
    if found.words:
        return Link(found.width, words=found.words, head=found.typed.removeprefix("."), kind=found.kind)
    return Link(found.width, found.typed, kind=found.kind)


_EXCEPTION_FIELDS = ("args", "__cause__", "__context__")
Describe = Callable[[Path, int], "Link | None"]
_BY_TYPE: tuple[tuple[type, Describe], ...] = (
    (dict, _of_dict),
    *((sequence, _of_sequence) for sequence in _SEQUENCES),
    *((one, _of_set) for one in _SETS),
    (types.FunctionType, _of_function),
    (functools._lru_cache_wrapper, _of_cache),
    (types.GeneratorType, _of_suspended),
    (types.CoroutineType, _of_suspended),
    (types.AsyncGeneratorType, _of_suspended),
    (types.FrameType, _of_frame),
    (types.TracebackType, _of_traceback),
    (BaseException, _of_exception),
    (types.MethodType, _of_method),
    (types.BuiltinFunctionType, _of_builtin),
    (types.MethodWrapperType, _of_builtin),
    (functools.partial, _of_partial),
    (_CellType, _of_cell),
    (weakref.ReferenceType, _of_reference),
    (type, _of_class),
    (contextvars.Context, _of_context),
    (contextvars.ContextVar, _of_context_variable),
    (contextvars.Token, _of_token),
    (_thread._local, _of_local),
)
_BY_NAME = (("_queue", "SimpleQueue", _of_queue), ("numpy", "ndarray", _of_array))
