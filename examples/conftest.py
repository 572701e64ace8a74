"""The device that the examples run on: the accelerator where there is one, else the CPU."""

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)
