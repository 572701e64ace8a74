"""Inner test suites: what they are given, and how they run."""

import contextlib
import gc
import importlib
import pkgutil
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_gpuclean

# An inner run in this process imports what is not there yet, and leaves it behind: the next run would import it anew.
for module in pkgutil.walk_packages(pytest_gpuclean.__path__, "pytest_gpuclean."):
    # Some of the functions for scripts mark this process with their import: the first one stays out.
    if not module.name.endswith("__main__") and ".scripts" not in module.name:
        importlib.import_module(module.name)
importlib.import_module("psutil")
with contextlib.suppress(ImportError):  # it refuses to be loaded twice
    importlib.import_module("numpy")

HEADER = """\
import pytest
import fakegpu
from fakegpu import KiB, MiB, allocate

KEPT = []

"""


class Suite:
    """An inner test suite on the fake device."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, outer: pytest.Config) -> None:
        self.pytester = pytester
        # Python takes a file for unchanged that is as long as before and no second younger.
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        # Only what a test asks for with `-p`: other plugins that are installed here change the order and the output.
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        for name in ("GITHUB_ACTIONS", "CI_NODE_INDEX", "CIRCLE_NODE_INDEX", "BUILDKITE_PARALLEL_JOB"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PYTEST_ADDOPTS", "-p gpuclean -p no:cacheprovider -p no:faulthandler")
        # flaky replaces a function of pytest's in this process, which then needs it.
        self._also_here = ["-p", "flaky"] if outer.pluginmanager.has_plugin("flaky") else []
        pytester.syspathinsert()
        pytester.makepyfile(fakegpu=Path(__file__).with_name("fakegpu.py").read_text(encoding="utf-8"))
        self.conftest("")

    def write(self, text: str, name: str = "test_it", header: str = HEADER) -> None:
        """Write a test module; `pytest`, `allocate`, `MiB` and a global list `KEPT` are there already."""
        self.pytester.makepyfile(**{name: f"{header}\n{_dedent(text)}"})

    def ini(self, *lines: str) -> None:
        """Write the ini file."""
        self.pytester.makeini("\n".join(["[pytest]", *lines]))

    def conftest(self, text: str) -> None:
        """Write a conftest that brings the fake device and then does this."""
        header = "import pytest\nimport fakegpu\nfrom fakegpu import pytest_gpuclean_probes\n"
        self.pytester.makeconftest(f"{header}\n{_dedent(text)}")

    def run(self, *arguments: str, settle: bool = False) -> pytest.RunResult:
        """Run it in this process; nothing on the fake device comes back late, so nothing waits."""
        gc.freeze()  # the outer suite is none of its business, and dear to collect
        try:
            return self.pytester.runpytest_inprocess(*self._also_here, *self._arguments(arguments, settle))
        finally:
            gc.unfreeze()

    def run_apart(self, *arguments: str, settle: bool = False) -> pytest.RunResult:
        """Run it in a process of its own."""
        return self.pytester.runpytest_subprocess(*self._arguments(arguments, settle), timeout=120)

    def _arguments(self, arguments: tuple[str, ...], settle: bool) -> list[str]:
        return [*arguments, *([] if settle else ["--gpu-settle=0"])]


def _dedent(text: str) -> str:
    return textwrap.dedent(text).strip("\n") + "\n"


@pytest.fixture
def own_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder for what inner runs write down about themselves: other runs sweep up what dead ones have left there.

    With a short name, as sockets are made in there.
    """
    with tempfile.TemporaryDirectory(prefix="gpuclean-", ignore_cleanup_errors=True) as folder:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture
def suite(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    own_temporary_folder: None,  # noqa: ARG001
) -> Suite:
    """An inner test suite on the fake device."""
    return Suite(pytester, monkeypatch, pytestconfig)


def without_times(text: str) -> str:
    """A run's output less what differs from run to run."""
    return re.sub(r"\d+\.\d+ ?m?s\b", "0 s", text)
