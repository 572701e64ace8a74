"""Trouble of the plugin itself: taken in, and never passed on to a test."""

import pytest

from pytest_gpuclean.plugin.guard import Guard


@pytest.mark.parametrize("error", [ValueError("x"), DeprecationWarning("under -W error"), SystemExit(3)])
def test_takes_in_what_goes_wrong(error):
    noted = []
    with Guard(noted.append):
        raise error
    assert noted == [error]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.exit.Exception("stop")])
def test_lets_a_wish_to_stop_through(error):
    noted = []
    with pytest.raises(type(error)), Guard(noted.append):
        raise error
    assert noted == []


def test_lets_through_what_is_no_trouble():
    noted = []
    with pytest.raises(pytest.UsageError), Guard(noted.append, pytest.UsageError):
        raise pytest.UsageError("--gpu-leak: no such mode")
    assert noted == []


def test_takes_in_what_goes_wrong_while_the_trouble_is_noted():
    def note(error):
        raise OSError("no room")

    with Guard(note):
        raise ValueError("x")
