"""Compiles the simulated accelerator on demand and keeps the result."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("simgpu.cpp")
CACHE_VARIABLE = "GPUCLEAN_SIMGPU_CACHE"
COMPILE_TIMEOUT_S = 600
# torch's own headers warn about the first, in every compilation.
FLAGS = ("-std=c++20", "-O1", "-shared", "-fPIC", "-w", "-DAT_PER_OPERATOR_HEADERS")


class SimgpuUnavailable(Exception):
    """The simulated accelerator cannot be had here; the text says why."""


def cache_folder() -> Path:
    """Where compiled simulators are kept."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path("~/.cache/pytest-gpuclean/simgpu").expanduser()


def build() -> Path:
    """Return the compiled library, compiling it unless this torch already has one.

    Raises:
        SimgpuUnavailable: no torch, no headers, no compiler, or it does not compile.
    """
    if sys.platform != "linux":
        raise SimgpuUnavailable(f"simgpu is built on Linux only, not on {sys.platform}")
    if find_spec("torch") is None:
        raise SimgpuUnavailable("torch is not installed")
    library = cache_folder() / f"simgpu-{_key()}.so"
    if library.exists():
        return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with _locked(library.with_suffix(".lock")):
            if not library.exists():  # another process may have built it while this one waited
                _compile(library)
    except OSError as error:
        raise SimgpuUnavailable(f"cannot write the simgpu cache: {error}") from error
    return library


def _key() -> str:
    """Everything that a compiled library depends on, as a short name."""
    import torch

    parts = (
        hashlib.sha256(SOURCE.read_bytes()).hexdigest(),
        torch.__version__,
        str(torch.compiled_with_cxx11_abi()),
        platform.python_version(),
        platform.machine(),
        *FLAGS,
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time in."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file lets go of it
        yield


def _compiler() -> str:
    named = os.environ.get("CXX", "").split()
    for candidate in (*named[:1], "g++", "c++", "clang++"):
        if found := shutil.which(candidate):
            return found
    raise SimgpuUnavailable("no C++ compiler: neither $CXX nor g++, c++ or clang++ is on the PATH")


def _compile(library: Path) -> None:
    import torch

    root = Path(torch.__file__).parent
    if not (root / "include" / "ATen").is_dir():
        raise SimgpuUnavailable(f"torch {torch.__version__} came without its C++ headers")
    # Compiled beside its place and renamed into it, so that nobody ever loads half a library.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unfinished = Path(folder) / library.name
        command = [
            _compiler(),
            *FLAGS,
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
            f"-I{root / 'include'}",
            f"-I{root / 'include' / 'torch' / 'csrc' / 'api' / 'include'}",
            str(SOURCE),
            "-o",
            str(unfinished),
            f"-L{root / 'lib'}",
            "-lc10",
            "-ltorch_cpu",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise SimgpuUnavailable(f"compiling took over {COMPILE_TIMEOUT_S} s") from error
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            first = errors[0] if errors else done.stderr.strip()[-300:]
            raise SimgpuUnavailable(f"it does not compile with torch {torch.__version__}: {first}")
        unfinished.replace(library)
