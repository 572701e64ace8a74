"""What an error says about a device: that memory ran out, that the device is lost, or nothing.

By the names of types alone, so that no framework is imported. A text counts where a framework raised it: its own
types, and those of Python that its C++ parts raise. What a test says about such texts (`AssertionError`) is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.units import parse_size

Kind = Literal["out_of_memory", "device_lost"]
_MOST_LINKS = 100
_READ_CHARACTERS = 4000
_OF_FRAMEWORK = re.compile(
    r"(?:torch|torch_npu|cupy|cupy_backends|numba|numpy|tensorflow|jax|jaxlib|pycuda|pyopencl|pynvml|rmm|cuda|cudf|cuml|"
    r"vllm|paddle|mxnet|habana_frameworks|intel_extension_for_pytorch|onnxruntime|tensorrt)\."
)
_RAISED_BY_LIBRARIES = ("builtins.RuntimeError", "builtins.ValueError", "builtins.MemoryError", "builtins.SystemError")
"""What C++ errors become in Python; vLLM says so by a ValueError."""
_CHECKS_OF_ERRORS = ("_pytest.raises", "_pytest.python_api")
_REMOTE = ("_RemoteTraceback", "RemoteTraceback")
"""multiprocessing's and concurrent.futures' cause of an error that came from another process."""
_HAS_TRACEBACK = re.compile(r"^(?:Caught \w+ in |\n*-- Process \d+ terminated with the following error)")
"""torch sends the error of a process or thread on as a text with its traceback."""
_FROM_PROCESS = re.compile(r"^Caught \w+ in DataLoader worker process|^\n*-- Process \d+ terminated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an error says about a device."""

    kind: Kind
    error: str
    """Its type and the first line of its text."""
    device: str = ""
    """`cuda:0`, `cuda` where only the sort is said, `cpu` for host memory; empty where nothing is."""
    asked_bytes: int | None = None
    """What the allocation that failed had asked for; None where the text does not say."""
    is_doubtful: bool = False
    """Whether it may be something else: CUBLAS_STATUS_NOT_INITIALIZED is mostly, not always, a lack of memory."""
    is_forwarded: bool = False
    """Whether another process raised it: this one's devices are well."""


# Host memory first: CUDA's tables would match the same words.
_HOST = re.compile(
    r"DefaultCPUAllocator: |^Unable to allocate .+ for an array|OUT_OF_HOST_MEMORY|"
    r"OOM when allocating tensor .*/device:CPU:|not enough memory: you tried to allocate"
)
_OUT_OF_MEMORY = re.compile(
    r"^(?:[A-Za-z]+ )?(?:error: )?out of memory\b|^MPS backend out of memory|"
    r"OOM when allocating tensor|^Out of memory error on GPU|"
    r"(?:RESOURCE_EXHAUSTED|Resource exhausted): (?:\w+: )*(?:Out of memory|Failed to allocate|Ran out of memory in "
    r"memory space hbm|OOM)|implicit initialization on GPU:\d+ failed. Status: out of memory|"
    r"\b(?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS|HIPSPARSE|HIPSOLVER)_STATUS_ALLOC_FAILED|"
    r"\bCUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED|\b(?:CU|HIP)FFT_ALLOC_FAILED|miopenStatusAllocFailed|"
    r"\bcudaErrorMemoryAllocation\b|\bCUDA_ERROR_OUT_OF_MEMORY\b|\bhipErrorOutOfMemory\b|"
    r"\b(?:UR_RESULT|ZE_RESULT|PI)_ERROR_OUT_OF_DEVICE_MEMORY\b|\bCL_MEM_OBJECT_ALLOCATION_FAILURE\b|"
    r"Cuda failure (?:\d+ )?'out of memory'|^cuMemAlloc failed: out of memory|std::bad_alloc: out_of_memory: CUDA|"
    r"^No available memory for the cache blocks|^Free memory on device .+ on startup is less than desired GPU",
    re.MULTILINE,
)
_MAYBE_OUT_OF_MEMORY = re.compile(
    r"\b(?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS)_STATUS_NOT_INITIALIZED\b|\bUR_RESULT_ERROR_OUT_OF_RESOURCES\b|"
    r"\bPI_ERROR_OUT_OF_RESOURCES\b|^Dst tensor is not initialized|Dst tensor is not initialized\.$",
    re.MULTILINE,
)
_NO_MEMORY_OF_A_DEVICE = re.compile(r"memory space (?:vmem|smem)|out of resource: ")
"""On-chip memory that a single kernel asked too much of: no cleanup gives that back."""
_LOST = re.compile(
    r"device-side assert triggered|an illegal memory access was encountered|^(?:.*: )?misaligned address|"
    r"unspecified launch failure|the launch timed out and was terminated|hardware stack error|"
    r"an illegal instruction was encountered|operation not supported on (?:global/shared|shared|global) address space|"
    r"invalid program counter|uncorrectable (?:ECC|NVLink) error|(?:GPU|device \d+) is lost|fallen off the bus|"
    r"\bCUDA_ERROR_(?:ASSERT|ILLEGAL_ADDRESS|MISALIGNED_ADDRESS|LAUNCH_FAILED|LAUNCH_TIMEOUT|HARDWARE_STACK_ERROR|"
    r"ILLEGAL_INSTRUCTION|INVALID_PC|INVALID_ADDRESS_SPACE|ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE|CONTEXT_IS_DESTROYED)"
    r"\b|\bcudaError(?:Assert|IllegalAddress|MisalignedAddress|LaunchFailure|LaunchTimeout|HardwareStackError|"
    r"IllegalInstruction|InvalidPc|InvalidAddressSpace|ECCUncorrectable|NvlinkUncorrectable|ContextIsDestroyed)\b|"
    r"\bhipError(?:Assert|IllegalAddress|LaunchFailure|LaunchTimeOut|ECCNotCorrectable)\b|"
    r"\b(?:UR_RESULT|ZE_RESULT|PI)_ERROR_DEVICE_LOST\b",
    re.MULTILINE,
)
_LOST_CODES = frozenset((214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719))
"""Of CUDA and HIP, in `torch.AcceleratorError.error_code`: after one of these, every later call raises it again."""
_NO_MEMORY_CODE = 2

