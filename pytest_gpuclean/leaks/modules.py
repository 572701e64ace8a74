"""The namespaces of modules: which dict belongs to which, and which are the user's own."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from pytest_gpuclean.leaks import raw

_BUILTINS = sys.intern("__builtins__")
_LARGEST_NAMESPACE = 20_000
_LARGEST_SOURCE_BYTES = 2**20
_OWN_PACKAGE = __name__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages")
_STANDARD = os.path.dirname(os.__file__)


class Modules:
    """The modules that are loaded, by the identity of their namespace."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._seen: dict[int, tuple[str, bool]] = {}
        for key, module in raw.pairs_of(sys.modules):
            namespace = raw.module_dict(module)
            if namespace is not None and type(key) is str and id(namespace) not in self._names:
                self._names[id(namespace)] = key

    def is_namespace(self, candidate: dict[str, Any]) -> bool:
        """Tell whether a dict is the namespace of a module, or of code that was run as one is."""
        if id(candidate) in self._names:
            return True
        if dict.__len__(candidate) > _LARGEST_NAMESPACE:
            return False
        try:
            return any(key is _BUILTINS for key in candidate)
        except RuntimeError:  # it changed meanwhile, in another thread
            return False

    def is_loaded(self, candidate: dict[str, Any]) -> bool:
        """Tell whether a dict is the namespace of a module in `sys.modules`."""
        return id(candidate) in self._names

    def name_of(self, namespace: dict[str, Any]) -> str:
        """Name the module of a namespace."""
        return self._look(namespace)[0]

    def is_users(self, namespace: dict[str, Any]) -> bool:
        """Tell whether a module is neither of the standard library nor installed."""
        return self._look(namespace)[1]

    def _look(self, namespace: dict[str, Any]) -> tuple[str, bool]:
        seen = self._seen.get(id(namespace))
        if seen is None:
            known = self._names.get(id(namespace), "")
            name = raw.text_of(raw.find(namespace, "__name__")) or raw.text_of(known) or "<namespace>"
            seen = self._seen[id(namespace)] = (name, _is_users(name, raw.find(namespace, "__file__")))
        return seen

    def defines_users(self, name: str) -> bool:
        """Tell whether a dotted name begins with that of one of the user's modules."""
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            namespace = raw.module_dict(sys.modules.get(".".join(parts[:end])))
            if namespace is not None:
                return self.is_users(namespace)
        return False

    def users(self) -> list[dict[str, Any]]:
        """List the namespaces of the user's modules, the youngest first."""
        found = [raw.module_dict(module) for _, module in raw.pairs_of(sys.modules)]
        return [namespace for namespace in reversed(found) if namespace is not None and self.is_users(namespace)]

    def preferred(self, namespaces: list[dict[str, Any]], value: object) -> dict[str, Any]:
        """Choose among modules that know an object by a name: the user's own, and the one that does not import it.

        Args:
            namespaces: at least one.
            value: what each of them has.
        """
        users = [namespace for namespace in namespaces if self.is_users(namespace)]
        candidates = users or namespaces
        if len(candidates) > 1:
            defining = [each for each in users if self.defines(each, raw.text_of(raw.key_of(each, value)))]
            candidates = defining or candidates
        return min(candidates, key=lambda namespace: len(self.name_of(namespace)))

    def defines(self, namespace: dict[str, Any], name: str) -> bool:
        """Tell by its source whether a module assigns a name itself, rather than importing it from another."""
        file = raw.find(namespace, "__file__")
        if type(file) is not str or not file.endswith(".py"):
            return False
        pattern = re.compile(rf"{re.escape(name)}\b[^=\n]*=(?!=)")
        try:
            with open(file, encoding="utf-8", errors="replace") as source:
                lines = source.read(_LARGEST_SOURCE_BYTES).splitlines()
            return any(pattern.match(line) for line in lines)
        except OSError:
            return False


def _is_users(name: str, file: object) -> bool:
    package = name.partition(".")[0]
    if package == _OWN_PACKAGE:
        return False
    if type(file) is not str:  # a module in C, or one that some code has made: what its package is
        namespace = raw.module_dict(sys.modules.get(package)) if package != name else None
        file = raw.MISSING if namespace is None else raw.find(namespace, "__file__")
        if type(file) is not str:
            return package not in sys.stdlib_module_names
    return not any(part in file for part in _INSTALLED) and not file.startswith(_STANDARD)
