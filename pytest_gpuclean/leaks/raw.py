"""Looking at somebody's object without running a line of its code.

No `isinstance`, `getattr`, `==`, `hash`, `len` or `repr`: each of them may run code of the object. What is used is
`type(o)`, identity, and the descriptors of built-in types, which read memory and nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import re
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, cast

from pytest_gpuclean.interpreter import referents_of

_MRO = type.__dict__["__mro__"]
_NAMESPACE = type.__dict__["__dict__"]
_QUALNAME = type.__dict__["__qualname__"]
_MODULE = type.__dict__["__module__"]
_MODULE_DICT: Any = vars(types.ModuleType)["__dict__"]

_NAME_CHARACTERS = 80
_KEY = re.compile(r"[A-Za-z_]\w{0,31}(?:[./]\w{1,32})*", re.ASCII)
_KEY_CHARACTERS = 60
_LARGEST_KEY = 10**9
_RETRIES = 3
MISSING = object()
_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_NO_SLOTS = ("__dict__", "__weakref__")


def mro_of(kind: type) -> tuple[type, ...]:
    """List a type and its bases."""
    bases: tuple[type, ...] = _MRO.__get__(kind)
    return bases


def is_a(kind: type, *wanted: type) -> bool:
    """Tell whether a type is one of these, or derives from one."""
    for base in _MRO.__get__(kind):
        for one in wanted:
            if base is one:
                return True
    return False


def is_named(kind: type, module: str, *names: str) -> bool:
    """Tell whether a type is one that is known by name alone, or derives from one: nothing is imported for it."""
    return any(qualname_of(base) in names and module_of(base) == module for base in mro_of(kind))


def is_class(value: object) -> bool:
    """Tell whether an object is a class."""
    return is_a(type(value), type)


def namespace_of(kind: type) -> dict[str, Any]:
    """Copy what a class itself defines."""
    return dict(pairs_of(_NAMESPACE.__get__(kind)))


def module_of(kind: type) -> str:
    """Return the name of the module that defines a class; empty where that is no text."""
    try:
        return text_of(_MODULE.__get__(kind), 1000)
    except Exception:  # a class that has deleted it
        return ""


def qualname_of(kind: type) -> str:
    """Return the qualified name of a class."""
    return text_of(_QUALNAME.__get__(kind), 1000)


def type_name(kind: type) -> str:
    """Name a class the way a person would: with its module, but for built-ins."""
    module, name = text_of(module_of(kind)), text_of(qualname_of(kind))
    return name if module in ("builtins", "") else f"{module}.{name}"


def text_of(value: object, characters: int = _NAME_CHARACTERS) -> str:
    """Return a name as text that fits into a line; empty where it is no text.

    Args:
        value: such as a `__qualname__` or the name of a thread.
        characters: how many are kept at most.
    """
    if not is_a(type(value), str):
        return ""
    text = str.__str__(value)[: characters + 1]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= characters else f"{text[: characters - 3]}..."


def key_text(key: object) -> str:
    """Write the key of a dict: short names and numbers as they are, everything else by its type; never a value."""
    kind = type(key)
    if kind is str:
        text = str.__str__(key)
        if len(text) <= _KEY_CHARACTERS and _KEY.fullmatch(text):
            return f'["{text}"]'
        return f"[<str of {len(text)}>]"
    if kind is bool or key is None or (kind is int and -_LARGEST_KEY < cast("int", key) < _LARGEST_KEY):
        return f"[{key}]"
    if is_class(key):
        return "[<class>]"
    return f"[<{qualname_of(kind)}>]"


def name_text(name: object) -> str:
    """Write the name of an attribute; one that no code could write is written as the key of a dict is."""
    text = text_of(name)
    return text if text.isidentifier() else key_text(name)[1:-1]


def pairs_of(mapping: Any) -> list[tuple[Any, Any]]:
    """List the keys and values of a dict, of a class that derives from it, or of a class's namespace."""
    for _ in range(_RETRIES):
        with contextlib.suppress(RuntimeError):  # it changed meanwhile, in another thread
            return list(_items(mapping))
    return []


def find(mapping: Any, name: str) -> Any:
    """Return what a dict has under a name, or `MISSING`; its keys are compared by text alone.

    A look-up would compare the name with whatever key has the same hash, in that key's own way.
    """
    for _ in range(_RETRIES):
        with contextlib.suppress(RuntimeError):
            for key, value in _items(mapping):
                if type(key) is str and key == name:
                    return value
            return MISSING
    return MISSING


