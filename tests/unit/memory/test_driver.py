"""What can be asked about GPUs without initialising anything."""

import subprocess
import sys

import pytest

from pytest_gpuclean.memory.driver import active_cuda_devices, gpu_is_visible


@pytest.mark.parametrize("value", ["", " ", "-1"], ids=repr)
def test_no_gpu_is_visible_where_the_environment_hides_all(monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert not gpu_is_visible()


def test_looking_for_contexts_does_not_load_the_driver():
    code = """if True:
        from pytest_gpuclean.memory.driver import active_cuda_devices
        print(active_cuda_devices(), "libcuda.so" in open("/proc/self/maps").read())
    """
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "() False"


def test_devices_are_listed_as_numbers():
    assert all(isinstance(index, int) for index in active_cuda_devices())
