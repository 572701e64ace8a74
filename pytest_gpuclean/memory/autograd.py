"""What stands behind a torch tensor without a Python object of its own.

Its gradient, what its graph has saved, and what a sparse tensor is made of.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pytest_gpuclean.memory.graph_limits import LookLimit
from pytest_gpuclean.memory.graph_nodes import NodeReader
from pytest_gpuclean.memory.interface import loaded, member

WALK_SECONDS = 2.0
"""For all graphs that one `Autograd` looks through: 100,000 functions would take about half of it."""

_CHECK_EVERY = 256
_COMPRESSED_ROWS = ("crow_indices", "col_indices", "values")
_COMPRESSED_COLUMNS = ("ccol_indices", "row_indices", "values")
_SPARSE_PARTS = {
    "torch.sparse_coo": ("_indices", "_values"),
    "torch.sparse_csr": _COMPRESSED_ROWS,
    "torch.sparse_bsr": _COMPRESSED_ROWS,
    "torch.sparse_csc": _COMPRESSED_COLUMNS,
    "torch.sparse_bsc": _COMPRESSED_COLUMNS,
}
_Result = TypeVar("_Result")


class Tensors:
    """Reads attributes of torch's tensors, past subclasses and modes that may have their say in it."""

    def __init__(self) -> None:
        torch = loaded("torch")
        self._tensor: Any = member(torch, "Tensor") if torch else None
        parameter = member(torch, "nn", "Parameter") if torch else None
        self._plain = (self._tensor, parameter)
        self._kinds: dict[int, tuple[type, bool]] = {}
        self.quietly = (torch and member(torch, "_C", "DisableTorchFunction")) or contextlib.nullcontext
        """Has to be around every reading."""
        self._count_modes = member(torch, "_C", "_len_torch_dispatch_stack") if torch else None

    def is_tensor(self, value: Any) -> bool:
        """Whether this is one of torch's; nothing but its type is looked at."""
        kind = type(value)
        known = self._kinds.get(id(kind))
        if known is None:
            bases = type.__dict__["__mro__"].__get__(kind)
            is_tensor = self._tensor is not None and any(base is self._tensor for base in bases)
            known = self._kinds[id(kind)] = kind, is_tensor  # by id: a metaclass may compare or hash as it likes
        return known[1]

    def has_function(self, tensor: Any) -> bool:
        """Whether a function made a tensor, without a look at it."""
        kind = self._tensor
        return _tried(lambda: kind.requires_grad.__get__(tensor) and not kind.is_leaf.__get__(tensor)) is True

    def function_of(self, tensor: Any) -> Any:
        """Return the function that made a tensor; None where it has no graph."""
        return _tried(lambda: self._tensor.grad_fn.__get__(tensor))

    def gradient_of(self, tensor: Any) -> Any:
        """Return the gradient of a tensor, None where it has none."""
        # It has no Python object until somebody asks for it; asking a tensor that keeps none warns.
        kind = self._tensor
        keeps = _tried(lambda: kind.is_leaf.__get__(tensor) or kind.retains_grad.__get__(tensor))
        return _tried(lambda: kind.grad.__get__(tensor)) if keeps else None

    def sparse_parts_of(self, tensor: Any) -> Iterator[tuple[Any, str]]:
        """Give the dense tensors that a sparse one is made of, each with the call that gives it."""
        names = _SPARSE_PARTS.get(str(_tried(lambda: self._tensor.layout.__get__(tensor))), ())
        # They are asked of the dispatcher, where subclasses and modes do have their say.
        if not names or not any(type(tensor) is kind for kind in self._plain) or self._has_modes():
            return
        for name in names:
            part = _tried(getattr(tensor, name))
            if part is not None:
                yield part, f".{name}()"

    def _has_modes(self) -> bool:
        return self._count_modes is None or self._count_modes() > 0


