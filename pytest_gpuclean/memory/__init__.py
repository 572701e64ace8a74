"""What is in use: one probe a framework."""

from __future__ import annotations

from pytest_gpuclean.memory.cupy import CupyProbe
from pytest_gpuclean.memory.interface import loaded
from pytest_gpuclean.memory.jax import JaxProbe
from pytest_gpuclean.memory.tensorflow import TensorFlowProbe
from pytest_gpuclean.memory.torch import TorchProbe, accelerator_is_expected

DEVICE_PROBES = (TorchProbe, TensorFlowProbe, JaxProbe, CupyProbe)


def run_has_accelerator() -> bool:
    """Tell whether the frameworks that are loaded could use an accelerator here, without initialising one."""
    torch = loaded("torch")
    if torch is not None:
        return accelerator_is_expected(torch)
    return loaded("cupy") is not None
