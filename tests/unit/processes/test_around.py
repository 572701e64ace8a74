"""What comes up while others are stopped: the next link of a chain, or somebody else's."""

from pytest_gpuclean.processes.around import Around, Link, is_next_link
from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import Proof

RUN_SESSION = 7


def process(pid, parent=1, start=100, session=RUN_SESSION):
    return OwnedProcess(
        key=ProcessKey(pid, start), parent_pid=parent, proof=Proof.DESCENDANT, session_id=session, name="x"
    )


def is_next(orphan, argv=("sleep",), **earlier):
    link = Link(process(10, **earlier), ("python", "chain.py"))
    return is_next_link(Link(orphan, argv), [link], RUN_SESSION)


def test_an_orphan_with_the_command_line_of_a_target_is_the_next_link():
    assert is_next(process(11, start=101), ("python", "chain.py"))
    assert is_next(process(11, start=100), ("python", "chain.py")), "within one tick"


def test_an_orphan_of_a_targets_own_session_is_the_next_link():
    assert is_next(process(11, start=101, session=10), session=10)


def test_a_child_that_a_thread_of_the_run_has_just_started_is_not():
    assert not is_next(process(11, start=101))
    assert not is_next(process(11, start=101), ())


def test_what_was_there_before_the_target_is_not():
    assert not is_next(process(11, start=99), ("python", "chain.py"))
    assert not is_next(process(11, start=99, session=10), session=10)


def test_two_that_have_no_command_line_have_none_in_common():
    assert not is_next_link(Link(process(11), ()), [Link(process(10), ())], RUN_SESSION)


def test_without_anything_that_was_stopped_nothing_is():
    assert not is_next_link(Link(process(11), ("x",)), [], RUN_SESSION)


def test_a_line_goes_up_as_far_as_it_was_seen_and_ends_in_a_circle_too():
    around = Around([process(10), process(11, parent=10), process(12, parent=11), process(20, 21), process(21, 20)])
    assert [above.pid for above in around.line_of(process(12, parent=1))] == [12, 11, 10]
    assert [above.pid for above in around.line_of(process(20, 21))] == [20, 21]
    assert [above.pid for above in around.line_of(process(30, parent=12))] == [30, 12, 11, 10]


def test_parents_come_first_by_their_depth_in_whatever_order_they_were_seen():
    found = [process(12, parent=11), process(20, 21), process(11, parent=10), process(10), process(21, 20)]
    around = Around(found)
    assert [around.depth_of(each) for each in found] == [3, 2, 2, 1, 2]
    assert around.depth_of(process(30, parent=12)) == 4
