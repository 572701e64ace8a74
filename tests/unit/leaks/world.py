"""A module of a user, in which something is left behind, and the search for who holds it."""

import gc
import sys
import textwrap
from types import FrameType, FunctionType, ModuleType, TracebackType

from pytest_gpuclean.leaks.holders import Target, find_holders

SIZE_BYTES = 1024
_OPAQUE = (type, ModuleType, FrameType, TracebackType)
TENSOR = """
class Tensor:
    pass
"""


def reaching(targets):
    """What the caller passes: which targets are reached from a value through its data."""
    places = {id(value): index for index, target in enumerate(targets) for value in target.values}

    def reached_from(value):
        seen, found, pending = {}, set(), [value]
        while pending:
            each = pending.pop()
            mro = type.__dict__["__mro__"].__get__(type(each))
            if id(each) in seen or any(base is one for base in mro for one in _OPAQUE):
                continue
            seen[id(each)] = each
            if id(each) in places:
                found.add(places[id(each)])
            if type(each) is FunctionType:
                pending += [each.__closure__, each.__defaults__, each.__kwdefaults__]
            else:
                pending += gc.get_referents(each)
        return found

    return reached_from


class World:
    """A module, by default named `test_model`, with code that leaks; its `undo` tidies up."""

    def __init__(self, code, folder, name="test_model", **names):
        self.module = ModuleType(name)
        self.module.__file__ = str(folder / f"{name}.py")
        code = TENSOR + textwrap.dedent(code)
        (folder / f"{name}.py").write_text(code)
        self.module.__dict__.update(names)
        sys.modules[name] = self.module
        exec(compile(code, self.module.__file__, "exec"), self.module.__dict__)
        self.targets = []

    def leak(self, count=1, make=None, size_bytes=SIZE_BYTES, suffix=""):
        """Call the module's `leak` with something to leave behind; no variable of ours refers to it afterwards.

        What it returns is the target, where it is not None.
        """
        values = [(make or self.module.Tensor)() for _ in range(count)]
        left = self.module.leak(*values)
        self.targets += [Target((value,), size_bytes, suffix) for value in (values if left is None else left)]
        return self

    def holding(self, **how):
        gc.collect()
        how.setdefault("seconds", 20.0)
        how.setdefault("reached_from", reaching(self.targets))
        return find_holders(self.targets, **how)

    def found(self, **how):
        """The kinds and chains of what holds it."""
        return [(holder.kind, holder.chain) for holder in self.holding(**how).holders]

    def end(self):
        self.targets.clear()
        self.module.__dict__.get("undo", int)()
        sys.modules.pop(self.module.__name__, None)
        self.module.__dict__.clear()
        gc.collect()
