from fakegpu import pytest_gpuclean_probes  # noqa: F401