class Autograd:
    """Looks behind tensors, at each function of a graph once."""

    def __init__(self, seconds: float = WALK_SECONDS, most_functions: int | None = None) -> None:
        """Set it up.

        Args:
            seconds: the most that going through graphs may take, all of them together.
            most_functions: of graphs, that may be looked at in this process; by the size of the stack by default.
        """
        torch = loaded("torch")
        self._tensors = Tensors()
        self._reader = NodeReader(torch)
        self._limit = LookLimit(torch, most_functions)
        # Kept, so that their identity stays theirs: each look at a function makes a new object for it.
        self._nodes: set[Any] = set()
        self._saved: dict[int, Any] = {}
        """Tensors that a graph has saved: what made them is in that graph too."""
        self._left_seconds = seconds
        self.is_cut = False
        """Whether graphs were too large to be looked through to their end: they have saved more than was found.

        What an earlier look has found has a Python object by now, so that whoever counts those counts the same again.
        """

    def behind(self, value: Any) -> list[Any]:
        """List the tensors behind a tensor, and what holds them; nothing for anything else."""
        return [found for found, _ in self.behind_with_words(value)]

    def behind_with_words(self, value: Any) -> list[tuple[Any, str]]:
        """List what stands behind a tensor, each with how it is reached: `.grad`, `.grad_fn (saved by MulBackward0)`.

        What the graphs of several tensors have in common is given for the first of them alone.
        """
        if not self._tensors.is_tensor(value):
            return []
        with self._tensors.quietly():
            gradient = self._tensors.gradient_of(value)
            found = [] if gradient is None else [(gradient, ".grad")]
            found += self._tensors.sparse_parts_of(value)
            for node in self._walk(value):
                found += self._behind_function(node)
        return found

    def _walk(self, tensor: Any) -> Iterator[Any]:
        """Give each function of a tensor's graph that this has not come by yet."""
        if id(tensor) in self._saved or not self._tensors.has_function(tensor):
            return
        begin = time.perf_counter()
        if self._left_seconds <= 0 or not self._limit.may_begin():
            self.is_cut = True
            return
        pending, steps = [self._tensors.function_of(tensor)], 0
        while pending:
            node = pending.pop()
            if node is None or node in self._nodes:
                continue
            self._nodes.add(node)
            yield node
            steps += 1
            is_over = steps % _CHECK_EVERY == 0 and time.perf_counter() - begin > self._left_seconds
            if is_over or not self._limit.may_follow(node):
                self.is_cut = True
            else:
                pending += self._reader.following(node)
            if is_over:
                break
        self._left_seconds -= time.perf_counter() - begin

    def _behind_function(self, node: Any) -> list[tuple[Any, str]]:
        if self._reader.is_leaf(node):
            return [(self._reader.leaf(node), ".grad_fn (a leaf of the graph)")]
        saved = self._reader.saved(node)
        self._saved.update((id(tensor), tensor) for tensor in saved.tensors)
        values = [*saved.tensors, *saved.packed, *saved.hooks, *saved.context]
        if not values:
            return []
        words = f".grad_fn (saved by {self._reader.name(node)})"
        return [(value, words) for value in values]


def keeps_own_graph(tensors: Iterable[Any]) -> bool:
    """Tell whether behind tensors there is a gradient with a graph of its own.

    `backward(create_graph=True)` makes such: it refers to its parameter, and that to it, in torch's own code, where no
    collector sees the cycle.
    """
    reader, autograd = Tensors(), Autograd()
    for tensor in tensors:
        behind = [tensor, *autograd.behind(tensor)]
        with reader.quietly():
            gradients = [reader.gradient_of(each) for each in behind if reader.is_tensor(each)]
            if any(gradient is not None and reader.has_function(gradient) for gradient in gradients):
                return True
    return False


def _tried(look: Callable[[], _Result]) -> _Result | None:
    try:
        return look()
    except Exception:  # functorch's tensors and others that are none underneath
        return None
