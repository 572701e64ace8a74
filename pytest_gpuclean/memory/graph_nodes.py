"""One function of an autograd graph: what it has saved, read without running anybody's code.

`_saved_x` would run the unpack hook where there is one, which may compute a whole forward pass anew; the raw slot
behind it (`_raw_saved_x`) gives what was packed.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

from pytest_gpuclean.memory.interface import member
from pytest_gpuclean.units import shorten

_RAW = "_raw_saved_"
_LONGEST_NAME = 60


class Saved(NamedTuple):
    """What one function keeps for its backward pass."""

    tensors: list[Any]
    packed: list[Any]
    """What pack hooks have made of tensors."""
    hooks: list[Any]
    """The hooks that would unpack them; that of a checkpoint holds what it computes from."""
    context: list[Any]
    """What a function of the user's keeps on its `ctx`, of whatever type."""
    is_freed: bool
    """Whether a backward pass has freed what it had saved."""
    unread: int
    """How many slots cannot be read without running a hook: an older torch does not show what is in them."""


class NodeReader:
    """Reads the functions of graphs; what cannot be read is as if it were not there."""

    def __init__(self, torch: ModuleType | None) -> None:
        self._custom = member(torch, "_C", "_FunctionBase") if torch else None
        self._slots: dict[int, tuple[type, tuple[str, ...]]] = {}
        """By type of function, which is kept so that its identity stays its own."""

    def following(self, node: Any) -> list[Any]:
        """List the functions that a backward pass would come to next."""
        try:
            return [following for following, _ in node.next_functions if following is not None]
        except Exception:
            return []

    def is_leaf(self, node: Any) -> bool:
        """Whether this is where the gradient of a leaf, such as a parameter, is added up."""
        return type(node).__name__ == "AccumulateGrad"

    def leaf(self, node: Any) -> Any:
        """Return that leaf."""
        try:
            return node.variable
        except Exception:
            return None

    def has_slots(self, node: Any) -> bool:
        """Whether this is a function that saves tensors, not a mere change of shape."""
        return bool(self._slots_of(type(node)))

    def name(self, node: Any) -> str:
        """Name a function: one of the user's by its class."""
        kind = type(node)
        try:
            if self._is_custom(kind):
                name = type.__dict__["__name__"].__get__(getattr(kind, "_forward_cls", kind))
            else:
                name = kind.__name__ if kind.__name__ != "CppFunction" else node.name()
            return shorten(str(name), _LONGEST_NAME)
        except Exception:
            return "function"

    def saved(self, node: Any) -> Saved:
        """Read what a function has saved."""
        kind = type(node)
        tensors: list[Any] = []
        packed: list[Any] = []
        hooks: list[Any] = []
        is_freed, unread = False, 0
        for name in self._slots_of(kind):
            try:
                raw = getattr(node, name)
            except Exception:  # several tensors in one slot, which a backward pass has freed
                is_freed = True
                continue
            for slot in raw if isinstance(raw, (tuple, list)) else (raw,):
                try:
                    value, hook = slot.data, slot.unpack_hook
                except Exception:  # an older torch, or a hook of C++
                    unread += 1
                    continue
                if hook is not None:
                    hooks.append(hook)
                    packed.append(value)
                elif value is not None:
                    tensors.append(value)
                else:
                    is_freed = is_freed or _is_gone(node, name)
        context = list(vars(node).values()) if self._is_custom(kind) else []
        return Saved(tensors, packed, hooks, context, is_freed, unread)

    def _is_custom(self, kind: type) -> bool:
        return self._custom is not None and any(base is self._custom for base in kind.__mro__)

    def _slots_of(self, kind: type) -> tuple[str, ...]:
        known = self._slots.get(id(kind))
        if known is None:
            known = self._slots[id(kind)] = kind, tuple(name for name in dir(kind) if name.startswith(_RAW))
        return known[1]


def _is_gone(node: Any, raw_name: str) -> bool:
    """Whether an empty slot without a hook has held something: reading it is what torch refuses then."""
    try:
        getattr(node, raw_name.removeprefix("_raw"))
    except RuntimeError:
        return True
    except Exception:
        return False
    return False
