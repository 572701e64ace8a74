from fakegpu import pytest_gpuclean_probes  # noqa: F401

from pytest_gpuclean import Reading


class Probe:
    source = "other"

    def read(self):
        yield Reading(device="other:0", source="other", allocated_bytes=7, reserved_bytes=7)

    def reset_peak(self):
        pass


class Cleaner:
    name = "pool"

    def clean(self, occasion):
        return "emptied"


class After:
    name = "later pool"

    def clean(self, occasion):
        with open("later-pool", "a") as file:
            file.write("x")
        return "emptied"


class Others:
    def pytest_gpuclean_probes(self, config):
        return [Probe()]

    def pytest_gpuclean_cleaners(self, config):
        return [Cleaner(), After()]

    def pytest_gpuclean_leak(self, item, leak):
        return "known to the conftest" if "excused" in item.name else None


def pytest_configure(config):
    config.pluginmanager.register(Others())
