"""What stands behind a torch tensor without a Python object of its own: its gradient, and what its graph has saved."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any, cast

from pytest_gpuclean.memory.interface import loaded

_GRAPH_NODES = 20_000


class Autograd:
    """Looks behind tensors, at each node of a graph once."""

    def __init__(self) -> None:
        torch = loaded("torch")
        self._tensor = torch.Tensor if torch else None
        self._is_leaf = getattr(self._tensor, "is_leaf", None)
        # Kept, so that their identity stays theirs: each look at a node makes new tensors, which lead back to it.
        self._nodes: set[Any] = set()

    def behind(self, value: Any) -> list[Any]:
        """List the tensors behind a tensor; nothing for anything else."""
        if self._tensor is None or not any(
            base is self._tensor for base in type.__dict__["__mro__"].__get__(type(value))
        ):
            return []
        return [self._gradient(value), *self._saved(value)]

    def behind_with_words(self, value: Any) -> list[tuple[Any, str]]:
        """List them with the way to each, as one would type it."""
        return [(found, "") for found in self.behind(value) if found is not None]

    def _gradient(self, tensor: Any) -> Any:
        # It has no Python wrapper until somebody asks for it; asking a tensor that is no leaf warns.
        try:
            return self._tensor.grad.__get__(tensor) if self._is_leaf.__get__(tensor) else None  # type: ignore[union-attr]
        except Exception:
            return None

    def _saved(self, tensor: Any) -> list[Any]:
        try:
            pending = [tensor.grad_fn]
        except Exception:
            return []
        saved: list[Any] = []
        while pending and len(self._nodes) < _GRAPH_NODES:
            node = pending.pop()
            if node is None or node in self._nodes:
                continue
            self._nodes.add(node)
            pending += [following for following, _ in node.next_functions]
            for name in _saved_names(cast("Hashable", type(node))):
                try:
                    saved.append(getattr(node, name))
                except Exception:  # the graph's buffers were freed by a backward pass
                    continue
            saved.append(getattr(node, "variable", None))
        return saved


@functools.cache
def _saved_names(node_type: Any) -> tuple[str, ...]:
    return tuple(name for name in dir(node_type) if name.startswith("_saved_"))
