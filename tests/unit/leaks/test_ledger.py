"""The ledger: every movement has an owner."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytest_gpuclean.leaks.ledger import Ledger
from pytest_gpuclean.model.memory import ARRAYS, HEAP, Account
from pytest_gpuclean.units import MiB

GPU = Account("cuda:0", "torch")
OTHER = Account("cuda:1", "torch")


def ledger_at(level=0, module="test_a.py"):
    ledger = Ledger()
    ledger.open(module, {GPU: level})
    return ledger


def test_a_window_begins_with_what_is_in_use():
    ledger = ledger_at(100)
    ledger.book({GPU: 130})
    assert ledger.test == {GPU: 30}


def test_the_next_window_does_not_pay_for_this_one():
    ledger = ledger_at(0)
    ledger.book({GPU: 30})
    ledger.close()
    ledger.open("test_a.py", {GPU: 30})
    ledger.book({GPU: 31})
    assert ledger.test == {GPU: 1}


def test_what_a_wider_fixture_brings_up_is_its_own():
    ledger = ledger_at(0)
    ledger.book({GPU: 1})
    ledger.begin_setup(1, "model", "module")
    ledger.book({GPU: 65})
    ledger.end_setup(1)
    ledger.book({GPU: 67})
    assert ledger.fixtures[1].held == {GPU: 64}
    assert ledger.test == {GPU: 3}


def test_a_fixture_that_comes_up_inside_another_owns_its_own_part():
    ledger = ledger_at(0)
    ledger.begin_setup(1, "outer", "module")
    ledger.book({GPU: 10})
    ledger.begin_setup(2, "inner", "session")
    ledger.book({GPU: 30})
    ledger.end_setup(2)
    ledger.book({GPU: 35})
    ledger.end_setup(1)
    assert ledger.fixtures[1].held == {GPU: 15}
    assert ledger.fixtures[2].held == {GPU: 20}
    assert ledger.test == {}


def test_what_a_fixture_gives_back_at_its_end_is_booked_to_it():
    ledger = ledger_at(0)
    ledger.begin_setup(1, "model", "module")
    ledger.book({GPU: 64})
    ledger.end_setup(1)
    assert ledger.begin_release(1)
    ledger.book({GPU: 14})
    ledger.end_releases()
    ledger.book({GPU: 16})
    assert [share.held for share in ledger.ended] == [{GPU: 14}]
    assert ledger.test == {GPU: 2}
    assert ledger.fixtures == {}


def test_a_release_of_somebody_unknown_changes_nothing():
    ledger = ledger_at(0)
    assert not ledger.begin_release(7)
    ledger.book({GPU: 5})
    assert ledger.test == {GPU: 5}


def test_a_fixture_that_ends_in_the_middle_of_its_own_setup_leaves_the_rest_in_order():
    ledger = ledger_at(0)
    ledger.begin_setup(1, "model", "module")
    ledger.book({GPU: 8})
    ledger.begin_release(1)
    ledger.book({GPU: 0})
    ledger.end_releases()
    ledger.book({GPU: 3})
    assert ledger.test == {GPU: 3}


def test_an_account_that_is_new_in_the_run_began_at_0():
    ledger = Ledger()
    ledger.open("test_a.py", {})
    ledger.book({GPU: 20})
    assert ledger.test == {GPU: 20}


def test_an_account_that_could_not_be_read_for_a_while_starts_afresh():
    ledger = ledger_at(10)
    ledger.book({})  # the device is lost
    ledger.book({GPU: 500})
    ledger.book({GPU: 501})
    assert ledger.test == {GPU: 1}


def test_host_memory_that_is_not_read_each_time_keeps_its_last_level():
    ledger = Ledger()
    ledger.open("test_a.py", {ARRAYS: 10})
    ledger.book({})
    ledger.book({ARRAYS: 15})
    assert ledger.test == {ARRAYS: 5}


def test_what_a_cleanup_frees_is_taken_from_those_who_may_have_held_it_in_turn():
    ledger = ledger_at(0)
    first, second = {GPU: 10}, {GPU: 5}
    ledger.book({GPU: 15})
    ledger.book_given_back({GPU: 3}, [first, second])
    assert (first, second) == ({GPU: 0}, {GPU: 3})


def test_what_a_cleanup_frees_beyond_that_is_taken_from_the_drift():
    ledger = ledger_at(100)
    share = {GPU: 4}
    ledger.book_given_back({GPU: 90}, [share])
    assert share == {GPU: 0}
    assert ledger.session.kept == {GPU: -6}
    assert ledger.modules["test_a.py"].kept == {GPU: -6}


def test_growth_in_the_middle_of_a_cleanup_falls_to_the_first_in_turn():
    ledger = ledger_at(0)
    share = {}
    ledger.book_given_back({GPU: 9}, [share])
    assert share == {GPU: 9}
    assert ledger.session.kept == {}


def test_a_stretch_of_its_own_is_charged_or_falls_to_the_owner_around_it():
    ledger = ledger_at(0)
    block = ledger.push()
    ledger.book({GPU: 7})
    ledger.pop(block, charged=True)
    assert (block, ledger.test) == ({GPU: 7}, {})
    block = ledger.push()
    ledger.book({GPU: 9})
    ledger.pop(block, charged=False)
    assert ledger.test == {GPU: 2}


def test_what_a_live_fixture_reaches_is_credited_by_its_growth():
    ledger = ledger_at(0)
    ledger.begin_setup(1, "model", "module")
    ledger.end_setup(1)
    assert ledger.credit({1: {GPU: 20}}) == {GPU: 20}
    assert ledger.credit({1: {GPU: 25}}) == {GPU: 5}
    assert ledger.credit({1: {}}) == {GPU: -25}
    assert ledger.fixtures[1].held[GPU] == 0


def test_a_fall_is_noted_for_every_live_fixture():
    ledger = ledger_at(0)
    for key in (1, 2):
        ledger.begin_setup(key, "model", "module")
        ledger.end_setup(key)
    ledger.note_fall(GPU, 12)
    assert [share.fallen for share in ledger.fixtures.values()] == [{GPU: 12}, {GPU: 12}]


def test_drift_adds_up_for_its_module_and_for_the_session():
    ledger = ledger_at(0, "test_a.py")
    ledger.drift(GPU, 5)
    ledger.close()
    ledger.open("test_b.py", {GPU: 5})
    ledger.drift(GPU, 2)
    assert ledger.modules["test_a.py"].kept == {GPU: 5}
    assert ledger.modules["test_b.py"].kept == {GPU: 2}
    assert ledger.session.kept == {GPU: 7}
    assert (ledger.modules["test_a.py"].tests, ledger.session.tests) == (1, 2)


def test_a_modules_drift_that_is_charged_leaves_the_sessions():
    ledger = ledger_at(0)
    ledger.drift(GPU, 5)
    assert ledger.forget_drift(GPU, ledger.modules["test_a.py"]) == 5
    assert ledger.session.kept == {GPU: 0}


def test_the_heap_of_a_test_goes_to_the_drift_where_it_is_read_by_module():
    ledger = Ledger()
    ledger.heap_by_module = True
    ledger.open("test_a.py", {HEAP: 100})
    ledger.book({HEAP: 140})
    assert ledger.test == {}
    assert ledger.session.kept == {HEAP: 40}


def test_arrays_expected_to_have_gone_with_their_heap_need_no_count():
    ledger = Ledger()
    ledger.open("test_a.py", {ARRAYS: 0})
    ledger.begin_setup(1, "data", "module")
    ledger.book({ARRAYS: 50})
    ledger.end_setup(1)
    ledger.expect_returned(ledger.fixtures[1].held)
    assert ledger.fixtures[1].held == {}
    ledger.book({ARRAYS: 0})  # the next count finds what was expected
    assert ledger.test == {}


class Conservation(RuleBasedStateMachine):
    """Whatever happens, what was booked to somebody adds up to what moved."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger()
        self.level = 1000
        self.moved = 0
        self.next_key = 0
        self.setting_up = []
        self.gone = 0  # shares that left the ledger: windows that closed, fixtures that were judged
        self.ledger.open("test_a.py", {GPU: self.level})

    def move(self, by):
        self.level += by
        self.moved += by

    @rule(by=st.integers(-100, 100))
    def a_look(self, by):
        self.move(by)
        self.ledger.book({GPU: self.level})

    @rule(by=st.integers(-100, 100))
    def a_cleanup(self, by):
        self.move(by)
        pending = [self.ledger.test, *(share.held for share in self.ledger.ended)]
        self.ledger.book_given_back({GPU: self.level}, pending)

    @rule()
    def a_fixture_begins(self):
        self.next_key += 1
        self.ledger.begin_setup(self.next_key, "f", "module")
        self.setting_up.append(self.next_key)

    @precondition(lambda self: self.setting_up)
    @rule()
    def a_fixture_is_up(self):
        key = self.setting_up.pop()
        if key in self.ledger.fixtures:
            self.ledger.end_setup(key)

    @precondition(lambda self: self.ledger.fixtures)
    @rule(data=st.data())
    def a_fixture_ends(self, data):
        self.ledger.begin_release(data.draw(st.sampled_from(sorted(self.ledger.fixtures))))

    @rule()
    def a_block_comes_and_goes(self):
        block = self.ledger.push()
        self.move(7)
        self.ledger.book({GPU: self.level})
        self.ledger.pop(block, charged=False)

    @precondition(lambda self: not self.setting_up)
    @rule(module=st.sampled_from(["test_a.py", "test_b.py"]))
    def the_next_test(self, module):
        self.ledger.end_releases()
        self.gone += self.ledger.test.get(GPU, 0) + sum(share.held.get(GPU, 0) for share in self.ledger.ended)
        self.ledger.close()
        self.ledger.open(module, {GPU: self.level})

    @invariant()
    def shares_and_drift_add_up_to_the_movement(self):
        shares = [self.ledger.test, *(s.held for s in (*self.ledger.fixtures.values(), *self.ledger.ended))]
        booked = sum(share.get(GPU, 0) for share in shares) + self.ledger.session.kept.get(GPU, 0) + self.gone
        assert booked == self.moved

    @invariant()
    def modules_add_up_to_the_session(self):
        drifts = sum(drift.kept.get(GPU, 0) for drift in self.ledger.modules.values())
        assert drifts == self.ledger.session.kept.get(GPU, 0)


