"""Compiles the stand-in for NVIDIA's library on demand and keeps the result."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("fakenvml.c")
NAME = "libnvidia-ml.so.1"
CACHE_VARIABLE = "GPUCLEAN_FAKENVML_CACHE"
COMPILE_TIMEOUT_S = 120
FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", f"-Wl,-soname,{NAME}")


class FakenvmlUnavailable(Exception):
    """The stand-in cannot be had here; the text says why."""


def cache_folder() -> Path:
    """Where compiled libraries are kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/pytest-gpuclean/fakenvml").expanduser()


def build() -> Path:
    """Return the folder with the compiled library, compiling it where it is not there yet.

    Raises:
        FakenvmlUnavailable: not Linux, no nvidia-ml-py to load it, no compiler, or it does not compile.
    """
    if sys.platform != "linux":
        raise FakenvmlUnavailable(f"it is built on Linux only, not on {sys.platform}")
    if find_spec("pynvml") is None:
        raise FakenvmlUnavailable("nvidia-ml-py is not installed")
    parts = (SOURCE.read_text(encoding="utf-8"), platform.machine(), *FLAGS)
    library = cache_folder() / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20] / NAME
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            _compile(library)
        except OSError as error:
            raise FakenvmlUnavailable(f"cannot write its cache: {error}") from error
    return library.parent


def _compile(library: Path) -> None:
    named = os.environ.get("CC", "").split()
    compiler = next(filter(None, map(shutil.which, (*named[:1], "gcc", "cc", "clang"))), None)
    if compiler is None:
        raise FakenvmlUnavailable("no C compiler: neither $CC nor gcc, cc or clang is on the PATH")
    # Compiled beside its place and renamed into it: several processes may do so at once, and none loads half of it.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unfinished = Path(folder) / NAME
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(unfinished)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise FakenvmlUnavailable(f"compiling took over {COMPILE_TIMEOUT_S} s") from error
        if done.returncode != 0:
            raise FakenvmlUnavailable(f"it does not compile: {done.stderr.strip()[-300:]}")
        unfinished.replace(library)
