"""Seconds are told as those of one machine, whatever the hour."""

import pytest

from benchmarks.pace import LOOP_SECONDS, Pace


def test_what_takes_as_long_as_the_loop_takes_as_long_as_it_takes_there():
    pace = Pace()
    for _ in range(3):
        pace.note()
    assert pace.quickest_seconds > 0
    assert pace.even(pace.quickest_seconds) == pytest.approx(LOOP_SECONDS)
    assert pace.even(10 * pace.quickest_seconds) == pytest.approx(10 * LOOP_SECONDS)
