"""Every kind of holder has advice."""

import pytest

from pytest_gpuclean.leaks.causes import KINDS, cause_of
from pytest_gpuclean.reports.advice import ADVICE


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_advice(kind):
    assert cause_of(kind) in ADVICE


def test_no_advice_is_for_nothing():
    assert set(ADVICE) == {cause_of(kind) for kind in KINDS}


def test_nobody_is_told_to_cancel_a_future_that_has_its_result():
    assert cause_of("future") == "instance-attribute"
    assert cause_of("asyncio task") == "async-task"
