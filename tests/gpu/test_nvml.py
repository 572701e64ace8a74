"""The driver's view, over a real driver: what CUDA itself says is what it has to match."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from pytest_gpuclean.memory.card_users import unaccounted
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import GiB, MiB

CUDA = """
import ctypes, json, uuid
cuda = ctypes.CDLL("libcuda.so.1")
count, found = ctypes.c_int(), []
if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
    for index in range(count.value):
        device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        (getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid)(ctypes.byref(raw), device)
        found.append(str(uuid.UUID(bytes=bytes(raw))))
print(json.dumps(found))
"""
USES = """
import sys, time, torch
kept = torch.empty(512 * 2**20, dtype=torch.uint8, device="cuda:0")
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cards():
    found = Nvml().devices()
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    return found


@pytest.fixture(scope="module")
def torch(cards):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return torch


def values(cards):
    whole = [card.uuid for card in cards if not card.is_mig]
    cut = [card.uuid for card in cards if card.is_mig]
    texts = [None, "", " ", "-1", "0", " 0 ", "+0", "00", "0,0", "0,-1", "0,99", "99", "0x", "0;1", "none", ",0", "0,"]
    texts += [
        whole[0],
        whole[0][:12],
        "GPU-",
        "GPU-nothing",
        f"{whole[0]},{whole[0]}",
        f"0,{whole[0]}",
        f"{whole[0]},0",
    ]
    texts += ["1", "1,0", "0,1,0", ",".join(reversed(whole))] if len(whole) > 1 else []
    return texts + [text for uuid in cut for text in (uuid, uuid[:12])]


def test_cuda_sees_the_cards_that_it_is_said_to_see(cards):
    wrong = []
    for text in values(cards):
        environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | ({} if text is None else {"CUDA_VISIBLE_DEVICES": text})
        done = subprocess.run([sys.executable, "-c", CUDA], env=environ, capture_output=True, text=True, check=True)
        ours = [card.uuid.partition("-")[2] for card in Nvml(environ=environ).visible()]
        if ours != json.loads(done.stdout):
            wrong.append((text, ours, json.loads(done.stdout)))
    assert wrong == []


def test_a_card_has_its_figures(cards):
    for card in cards:
        assert card.name
        assert card.trouble == ()
        assert card.is_partitioned or 0 <= card.used_bytes <= card.total_bytes


def test_what_a_child_uses_is_seen_or_said_to_be_unknown_and_comes_back(torch, cards):
    nvml = Nvml()
    before = nvml.visible()[0]
    child = subprocess.Popen([sys.executable, "-c", USES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        child.stdout.readline()
        (during,) = nvml.use_of([before])
        assert during.card.used_bytes - before.used_bytes >= 512 * MiB
        rest = unaccounted(during, 512 * MiB, child.pid)
        assert isinstance(rest, Unavailable) or 0 < rest < 4 * GiB, rest
        print("unaccounted for:", rest)
    finally:
        child.communicate("")
    (after,) = nvml.use_of([before])
    assert after.card.used_bytes - before.used_bytes < 64 * MiB


def test_the_memory_of_a_child_that_a_test_left_is_its_leak_where_the_driver_tells(torch, cards, pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p gpuclean -p no:cacheprovider")
    pytester.makepyfile(
        test_it=textwrap.dedent(f"""
        import subprocess, sys
        def test_leaves():
            child = subprocess.Popen(
                [sys.executable, "-c", {USES!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            child.stdout.readline()
            test_leaves.child = child
        """)
    )
    result = pytester.runpytest_subprocess("--gpu-clean=quick", timeout=300)
    result.stdout.fnmatch_lines(["STOPPED test_it.py::test_leaves: python -c*"])
    if "of GPU memory" in result.stdout.str():
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["gpuclean: leaked * on cuda:0 in a child process (pid *"])
    else:
        result.assert_outcomes(passed=1)
