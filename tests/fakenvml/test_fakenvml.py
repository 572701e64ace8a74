"""The plugin's view through the real nvidia-ml-py, over a driver library that is not NVIDIA's."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from unit.fakepynvml import CODES

import fakenvml
from fakenvml import World

REASON = fakenvml.unavailable_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no stand-in for the driver: {REASON}")

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent
MiB = 1024**2
GiB = 1024**3
FUNCTIONS = (
    "nvmlInit",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)


@pytest.fixture
def world(tmp_path):
    """Two cards, the second cut in two."""
    world = World(tmp_path).card("GPU-a", used=GiB).card("GPU-b", name="Fake A100", mig="on")
    world.instance(1, 0, "MIG-a").instance(1, 2, "MIG-b", ids=(5, 0))
    world.process(4711, 512 * MiB).process(4711, 512 * MiB, kind="graphics").process(4712, None)
    return world.process(5000, 7 * MiB, card="1.2").write()


def ask(world, code, **environ):
    """Run code in a process of its own, whose `nvml` sees the world; give what it leaves in `answer`."""
    head = """
        import dataclasses, json, sys
        from fakenvml import World
        from pathlib import Path
        from pytest_gpuclean.memory.nvml import Nvml
        nvml = Nvml()
    """
    same = f"world = World(Path({str(world.folder)!r}), {world.lines!r})\n"
    text = f"{same}{textwrap.dedent(code)}\nprint(json.dumps(answer))"
    environment = {**os.environ, **world.environment(), "PYTHONPATH": f"{TESTS}{os.pathsep}{PACKAGE}", **environ}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + text],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_real_module_reads_what_the_driver_says(world):
    use = ask(world, "answer = [dataclasses.asdict(use) for use in nvml.use()]")
    assert [(use["card"]["uuid"], use["card"]["name"], use["card"]["used_bytes"]) for use in use] == [
        ("GPU-a", "Fake H100", GiB + 512 * MiB),
        ("GPU-b", "Fake A100", 7 * MiB),
        ("MIG-a", "Fake MIG slice 0", 0),
        ("MIG-b", "Fake MIG slice 2", 7 * MiB),
    ]
    assert use[0]["users"] == [
        {"pid": 4711, "used_bytes": 512 * MiB, "kind": "compute+graphics"},
        {"pid": 4712, "used_bytes": None, "kind": "compute"},
    ]
    assert use[3]["users"] == [{"pid": 5000, "used_bytes": 7 * MiB, "kind": "compute"}]
    assert use[3]["card"]["legacy_uuid"] == "MIG-GPU-b/5/0"
    assert [found["card"]["trouble"] for found in use] == [[]] * 4


@pytest.mark.parametrize(
    ("text", "uuids"), [("GPU-", ["GPU-a"]), ("MIG-b", ["MIG-b"]), ("0", ["GPU-a"]), ("1", ["MIG-a"]), ("9", [])]
)
def test_the_variable_of_cuda_is_read(world, text, uuids):
    if text == "GPU-":
        world.lines = world.lines[:1]
        world.write()
    assert ask(world, "answer = [card.uuid for card in nvml.visible()]", CUDA_VISIBLE_DEVICES=text) == uuids


def test_the_world_may_change_in_mid_run(world):
    code = """
        before = nvml.devices()[0].used_bytes
        world.process(77, 2**30).write()
        answer = [before, nvml.devices()[0].used_bytes, nvml.users(nvml.devices()[0])[-1].pid]
        world.clear().write()
        answer.append(len(nvml.devices()))
    """
    assert ask(world, code) == [GiB + 512 * MiB, 2 * GiB + 512 * MiB, 77, 0]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_error_of_the_library_in_mid_run_is_a_sentence(world, function):
    code = f"""
        before = nvml.use()
        lines = list(world.lines)
        answer = {{}}
        for code in {CODES!r}:
            world.lines[:] = lines
            world.error({function!r}, code).write()
            found = (Nvml() if {function!r} == "nvmlInit" else nvml).use()
            if isinstance(found, tuple):
                parts = [*[reason for use in found for reason in use.card.trouble]]
                parts += [use.users.reason for use in found if not isinstance(use.users, tuple)]
            else:
                parts = [found.reason]
            answer[code] = parts
        world.lines[:] = lines
        world.write()
        assert nvml.use() == before
    """
    is_quiet = {
        "nvmlDeviceGetMigMode": {3, 13},
        "nvmlDeviceGetMigDeviceHandleByIndex": {6},
        "nvmlDeviceGetGraphicsRunningProcesses": {3, 13},
        "nvmlDeviceGetMPSComputeRunningProcesses": {3, 13},
    }.get(function, set())
    for code, reasons in ask(world, code).items():
        if int(code) in is_quiet:
            continue
        assert reasons, code
        for reason in reasons:
            is_no_driver = function == "nvmlInit" and code == "12" and "no NVIDIA driver" in reason
            assert is_no_driver or (f"{function} failed: " in reason or f"{function}_v2 failed: " in reason), code
            assert is_no_driver or f"(NVML error {code})" in reason or code == "13"


def test_a_driver_that_hangs_is_given_up(world):
    code = """
        import time
        nvml.devices()
        world.delay("nvmlDeviceGetUUID", 30).write()
        begin = time.monotonic()
        first = nvml.devices()
        seconds = time.monotonic() - begin
        again = nvml.devices()
        answer = [seconds, first.reason, time.monotonic() - begin - seconds, again == first]
    """
    seconds, reason, again_seconds, is_same = ask(world, code)
    assert 2.0 <= seconds < 20
    assert reason == "the driver did not answer nvmlDeviceGetUUID within 2.00 s, and is not asked again in this run"
    assert again_seconds < 1.5, "it was asked again"
    assert is_same


def test_without_the_library_there_is_no_driver(world):
    code = "answer = [nvml.devices().reason, nvml.given_up.reason]"
    reason = "there is no NVIDIA driver here (libnvidia-ml was not found)"
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a driver here")
    assert ask(world, code, LD_LIBRARY_PATH="") == [reason, reason]


def test_the_simulated_accelerator_of_a_child_is_there_and_goes_with_the_child(world, simgpu):
    world.clear().card("GPU-a").card("GPU-b").published().write()
    code = """
        import subprocess
        child = subprocess.Popen(
            [sys.executable, "-c", "import simgpu; simgpu.load(); import torch; "
             "kept = torch.empty(64 * 2**20, dtype=torch.uint8, device='simgpu:1'); print('up', flush=True); input()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        def seen():
            return [[card.used_bytes, [(user.pid == child.pid, user.used_bytes) for user in nvml.users(card)]]
                    for card in nvml.devices()]
        answer = [seen()]
        child.kill()
        child.wait()
        answer.append(seen())
    """
    before, after = ask(world, code)
    assert before == [[0, [[True, 0]]], [64 * MiB, [[True, 64 * MiB]]]]
    assert after == [[0, []], [0, []]]