def _items(mapping: Any) -> Iterable[tuple[Any, Any]]:
    if is_a(type(mapping), dict):
        return dict.items(mapping)
    return types.MappingProxyType.items(mapping)


def key_of(mapping: Any, value: object) -> Any:
    """Return the first key under which a dict has an object, or `MISSING`."""
    for _ in range(_RETRIES):
        with contextlib.suppress(RuntimeError):
            for key, found in _items(mapping):
                if found is value:
                    return key
            return MISSING
    return MISSING


def position_of(items: Iterator[Any], value: object) -> int | None:
    """Return at which place an object stands among others."""
    try:
        for index, found in enumerate(items):
            if found is value:
                return index
    except RuntimeError:  # a deque or a set that changed meanwhile
        pass
    return None


def referent_of(reference: object) -> Any:
    """Return what a weak reference refers to; None where that is gone, or where it is no weak reference."""
    if not is_a(type(reference), weakref.ReferenceType):
        return None
    call: Any = weakref.ReferenceType.__call__
    return call(reference)


def module_dict(module: Any) -> dict[str, Any] | None:
    """Return the namespace of a module; None for whatever else stands in `sys.modules`."""
    if not is_a(type(module), types.ModuleType):
        return None
    namespace = _MODULE_DICT.__get__(module)
    return namespace if type(namespace) is dict else None


def attribute(value: Any, name: str) -> Any:
    """Return an attribute of an instance from its slots or its dict, or `MISSING`; no property is run."""
    found = _slots(value).get(name, MISSING)
    if found is not MISSING:
        return found
    namespace = instance_dict(value)
    return MISSING if namespace is None else find(namespace, name)


def attribute_name(value: Any, held: object) -> str | None:
    """Return the name of the attribute by that an instance holds an object.

    Its `__dict__` is asked for last: since 3.11 an instance has none until somebody does.
    """
    name = _name_without_dict(value, held)
    if name is not None:
        return name
    namespace = instance_dict(value)
    key = MISSING if namespace is None else key_of(namespace, held)
    return name_text(key) if type(key) is str else None


def instance_dict(value: Any) -> dict[str, Any] | None:
    """Return the `__dict__` of an instance; None where it has none."""
    for base in mro_of(type(value)):
        found = find(_NAMESPACE.__get__(base), "__dict__")
        if any(type(found) is one for one in _DESCRIPTORS):
            try:
                namespace = found.__get__(value)
            except Exception:
                return None
            return namespace if is_a(type(namespace), dict) else None
    return None


def is_instance_dict(value: Any, candidate: object) -> bool:
    """Tell whether a dict is the `__dict__` of an instance, which does not get one for the question."""
    if type(candidate) is not dict or not gc.is_tracked(candidate):
        return False
    if not any(found is candidate for found in referents_of([value])):
        return False
    return _name_without_dict(value, candidate) is None and instance_dict(value) is candidate


def _name_without_dict(value: Any, held: object) -> str | None:
    for name, found in _slots(value).items():
        if found is held:
            return name
    for name in _names_in_code(type(value)):
        try:
            if object.__getattribute__(value, name) is held:
                return name
        except Exception:
            continue
    return None


def _slots(value: Any) -> dict[str, Any]:
    """Read the slots of an instance, and the members that its type in C has."""
    found: dict[str, Any] = {}
    for base in mro_of(type(value)):
        for name, descriptor in pairs_of(_NAMESPACE.__get__(base)):
            if type(descriptor) is not types.MemberDescriptorType or type(name) is not str:
                continue
            if name not in found and name not in _NO_SLOTS:
                try:
                    found[name] = descriptor.__get__(value)
                except Exception:  # a slot that is empty
                    continue
    return found


def _names_in_code(kind: type) -> Iterable[str]:
    """List the names that the methods of a class use and that no class of it defines: its instance attributes.

    Such a name can be asked for: there is no descriptor that would run.
    """
    defined: set[str] = set()
    used: dict[str, None] = {}
    for base in mro_of(kind):
        for name, value in pairs_of(_NAMESPACE.__get__(base)):
            if type(name) is str:
                defined.add(name)
            if type(value) is types.FunctionType:
                used.update(dict.fromkeys(value.__code__.co_names))
            elif name == "__annotations__" and type(value) is dict:
                used.update(dict.fromkeys(key for key, _ in pairs_of(value) if type(key) is str))
    return [name for name in used if name not in defined]
