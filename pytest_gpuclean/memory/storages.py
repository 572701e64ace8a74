"""How many bytes a tensor or an array holds, where, and under which identity: views share their storage."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple

from pytest_gpuclean.memory.interface import loaded, member
from pytest_gpuclean.memory.mapped_files import MappedFiles, mapped_files
from pytest_gpuclean.memory.tensorflow import device_name
from pytest_gpuclean.model.memory import ARRAYS, Account

_DEVICE_GRAIN_BYTES = 512
"""torch's device allocators round each block up to this."""


class Storage(NamedTuple):
    """A block of memory behind one or more tensors or arrays."""

    account: Account
    identity: tuple[str, int]
    """Equal for all views of one block."""
    size_bytes: int


Reader = Callable[[Any], "Storage | None"]


class StorageReaders:
    """The tensor and array types of the frameworks that are loaded, each with the way to read its storage."""

    def __init__(self) -> None:
        self._readers: list[tuple[type, Reader]] = []
        self._by_type: dict[int, tuple[type, Reader | None]] = {}
        torch, numpy = loaded("torch"), loaded("numpy")
        jax, cupy = loaded("jax"), loaded("cupy")
        self._torch = torch
        # A subclass or a mode may have its say in what a tensor is asked; this keeps them out.
        self._quietly = (torch and member(torch, "_C", "DisableTorchFunction")) or nullcontext
        self._add(member(torch, "Tensor") if torch else None, self._of_torch)
        self._add(_torch_storage_type(torch), self._of_torch_storage)
        self._array = member(numpy, "ndarray") if numpy else None
        self._add(self._array, self._of_numpy)
        self._add(member(jax, "Array") if jax else None, _of_jax)
        arrays = loaded("jax._src.array")  # its base jax.Array is virtual in older releases
        self._add(member(arrays, "ArrayImpl") if arrays else None, _of_jax)
        self._add(member(cupy, "ndarray") if cupy else None, _of_cupy)
        ops = loaded("tensorflow.python.framework.ops")
        variables = loaded("tensorflow.python.ops.resource_variable_ops")
        self._add(member(ops, "EagerTensor") if ops else None, _of_tensorflow)
        self._add(member(variables, "BaseResourceVariable") if variables else None, _of_tensorflow)

    @property
    def is_empty(self) -> bool:
        """Whether no framework with tensors or arrays is loaded."""
        return not self._readers

    def _add(self, kind: object, reader: Reader) -> None:
        if isinstance(kind, type):
            self._readers.append((kind, reader))

    def kinds(self) -> list[type]:
        """List the types of tensors and arrays, with everything that derives from them."""
        found: dict[int, type] = {}
        pending = [kind for kind, _ in self._readers]
        while pending:
            kind = pending.pop()
            if id(kind) not in found:
                found[id(kind)] = kind
                pending += type.__subclasses__(kind)
        return list(found.values())

    def reader_of(self, kind: type) -> Reader | None:
        """Return how to read objects of this type, or None where it is no tensor or array.

        Only the type is looked at: its bases, never the `__class__` or `__instancecheck__` of anything.
        """
        if id(kind) in self._by_type:
            return self._by_type[id(kind)][1]
        bases = type.__dict__["__mro__"].__get__(kind)
        reader = next((read for wanted, read in self._readers if any(base is wanted for base in bases)), None)
        self._by_type[id(kind)] = (kind, reader)  # by id: a metaclass may compare or hash as it likes
        return reader

    def base_of(self, kind: type) -> Any:
        """Return the framework's own type that this one is or derives from; None where it is no tensor or array."""
        bases = type.__dict__["__mro__"].__get__(kind)
        return next((base for base in bases for wanted, _ in self._readers if base is wanted), None)

    def undisturbed(self) -> AbstractContextManager[Any]:
        """Keep torch from calling what subclasses and modes have put in the place of its own getters."""
        guard: AbstractContextManager[Any] = self._quietly()
        return guard

    def _of_torch(self, tensor: Any) -> Storage | None:
        try:
            with self.undisturbed():  # modes have their say in plain tensors too
                return self._of_torch_storage(self._torch.Tensor.untyped_storage(tensor))  # type: ignore[union-attr]
        except Exception:  # meta, fake, sparse, functorch and other tensors with no storage of their own
            return None

    def _of_torch_storage(self, storage: Any) -> Storage | None:
        try:
            size, device = storage.nbytes(), storage.device
            if size == 0 or device.type == "meta":
                return None
            if device.type == "cpu":
                if storage.filename is not None or self._is_mapped(storage):
                    return None  # mapped from a file: page cache, not memory of this process
                return Storage(ARRAYS, ("memory", storage.data_ptr()), size)
            name = "mps" if device.type == "mps" else f"{device.type}:{device.index}"
            rounded = -(-size // _DEVICE_GRAIN_BYTES) * _DEVICE_GRAIN_BYTES if self.rounds else size
            return Storage(Account(name, "torch"), (name, storage.data_ptr()), rounded)
        except Exception:
            return None

    def _is_mapped(self, storage: Any) -> bool:
        # Of a private mapping (`torch.load(mmap=True)`, safetensors) and its slices, torch has no file name.
        is_resizable = getattr(storage, "resizable", None)
        return not (is_resizable and is_resizable()) and storage.data_ptr() in self._files

    @cached_property
    def _files(self) -> MappedFiles:
        return mapped_files()

    rounds = False
    """Whether device blocks count as the allocator rounds them: where it does not say what was requested."""

    def _of_numpy(self, array: Any) -> Storage | None:
        owner = whole_array = array
        while self.reader_of(type(owner)) == self._of_numpy and owner.base is not None:
            whole_array, owner = owner, owner.base
        if type(owner) is memoryview:
            owner = owner.obj
        if isinstance(owner, mmap.mmap):  # a mapped file
            return None
        reader = self.reader_of(type(owner))
        if reader is None:
            # Memory of bytes, an array.array, a TensorFlow tensor: the last is in TensorFlow's own figure.
            foreign = type(owner).__module__.startswith("tensorflow")
            if type(owner).__name__ == "PyCapsule":  # DLPack: the memory of another framework's array, by its address
                return Storage(ARRAYS, ("memory", _address(whole_array)), whole_array.nbytes)
            return None if foreign else Storage(ARRAYS, ("object", id(owner)), array.nbytes)
        if reader != self._of_numpy:
            return reader(owner)
        if owner.nbytes == 0:
            return None
        return Storage(ARRAYS, ("memory", _address(owner)), owner.nbytes)


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def elements_of(array: Any) -> list[Any]:
    """List the elements of a NumPy array of objects: the collector does not see into it."""
    numpy = loaded("numpy")
    kind: Any = member(numpy, "ndarray") if numpy else None
    if kind is None or not any(base is kind for base in type.__dict__["__mro__"].__get__(type(array))):
        return []
    try:  # past what a subclass of somebody's may do when it is asked
        dtype = kind.dtype.__get__(array)
        return list(kind.flat.__get__(array)) if dtype.hasobject and dtype.names is None else []
    except Exception:
        return []


def _torch_storage_type(torch: ModuleType | None) -> Any:
    return member(torch, "UntypedStorage") if torch else None


def _of_jax(array: Any) -> Storage | None:
    try:
        if array.is_deleted():
            return None
        (device,) = array.devices()  # a sharded array spans several: its shards are arrays of their own
        platform = device.platform if device.platform != "gpu" else device.client.platform
        pointer = array.unsafe_buffer_pointer()
        if platform == "cpu":
            return Storage(ARRAYS, ("memory", pointer), array.nbytes)
        name = f"{platform}:{device.local_hardware_id}"
        return Storage(Account(name, "jax"), (name, pointer), array.nbytes)
    except Exception:
        return None


def _of_tensorflow(tensor: Any) -> Storage | None:
    """A tensor or a variable, or the handle of a variable: that alone keeps the value, also without the variable."""
    try:
        device_type, _, index = tensor.device.rpartition("/device:")[2].partition(":")
        handle = getattr(tensor, "handle", tensor)
        is_handle = handle is tensor and tensor.dtype.name == "resource"
        size = _bytes_behind(tensor) if is_handle else tensor.shape.num_elements() * tensor.dtype.size
        name = device_name(device_type, index)
        return Storage(Account(name, "tensorflow"), (f"tensorflow {name}", id(handle)), size)
    except Exception:  # no value of one known size: a table, an iterator, a variable of unknown shape
        return None


def _bytes_behind(handle: Any) -> int:
    """The size of a variable's value, by what its handle says of shape and type: private, and there since 2.0."""
    data: Any = getattr(handle, "_handle_data", None)
    (value,) = data.shape_and_type
    dtypes: Any = loaded("tensorflow.python.framework.dtypes")
    shapes: Any = loaded("tensorflow.python.framework.tensor_shape")
    return int(shapes.TensorShape(value.shape).num_elements() * dtypes.as_dtype(value.dtype).size)


def _of_cupy(array: Any) -> Storage | None:
    try:
        memory = array.data.mem
        name = f"cuda:{memory.device_id}"
        return Storage(Account(name, "cupy"), (name, memory.ptr), memory.size)
    except Exception:
        return None
