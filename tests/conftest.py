"""What every test folder shares."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = "pytester"

TESTS = Path(__file__).parent

# A run inside of a worker's test is a run of its own, with workers of its own.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
    os.environ.pop(name, None)

# pytester gives each test a home of its own, and a simulator compiled for an earlier test would not be found there.
for part in ("simgpu", "fakenvml"):
    cache = Path("~/.cache/pytest-gpuclean").expanduser() / part
    os.environ.setdefault(f"GPUCLEAN_{part.upper()}_CACHE", str(cache))


@pytest.fixture(scope="session")
def simgpu():
    """The simulated accelerator, as torch's own in this process."""
    pytest.importorskip("torch")
    import simgpu

    reason = simgpu.unavailable_reason()
    if reason is not None:
        pytest.skip(f"no simulated accelerator: {reason}")
    simgpu.load()
    return simgpu


@pytest.fixture
def hears_sigint() -> Iterator[None]:
    """Let what is started hear SIGINT: in the background of a shell it is ignored, and by whatever is started then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Leave nothing of earlier tests to be collected in the middle of this one."""
    gc.collect()
    yield
    gc.collect()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "not_measured: coverage's own work at the end of a process is in its way")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, so that no worker is left with it at the end."""
    items.sort(key=lambda item: "plugin/test_zoo.py" not in item.nodeid)
    if "COVERAGE_RUN" in os.environ:
        for item in items:
            if item.get_closest_marker("not_measured"):
                item.add_marker(pytest.mark.skip(reason="coverage's own work at the end of a process is in its way"))
