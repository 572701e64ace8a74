"""One place to ask where something was made, and to learn what it would take to know."""

import pytest

from pytest_gpuclean.memory.sites import Sites
from pytest_gpuclean.memory.storages import StorageReaders

numpy = pytest.importorskip("numpy")


def site_of(sites, value):
    return sites.site_of(StorageReaders().reader_of(type(value))(value).identity, value)


def test_a_run_of_a_suspect_is_recorded_until_that_is_forgotten():
    sites = Sites(is_on=True, confirms=1)
    with sites.recording({"cpu"}) as is_recorded:
        array = numpy.ones(1000)
    assert is_recorded
    assert "test_sites.py" in site_of(sites, array)
    sites.forget()
    assert site_of(sites, array) == ""


def test_arrays_are_not_recorded_where_the_leak_is_on_a_device():
    sites = Sites(is_on=True, confirms=1)
    with sites.recording({"cuda:0"}) as is_recorded:
        array = numpy.ones(1000)
    assert is_recorded
    assert site_of(sites, array) == ""


@pytest.mark.parametrize(("is_on", "devices"), [(False, {"cpu"}), (True, ())])
def test_nothing_is_recorded_where_nobody_asks(is_on, devices):
    sites = Sites(is_on=is_on, confirms=1)
    sites.begin_window()
    with sites.recording(devices) as is_recorded:
        array = numpy.ones(1000)
    assert not is_recorded
    assert site_of(sites, array) == ""
    sites.close()


ADVICE = "where it was made is recorded when a suspect runs again: --gpu-leak-confirm=1"


@pytest.mark.parametrize(
    ("is_on", "confirms", "device", "said"),
    [
        (True, 0, "cpu", ADVICE),
        (True, 0, "xpu:0", ADVICE),
        (True, 1, "cpu", ""),
        (True, 0, "cuda:0", ""),
        (False, 0, "cpu", ""),
    ],
)
def test_what_it_would_take_is_said(is_on, confirms, device, said):
    assert Sites(is_on=is_on, confirms=confirms).lack(device) == said
