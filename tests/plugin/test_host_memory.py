"""`--gpu-host-wide=drop-caches,gpu-reset`: on a file and a program of the test's own, never on the machine's."""

import pytest
from unit.cleanup.fakesmi import FakeSmi

CONFTEST = """
from pytest_gpuclean.cleanup.nvidia_smi import NvidiaSmi
from pytest_gpuclean.cleanup.system import DropCachesCleaner, GpuResetCleaner, SystemCleaners

@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session):
    started = session.config.pluginmanager.get_plugin("gpuclean-processes")
    if started is not None:
        assert type(started.host_memory.cleaners) is SystemCleaners
        started.host_memory.cleaners = SystemCleaners(
            DropCachesCleaner({kernel!r}, sync=lambda: None), GpuResetCleaner(NvidiaSmi({smi!r}), [])
        )
"""


@pytest.fixture
def machine(suite, tmp_path):
    suite.kernel = tmp_path / "drop_caches"
    suite.kernel.write_text("")
    suite.smi = FakeSmi(tmp_path)
    suite.conftest(CONFTEST.format(kernel=str(suite.kernel), smi=str(suite.smi.path)))
    for name in ("test_a", "test_b"):
        suite.write("def test_it(): pass", name)
    return suite


def lines(result, start):
    return [line for line in result.outlines if line.startswith(start)]


def test_it_is_done_at_the_start_after_modules_and_at_the_end_and_a_reset_once(machine):
    result = machine.run("--gpu-clean=comprehensive", "--gpu-host-wide=drop-caches,gpu-reset")
    assert result.ret == 0
    assert machine.kernel.read_text() == "3\n"
    assert machine.smi.resets == 1
    assert len(lines(result, "gpuclean: --gpu-host-wide: drop-caches: the kernel's caches")) == 3
    assert len(lines(result, "gpuclean: --gpu-host-wide: gpu-reset: the GPUs were reset")) == 1
    assert "beyond the run's own: drop-caches, gpu-reset;" in result.stdout.str()


def test_nothing_is_done_that_is_not_named_or_under_another_level(machine):
    machine.run("--gpu-clean=comprehensive")
    machine.run("--gpu-clean=comprehensive", "--gpu-host-wide=port:1")
    result = machine.run("--gpu-clean=quick", "--gpu-host-wide=drop-caches,gpu-reset")
    assert machine.kernel.read_text() == ""
    assert machine.smi.calls == []
    result.stdout.fnmatch_lines(["*drop-caches, gpu-reset (not now: that takes --gpu-clean=comprehensive)*"])


def test_what_cannot_be_done_is_told_once_and_changes_no_outcome(machine):
    machine.kernel.unlink()
    machine.smi.answers("--query-compute-apps", "4711, /usr/bin/python3\n")
    result = machine.run("--gpu-clean=comprehensive", "--gpu-host-wide=drop-caches,gpu-reset")
    assert result.ret == 0
    assert len(lines(result, "TROUBLE --gpu-host-wide: drop-caches failed: ")) == 1
    (line,) = lines(result, "TROUBLE --gpu-host-wide: gpu-reset failed: ")
    assert "in use by pid 4711 (python3); cleared instead: nothing" in line
    assert machine.smi.resets == 0


@pytest.mark.parametrize("workers", [["-n0"], ["-n2"]])
def test_workers_do_not_reach_out(machine, workers):
    pytest.importorskip("xdist")
    result = machine.run_apart("-p", "xdist", *workers, "--gpu-clean=comprehensive", "--gpu-host-wide=gpu-reset")
    assert result.ret == 0
    assert machine.smi.resets == 1
