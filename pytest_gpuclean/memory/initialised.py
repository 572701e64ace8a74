"""Which kinds of devices this process has initialised, and where in the code: asked and noted without any effect.

torch keeps a list of calls to make as soon as it initialises a device. A call of ours at its end sees who did that, on
the stack. Nothing of torch is replaced, and the list is there for just that, although its name is private.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType, ModuleType

from pytest_gpuclean.memory.driver import active_cuda_devices
from pytest_gpuclean.memory.interface import loaded, member

_TORCH_BACKENDS = ("cuda", "xpu", "mtia", "hpu")
_JAX_ON_CPU = {"cpu", "interpreter"}
_DRIVER_USERS = frozenset({"cuda", "cupy", "numba.cuda", "paddle", "pycuda", "tensorflow"})
"""Packages that make contexts past torch."""
_BETWEEN = ("torch", "importlib", "pytest_gpuclean")
"""Packages through which somebody initialises a device."""
_RUNNERS = ("_pytest", "pytest", "pluggy", "xdist", "execnet")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the code a device was initialised."""

    at: str
    """`conftest.py:3`, or `.../transformers/utils.py:80` where that is a library."""
    reached_from: str = ""
    """The user's own line, where a library did it; empty elsewhere."""

    def __str__(self) -> str:
        return f"{self.at}, reached from {self.reached_from}" if self.reached_from else self.at


def initialised_devices() -> tuple[str, ...]:
    """Name the kinds of devices that this process has initialised, by whatever framework: `cuda`, `tpu`."""
    found = dict.fromkeys(name for name, module in _torch_modules() if _is_initialised(module))
    bridge = loaded("jax._src.xla_bridge")
    backends = member(bridge, "_backends") if bridge is not None else None
    found.update(dict.fromkeys(sorted(set(backends) - _JAX_ON_CPU) if type(backends) is dict else ()))
    # Asking the driver takes 0.1 ms, most of it the search for its library.
    if "cuda" not in found and not _DRIVER_USERS.isdisjoint(sys.modules) and active_cuda_devices():
        found["cuda"] = None
    return tuple(found)


class InitTrace:
    """Notes where devices are initialised. A finder of modules that finds none: by it we see what is imported.

    Args:
        root: the folder to which files are told relative.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lists: dict[str, object] = {}
        """By backend: the list to which our call was added."""
        self.is_open = False
        """Whether we look out now."""
        self._places: dict[str, Place] = {}

    @property
    def places(self) -> Mapping[str, Place]:
        """Where each kind of device was initialised, as far as its framework lets one see that."""
        return self._places

    def begin(self) -> None:
        """Look out from now on."""
        self.is_open = True
        sys.meta_path.insert(0, self)
        self._arm()

    def end(self) -> None:
        """Look no longer."""
        self.is_open = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self,
        name: str,  # noqa: ARG002
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """Find nothing. While torch imports its last modules, the first of them are there already."""
        if "torch" in sys.modules:
            self._arm()
        return None

    def _arm(self) -> None:
        for backend, module in _torch_modules():
            calls = member(module, "_queued_calls")
            if type(calls) is list and self._lists.get(backend) is not calls:
                self._lists[backend] = calls
                # Not by _lazy_call(): that formats the stack (some ms), and takes a lock which somebody may have.
                calls.append((partial(self._note, backend, module.__name__.partition(".")[0]), []))

    def _note(self, backend: str, package: str) -> None:
        """Called by torch when it initialises the backend."""
        if not self.is_open:
            return
        try:
            place = place_of(sys._getframe(1), self._root, between=(*_BETWEEN, package))
            if place is not None:
                self._places.setdefault(backend, place)
        except Exception:  # nothing of ours may come in the way of a framework
            return


def place_of(frame: FrameType | None, root: str, between: tuple[str, ...] = _BETWEEN) -> Place | None:
    """Say where the code is that has called: the first line that is no framework's, and the user's own before it.

    Args:
        frame: the innermost one.
        root: the folder to which files are told relative.
        between: packages that are passed over.
    """
    at = ""
    for package, file, line in _lines(frame):
        if package in between or file.startswith("<"):
            continue
        if not at:
            if package in _RUNNERS:
                return None
            at = f"{_relative(file, root)}:{line}"
            if not _is_library(file):
                return Place(at)
        elif package not in _RUNNERS and not _is_library(file):
            return Place(at, f"{_relative(file, root)}:{line}")
    return Place(at) if at else None


def _lines(frame: FrameType | None) -> Iterator[tuple[str, str, int]]:
    while frame is not None:
        name = frame.f_globals.get("__name__")
        yield str(name).partition(".")[0], frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


def _torch_modules() -> Iterator[tuple[str, ModuleType]]:
    """Give torch's backends that are imported, also while torch itself still is being imported."""
    for backend in _TORCH_BACKENDS:
        module = loaded(f"torch.{backend}")
        if module is not None:
            yield backend, module
    torch = loaded("torch")
    name_of = member(torch, "_C", "_get_privateuse1_backend_name") if torch is not None else None
    if torch is not None and name_of is not None:
        name = name_of()
        module = member(torch, name)
        if isinstance(module, ModuleType):
            yield name, module


def _is_initialised(module: ModuleType) -> bool:
    ask = member(module, "is_initialized")
    try:
        return ask is not None and ask() is True
    except Exception:  # a stand-in of a test
        return False


def _is_library(file: str) -> bool:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return any(file.startswith(folder + os.sep) for folder in folders if folder)


def _relative(file: str, root: str) -> str:
    if file.startswith(root + os.sep):
        return os.path.relpath(file, root)
    return os.path.join("...", *file.split(os.sep)[-3:]) if _is_library(file) else file