Conservation.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestConservation = Conservation.TestCase


def test_what_a_small_fixture_brought_up_is_no_growth_of_it_at_the_first_look():
    ledger = Ledger()
    ledger.open("test_a.py", {GPU: 0})
    ledger.begin_setup(1, "model", "module")
    ledger.book({GPU: MiB})
    ledger.end_setup(1)
    ledger.book({GPU: 3 * MiB})
    assert ledger.credit({1: {GPU: MiB}}) == {GPU: 0}
    assert ledger.credit({1: {GPU: 2 * MiB}}) == {GPU: MiB}


def test_after_something_was_not_booked_nobody_is_accused_by_what_was_known():
    ledger = Ledger()
    ledger.open("test_a.py", {GPU: 0})
    ledger.begin_setup(1, "model", "module")
    ledger.book({GPU: 8 * MiB})
    ledger.end_setup(1)
    ledger.drift(GPU, 5 * MiB)
    ledger.lose_track()
    assert ledger.session.kept == {}
    assert ledger.modules["test_a.py"].kept == {}
    assert not ledger.fixtures[1].is_certain


def test_where_older_things_were_freed_too_a_count_of_arrays_decides():
    ledger = Ledger()
    ledger.open("a.py", {HEAP: 100 * MiB})
    ledger.book({HEAP: 108 * MiB})
    ledger.book_given_back({HEAP: 95 * MiB}, [ledger.test])
    assert ledger.test == {HEAP: 8 * MiB}
    assert ledger.session.kept == {HEAP: -5 * MiB}
    ledger.book_given_back({HEAP: 90 * MiB}, [ledger.test, {HEAP: -MiB}])
    assert ledger.test == {HEAP: 3 * MiB}
    ledger.book_given_back({HEAP: 87 * MiB - 1}, [ledger.test])
    assert ledger.test == {HEAP: 0}