_ASKED = re.compile(
    r"(?:[Tt]ried to allocate|[Uu]nable to allocate|to allocate|allocating|request for) "
    r"(?P<number>[\d,.]*\d) ?(?P<unit>bytes?|[KMGTP]i?B)?",
)
_SORT = re.compile(
    r"^(?:\w*Error: )?(?:(?P<sort>CUDA|HIP|XPU|MPS|NPU|MUSA|HPU)\b|"
    r"(?P<other>\w+) (?:out of memory\. Tried to allocate|error: device \d+ is lost))",
    re.MULTILINE,
)
_INDEX = re.compile(
    r"\bGPU (?P<a>\d+)[ ;.]|device ordinal (?P<b>\d+)|/device:GPU:(?P<c>\d+)|device cuda:(?P<d>\d+)|"
    r"device (?P<e>\d+) is lost"
)
_LAST_OF_TRACEBACK = re.compile(r"^(?P<type>[A-Za-z_][\w.]*(?:Error|Exception)): (?P<text>.+)", re.MULTILINE)


def classify(error: BaseException | None) -> Failure | None:
    """Say what an error, or one that it came from, tells about a device. A lost one weighs more than a full one.

    Args:
        error: what a test raised.
    """
    found = [failure for link, is_remote in _links(error) if (failure := _of_link(link, is_remote)) is not None]
    lost = [failure for failure in found if failure.kind == "device_lost"]
    sure = [failure for failure in found if not failure.is_doubtful]
    return next(iter(lost or sure or found), None)


def says_lost(text: str) -> bool:
    """Tell whether a framework's message says that the device is lost."""
    return _LOST.search(text[:_READ_CHARACTERS]) is not None


def _links(error: BaseException | None) -> Iterator[tuple[BaseException, bool]]:
    """Give an error and all that it was raised from or together with, the outermost first, each once.

    With it: whether another process raised it.
    """
    seen: set[int] = set()
    pending: list[tuple[object, bool]] = [(error, False)]
    while pending and len(seen) < _MOST_LINKS:
        link, is_remote = pending.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        cause = link.__cause__
        is_remote = is_remote or (cause is not None and type(cause).__name__ in _REMOTE)
        yield link, is_remote
        if cause is not None and type(cause).__name__ not in _REMOTE:
            pending.append((cause, is_remote))
        if not _is_check(link):
            pending.append((link.__context__, is_remote))
        pending += [(inner, is_remote) for inner in _members(link)]


