"""NumPy arrays that a test keeps, wherever it puts them."""

import dataclasses
import sys
from types import ModuleType

import numpy as np
import torch

FLAGGED = {
    "test_keeps_an_array": "leaked 16.0 MiB on cpu",
    "test_keeps_a_view": "leaked 16.0 MiB on cpu",
    "test_keeps_the_array_of_a_tensor": "leaked 16.0 MiB on cpu",
    "test_keeps_the_tensor_of_an_array": "leaked 16.0 MiB on cpu",
    "test_keeps_both_names_of_one_block": "leaked 16.0 MiB on cpu",
    "test_keeps_an_array_in_nested_tuples": "leaked 16.0 MiB on cpu",
    "test_keeps_an_array_in_a_dict_of_dicts": "leaked 16.0 MiB on cpu",
    "test_keeps_an_array_in_slots": "leaked 16.0 MiB on cpu",
    "test_keeps_an_array_as_a_default": "leaked 16.0 MiB on cpu",
    "test_keeps_a_structured_array": "leaked 16.0 MiB on cpu",
    "test_keeps_an_array_in_an_array_of_objects": "leaked 16.0 MiB on cpu",
    "test_keeps_a_subclass": "leaked 16.0 MiB on cpu",
    "test_keeps_an_array_in_a_module_made_by_hand": "leaked 16.0 MiB on cpu",
    "test_keeps_small_arrays": "leaked 12.0 MiB on cpu",
}

KEPT = []


def make():
    return np.ones((1024, 2048))


def test_uses_an_array():
    assert make().sum() > 0


def test_keeps_an_array():
    KEPT.append(make())


def test_keeps_a_view():
    KEPT.append(make()[0, :2])


def test_keeps_the_array_of_a_tensor():
    KEPT.append(torch.ones(2048, 2048).numpy())


def test_keeps_the_tensor_of_an_array():
    KEPT.append(torch.from_numpy(make()))


def test_keeps_both_names_of_one_block():
    array = make()
    KEPT.append((array, torch.from_numpy(array), array[:4], array.T))


def test_keeps_an_array_in_nested_tuples():
    KEPT.append(("a", ("b", ("c", make()))))


def test_keeps_an_array_in_a_dict_of_dicts():
    KEPT.append({"encoder": {"layer1": {"weight": make()}}})


def test_keeps_an_array_in_slots():
    @dataclasses.dataclass(slots=True)
    class Batch:
        images: np.ndarray

    KEPT.append(Batch(make()))


def test_keeps_an_array_as_a_default():
    KEPT.append(lambda x, weights=make(): x @ weights)


def test_keeps_a_structured_array():
    KEPT.append(np.ones(2**21, dtype=[("x", "f4"), ("y", "f4")]))


def test_keeps_an_array_in_an_array_of_objects():
    KEPT.append(np.array([make(), None], dtype=object))


def test_keeps_a_subclass():
    KEPT.append(make().view(np.recarray))


def test_keeps_an_array_in_a_module_made_by_hand():
    stub = sys.modules["stub_of_a_package"] = ModuleType("stub_of_a_package")
    stub.TABLE = make()


def test_keeps_small_arrays():
    KEPT.append([np.ones(8192) for _ in range(192)])
