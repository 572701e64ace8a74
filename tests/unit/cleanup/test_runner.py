"""A cleanup runs every step, whatever becomes of the others."""

import pytest

from pytest_gpuclean.cleanup.interface import Occasion, Skip
from pytest_gpuclean.cleanup.runner import run_cleanup

OCCASION = Occasion(level="quick")


class Step:
    def __init__(self, name, does):
        self.name, self.does, self.calls = name, does, 0

    def clean(self, occasion):
        self.calls += 1
        return self.does() if callable(self.does) else self.does


def raises(error):
    def step():
        raise error

    return step


def nothing_in_use():
    return {}


@pytest.mark.parametrize("broken", range(4))
def test_each_step_that_fails_alone_leaves_the_others(broken):
    steps = [Step(str(n), raises(OSError("busy")) if n == broken else "done it") for n in range(4)]
    result = run_cleanup(steps, OCCASION, {}, nothing_in_use)
    assert [step.calls for step in steps] == [1, 1, 1, 1]
    assert [step.status for step in result.steps] == ["failed" if n == broken else "done" for n in range(4)]
    assert result.steps[broken].detail == "OSError: busy"


def test_all_steps_may_fail():
    result = run_cleanup(
        [Step("a", raises(OSError("x"))), Step("b", raises(ValueError("y")))], OCCASION, {}, nothing_in_use
    )
    assert [(step.name, step.detail) for step in result.failed] == [("a", "OSError: x"), ("b", "ValueError: y")]


def test_an_interrupt_is_no_failure_of_a_step():
    with pytest.raises(KeyboardInterrupt):
        run_cleanup([Step("a", raises(KeyboardInterrupt()))], OCCASION, {}, nothing_in_use)


def test_a_step_that_had_nothing_to_do_says_why():
    (step,) = run_cleanup([Step("a", Skip("torch is not loaded"))], OCCASION, {}, nothing_in_use).steps
    assert (step.status, step.detail) == ("skipped", "torch is not loaded")


def test_each_step_is_credited_with_what_went_during_it():
    level = {"cuda:0": 100, "cuda:1": 50}

    def free(device, size):
        def step():
            level[device] -= size
            return "freed"

        return step

    result = run_cleanup(
        [Step("a", free("cuda:0", 30)), Step("b", free("cuda:1", 50)), Step("c", "nothing")],
        OCCASION,
        dict(level),
        lambda: dict(level),
    )
    assert [dict(step.given_back) for step in result.steps] == [{"cuda:0": 30}, {"cuda:1": 50}, {}]
    assert (result.before, result.after) == ({"cuda:0": 100, "cuda:1": 50}, {"cuda:0": 70, "cuda:1": 0})
    assert result.given_back_bytes == 80


def test_a_step_that_fails_half_way_is_credited_too():
    level = {"cuda:0": 100}

    def half():
        level["cuda:0"] = 40
        raise OSError("busy")

    (step,) = run_cleanup([Step("a", half)], OCCASION, dict(level), lambda: dict(level)).steps
    assert (step.status, dict(step.given_back)) == ("failed", {"cuda:0": 60})


def test_a_device_that_is_lost_in_the_middle_counts_as_empty():
    levels = iter([{"cuda:0": 100}, {}])
    result = run_cleanup([Step("a", "done")], OCCASION, next(levels), lambda: next(levels))
    assert result.given_back_bytes == 100


def test_growth_is_not_given_back():
    levels = iter([{"cuda:0": 100}, {"cuda:0": 130}])
    result = run_cleanup([Step("a", "done")], OCCASION, next(levels), lambda: next(levels))
    assert dict(result.steps[0].given_back) == {}
    assert result.given_back_bytes == 0


def test_a_step_without_a_name_is_told_by_its_class():
    class Nameless:
        @property
        def name(self):
            raise AttributeError("no name")

        def clean(self, occasion):
            return "done"

    (step,) = run_cleanup([Nameless()], OCCASION, {}, nothing_in_use).steps
    assert (step.name, step.status) == ("Nameless", "failed")


@pytest.mark.parametrize("answer", [None, 3, ["a"]], ids=repr)
def test_an_answer_that_is_no_text_is_told_as_text(answer):
    (step,) = run_cleanup([Step("a", answer)], OCCASION, {}, nothing_in_use).steps
    assert (step.status, step.detail) == ("done", str(answer))


@pytest.mark.parametrize(
    ("occasion", "thorough"),
    [
        (Occasion(level="quick"), False),
        (Occasion(level="quick", boundary=True), False),
        (Occasion(level="comprehensive", boundary=False), False),
        (Occasion(level="comprehensive", boundary=True), True),
        (Occasion(level="quick", boundary=False, suspected=True), True),
    ],
)
def test_compile_caches_are_cleared_at_boundaries_of_comprehensive_runs_and_for_suspects(occasion, thorough):
    assert occasion.thorough is thorough


def test_a_step_whose_gain_shows_later_is_not_measured():
    step = Step("synchronize", "2 devices")
    step.is_measured = False
    result = run_cleanup([step], OCCASION, {"cuda:0": 100}, raises(AssertionError("measured")))
    assert result.after == {"cuda:0": 100}
