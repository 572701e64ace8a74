"""What is in NumPy arrays of objects: the collector does not see into them."""

from __future__ import annotations

import sys
from typing import Any

from pytest_gpuclean.leaks import raw

_MOST_ELEMENTS = 100_000


def array_type() -> Any:
    """Return the type of NumPy's arrays; None where NumPy is not loaded."""
    numpy = raw.module_dict(sys.modules.get("numpy"))
    array = None if numpy is None else raw.find(numpy, "ndarray")
    return array if raw.is_class(array) else None


def elements_of(value: Any, array: Any) -> list[Any]:
    """List the elements of an array of objects; nothing for anything else.

    Only the getters of NumPy's own type are used, which touch no element.

    Args:
        value: any object.
        array: what `array_type` has returned.
    """
    if array is None or not raw.is_a(type(value), array):
        return []
    try:
        dtype = array.dtype.__get__(value)
        if not dtype.hasobject or dtype.names is not None or array.size.__get__(value) > _MOST_ELEMENTS:
            return []
        return list(array.flat.__get__(value))
    except Exception:  # a stand-in for NumPy
        return []
