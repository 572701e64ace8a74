"""Whose code a frame runs: the user's, a package's, the interpreter's own. And what a place in it is called."""

from __future__ import annotations

import ast
import functools
import os
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Literal, NamedTuple

from pytest_gpuclean.units import shorten

Owner = Literal["user", "package", "python", "runner"]
"""`runner`: what calls a test; what is further out has nothing to do with the test."""

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PACKAGE_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_RUNNER_PACKAGES = ("_pytest", "pytest", "pluggy")
_TYPED_IN = ("<stdin>", "<string>", "<ipython", "<doctest")
_RUNNER_FILES = (os.path.join("unittest", "case.py"), os.path.join("unittest", "suite.py"))
_LONGEST_NAME = 100
_LARGEST_SOURCE_BYTES = 4 * 1024 * 1024


class Place(NamedTuple):
    """A line of code; what a frame says of itself, without the frame."""

    filename: str
    line: int
    function: str
    """Empty where that is not known."""


class Places:
    """Tells code apart by its file, and names places in it."""

    def __init__(self, root: str | None = None) -> None:
        """Set it up.

        Args:
            root: the folder that names of files are given from; the current one by default.
        """
        self._root = (os.getcwd() if root is None else root) + os.sep
        self._owners: dict[str, Owner] = {}
        self._functions: dict[str, list[tuple[int, int, str]]] = {}

    def owner(self, filename: str) -> Owner:
        """Say whose code a file holds."""
        known = self._owners.get(filename)
        if known is None:
            known = self._owners[filename] = self._owner(filename)
        return known

    def site(self, places: Iterable[Place]) -> str:
        """Name the innermost place in the user's code, and where that was called from in the test or fixture.

        Args:
            places: the innermost first.

        Returns:
            `helpers.py:40 in make, from test_model.py:12 in test_train`; empty where no code of the user's is there.
        """
        innermost = outermost = None
        for place in places:
            owner = self.owner(place.filename)
            if owner == "runner":
                if outermost is not None:
                    break
            elif owner == "user":
                innermost = innermost or place
                outermost = place
        if innermost is None or outermost is None:
            return ""
        innermost, outermost = self._whole(innermost), self._whole(outermost)
        is_one = innermost.filename == outermost.filename and innermost.function == outermost.function
        return self.name(innermost) if is_one else f"{self.name(innermost)}, from {self.name(outermost)}"

    def standing(self, places: Iterable[Place]) -> Place | None:
        """Find where a thread stands: in the user's code if it runs any, else in a package's, else wherever it is."""
        best: dict[Owner, Place] = {}
        for place in places:
            best.setdefault(self.owner(place.filename), place)
        order: tuple[Owner, ...] = ("user", "package", "runner", "python")
        return next((best[owner] for owner in order if owner in best), None)

    def call(self, place: Place) -> str:
        """Name a place by its function first: `read() at loader.py:41`."""
        return f"{shorten(place.function, _LONGEST_NAME)}() at {self._file(place)}"

    def name(self, place: Place) -> str:
        """Name a place: `test_model.py:12 in test_train`."""
        place = self._whole(place)
        words = self._file(place)
        return f"{words} in {shorten(place.function, _LONGEST_NAME)}" if place.function else words

    def _file(self, place: Place) -> str:
        file = place.filename
        file = file[len(self._root) :] if file.startswith(self._root) else os.path.basename(file)
        return f"{shorten(file, _LONGEST_NAME)}:{place.line}"

    def _owner(self, filename: str) -> Owner:
        if filename.startswith(_OWN_FOLDER) or filename.endswith(_RUNNER_FILES):
            return "runner"
        if filename.startswith("<") and not filename.startswith(_TYPED_IN):  # frozen modules, generated code
            return "python"
        folder = next((folder for folder in _PACKAGE_FOLDERS if folder in filename), None)
        if folder is not None:
            name = filename.rpartition(folder)[2].partition(os.sep)[0]
            return "runner" if name.removesuffix(".py") in _RUNNER_PACKAGES else "package"
        return "python" if filename.startswith(self._python_folders) else "user"

    def _whole(self, place: Place) -> Place:
        return place if place.function else place._replace(function=self._function_at(place.filename, place.line))

    @functools.cached_property
    def _python_folders(self) -> tuple[str, ...]:
        folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
        folders |= {os.path.realpath(folder) for folder in folders if folder}
        return tuple(folder + os.sep for folder in folders if folder)

    def _function_at(self, filename: str, line: int) -> str:
        if filename not in self._functions:
            self._functions[filename] = _functions_in(filename)
        around = [found for found in self._functions[filename] if found[0] <= line <= found[1]]
        return max(around)[2] if around else ""


def places_of(frame: FrameType | None) -> Iterator[Place]:
    """Give the places of a frame and of those that called it, the innermost first."""
    while frame is not None:
        yield Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name)
        frame = frame.f_back


def caller_places() -> Iterator[Place]:
    """Give the places of whoever calls, the innermost first."""
    return places_of(sys._getframe(1))


def _functions_in(filename: str) -> list[tuple[int, int, str]]:
    """List the functions of a source file with their first and last line; none where it cannot be read."""
    try:
        if os.path.getsize(filename) > _LARGEST_SOURCE_BYTES:
            return []
        with tokenize.open(filename) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        (node.lineno, node.end_lineno or node.lineno, node.name)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
