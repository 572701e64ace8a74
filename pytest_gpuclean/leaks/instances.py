"""The attributes of instances, and those of well-known classes by the name under which a person knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, functions, raw


class Attribute(NamedTuple):
    """How an instance leads on."""

    typed: str
    """`.weight`, `[0]`; empty where nothing leads on that one could type."""
    width: int
    """How many steps of the path it takes."""
    kind: str = causes.INSTANCE_ATTRIBUTE
    words: str = ""
    """Words that stand in place of what leads to the instance."""


Path = Sequence[Any]


class Step(NamedTuple):
    """A step from an instance, as far as its attributes alone say."""

    path: Path
    at: int
    name: str | None
    width: int

    @property
    def after(self) -> int:
        """Where the value of the attribute is."""
        return self.at + self.width

    def key(self) -> Any:
        """Return under which key the attribute, a dict, has what follows in the path; `MISSING` where nothing does."""
        if self.after + 1 >= len(self.path):
            return raw.MISSING
        return raw.key_of(self.path[self.after], self.path[self.after + 1])


def attribute_at(path: Path, at: int) -> Attribute:
    """Describe the step from the instance `path[at]` to what follows it."""
    owner, value = path[at], path[at + 1]
    kind = type(owner)
    if value is kind:
        return Attribute(".__class__", 1)
    name: str | None = None
    width = 1
    if at + 2 < len(path) and raw.is_instance_dict(owner, value):
        key = raw.key_of(value, path[at + 2])
        if type(key) is str:
            name, width = raw.name_text(key), 2
    name = name or raw.attribute_name(owner, value)
    for module, class_name, describe in _KNOWN:
        if raw.is_named(kind, module, class_name):
            found = describe(Step(path, at, name, width))
            if found is not None:
                return found
    if not name:
        return Attribute("", 1, "")
    if _is_cached_property(kind, name):
        return Attribute(f".{name}", width, causes.CACHED_PROPERTY)
    return Attribute(f".{name}", width)


def _is_cached_property(kind: type, name: str) -> bool:
    for base in raw.mro_of(kind):
        found = raw.find(raw.namespace_of(base), name)
        if found is not raw.MISSING:
            return raw.qualname_of(type(found)) == "cached_property"
    return False


_REGISTRIES = ("_parameters", "_buffers", "_modules")
"""Dicts whose items a module gives out as its attributes."""


def _of_torch_module(step: Step) -> Attribute | None:
    if step.name in _REGISTRIES:
        key = step.key()
        if type(key) is str:
            text = raw.text_of(key)
            typed = f"[{text}]" if text.isdecimal() else f".{raw.name_text(key)}"
            return Attribute(typed, step.width + 1, causes.TORCH_MODULE)
    if step.name and step.name.endswith("_hooks"):
        kind = causes.BACKWARD_HOOK if "backward" in step.name else causes.FORWARD_HOOK
        return Attribute(f".{step.name}", step.width, kind)
    return None


def _of_tensor(step: Step) -> Attribute | None:
    if step.name is None and raw.is_a(type(step.path[step.at + 1]), dict):
        return Attribute("._backward_hooks", 1, causes.TENSOR_HOOK)
    return None


def _of_optimizer(step: Step) -> Attribute | None:
    return Attribute(f".{step.name}", step.width, causes.OPTIMIZER) if step.name else None


def _of_mock(step: Step) -> Attribute | None:
    if step.name is None:
        return None
    if step.name == "_mock_children":
        key = step.key()
        return Attribute(f".{raw.name_text(key)}", step.width + 1, causes.MOCK) if type(key) is str else None
    public = "mock_calls" if step.name == "_mock_mock_calls" else step.name.removeprefix("_mock_")
    return Attribute(f".{public}", step.width, causes.MOCK)


def _of_weak_dictionary(step: Step) -> Attribute | None:
    key = step.key() if step.name == "data" else raw.MISSING
    if key is raw.MISSING:
        return None
    referent = raw.referent_of(key)
    name = "<dead>" if referent is None else f"<{raw.qualname_of(type(referent))}>"
    return Attribute(f"[{name}]", step.width + 1, causes.WEAK_DICTIONARY)


def _of_work_item(step: Step) -> Attribute | None:
    function = functions.callable_name(raw.attribute(step.path[step.at], "fn"))
    words = f"work item of {function}"
    return Attribute(f".{step.name}", step.width, causes.EXECUTOR, words) if step.name else None


_RESULTS = {"_result": ".result()", "_exception": ".exception()"}


def _of_future(step: Step) -> Attribute | None:
    return Attribute(_RESULTS.get(step.name, f".{step.name}"), step.width, causes.FUTURE) if step.name else None


def _of_c_future(step: Step) -> Attribute | None:
    """A future or a finished task of asyncio, whose fields are in C: they are read by the getters of its own type."""
    owner, value = step.path[step.at], step.path[step.at + 1]
    for base in raw.mro_of(type(owner)):
        if raw.module_of(base) != "_asyncio":
            continue
        for field, typed in _RESULTS.items():
            try:
                if raw.find(raw.namespace_of(base), field).__get__(owner) is value:
                    return Attribute(typed, 1, causes.FUTURE)
            except Exception:
                continue
    return Attribute("", 1, "")


def _of_handler(step: Step) -> Attribute | None:
    return Attribute(f".{step.name}", step.width, causes.LOGGING_HANDLER) if step.name else None


Describe = Callable[[Step], "Attribute | None"]
_KNOWN: tuple[tuple[str, str, Describe], ...] = (
    ("torch.nn.modules.module", "Module", _of_torch_module),
    ("torch", "Tensor", _of_tensor),
    ("torch.optim.optimizer", "Optimizer", _of_optimizer),
    ("unittest.mock", "NonCallableMock", _of_mock),
    ("weakref", "WeakKeyDictionary", _of_weak_dictionary),
    ("concurrent.futures.thread", "_WorkItem", _of_work_item),
    ("concurrent.futures._base", "Future", _of_future),
    ("_asyncio", "Future", _of_c_future),
    ("_asyncio", "Task", _of_c_future),
    ("logging", "Handler", _of_handler),
)