def _members(link: BaseException) -> list[object]:
    """What it stands for: the errors of a group, or the one inside a doctest."""
    if type(link).__name__.endswith("ExceptionGroup"):
        return list(getattr(link, "exceptions", ()))
    if type(link).__module__ == "doctest" and isinstance(info := getattr(link, "exc_info", None), tuple):
        return list(info[1:2])
    if type(link).__name__ == "MultipleDoctestFailures":
        return list(getattr(link, "failures", ()))
    return []


def _is_check(link: BaseException) -> bool:
    """Whether it says that another error is not what a test expects: then that one is no trouble of the test's."""
    return isinstance(link, AssertionError) or any(
        name in _CHECKS_OF_ERRORS for name in _modules_of(link.__traceback__)
    )


def _modules_of(traceback: TracebackType | None) -> Iterator[object]:
    while traceback is not None:
        yield traceback.tb_frame.f_globals.get("__name__")
        traceback = traceback.tb_next


def _of_link(link: BaseException, is_remote: bool) -> Failure | None:
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(link).__mro__]
    if not _is_from_framework(names):
        return None
    try:
        text = str(link)
    except Exception:  # somebody's `__str__`
        text = ""
    if _HAS_TRACEBACK.match(text):
        sent = _of_traceback(text)
        if sent is not None:
            return replace(sent, is_forwarded=is_remote or _FROM_PROCESS.match(text) is not None)
    failure = _of_words(names, text[:_READ_CHARACTERS], getattr(link, "error_code", None))
    return failure and replace(failure, error=first_line(link), is_forwarded=is_remote)


def _is_from_framework(names: list[str]) -> bool:
    return names[0] in _RAISED_BY_LIBRARIES or any(map(_OF_FRAMEWORK.match, names))


def _of_traceback(text: str) -> Failure | None:
    """Read a traceback that was sent as a text: its last line that names a framework's error counts."""
    for match in reversed(list(_LAST_OF_TRACEBACK.finditer(text))):
        name = match["type"] if "." in match["type"] else f"builtins.{match['type']}"
        failure = _of_words([name], match["text"], None) if _is_from_framework([name]) else None
        if failure is not None:
            return replace(failure, error=match[0])
    return None


def _of_words(names: list[str], text: str, code: object) -> Failure | None:
    if (code in _LOST_CODES and "torch.AcceleratorError" in names) or says_lost(text):
        return Failure(kind="device_lost", error="", device=_device(text))
    if _NO_MEMORY_OF_A_DEVICE.search(text):
        return None
    asked = _asked_bytes(text)
    if _HOST.search(text):
        return Failure(kind="out_of_memory", error="", device="cpu", asked_bytes=asked)
    is_type = any(_is_memory_type(name) for name in names)
    is_code = code == _NO_MEMORY_CODE and "torch.AcceleratorError" in names
    if is_type or is_code or _OUT_OF_MEMORY.search(text):
        return Failure(kind="out_of_memory", error="", device=_device(text), asked_bytes=asked)
    if "builtins.MemoryError" in names:
        return Failure(kind="out_of_memory", error="", device="cpu", asked_bytes=asked)
    if _MAYBE_OUT_OF_MEMORY.search(text):
        return Failure(kind="out_of_memory", error="", device=_device(text), is_doubtful=True)
    return None


def _is_memory_type(name: str) -> bool:
    """Whether a type says it by its name: `torch.cuda.OutOfMemoryError`, `cupy.cuda.memory.OutOfMemoryError`."""
    return name.endswith(".OutOfMemoryError") or (name.startswith("pycuda.") and name.endswith(".MemoryError"))


def _device(text: str) -> str:
    sort = _SORT.search(text)
    found = _INDEX.search(text)
    index = next((group for group in found.groups() if group is not None), "") if found else ""
    if sort is None and not index and not re.search(r"\bCUDA|\bcuda|\bCUBLAS|\bCUDNN|\bCUFFT", text):
        return ""
    name = (sort["sort"] or sort["other"]).lower() if sort else "cuda"
    name = "cuda" if name == "hip" else name
    return f"{name}:{index}" if index and name != "mps" else name


def _asked_bytes(text: str) -> int | None:
    match = _ASKED.search(text)
    if match is None:
        return None
    number, unit = match["number"].replace(",", ""), match["unit"] or "B"
    factor = 1024 if unit.startswith("P") else 1
    unit = "B" if unit.startswith("byte") else unit.replace("P", "T")
    try:
        return factor * parse_size(f"{number}{unit}", "a size in an error")
    except InputError:
        return None
