"""What the driver's lists say of the run's processes: known figures, and never 0 for an unknown one."""

import os
import subprocess
import sys

import pytest

from pytest_gpuclean.memory.card_users import (
    bytes_of,
    holdings,
    missing_bytes,
    process_exists,
    unaccounted,
    why_foreign,
)
from pytest_gpuclean.memory.cards import Card, CardUse, CardUser
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import GiB, MiB

OWN = os.getpid()


def use(*users, used=0, index=0, **card):
    entries = tuple(CardUser(pid=pid, used_bytes=size) for pid, size in users)
    return CardUse(
        card=Card(index=index, uuid=f"GPU-{index}", used_bytes=used, total_bytes=80 * GiB, **card), users=entries
    )


def silent(reason="nvmlX failed", index=0):
    return CardUse(card=Card(index=index), users=Unavailable("nvml", reason))


# -- whose numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "ours", "in_namespace", "is_foreign"),
    [
        ([], [], True, False),
        ([70001], [5], True, True),  # a number that nobody has here, and none of ours
        ([70001], [5], False, False),  # on the machine itself it may just have ended
        ([70001, 5], [5], True, False),
        ([70001, OWN], [5], True, False),
        ([12], [5], True, False),
        ([12, 70001], [5], True, True),
    ],
)
def test_numbers_of_another_namespace_are_not_taken_for_ours(listed, ours, in_namespace, is_foreign):
    found = [use(*((pid, MiB) for pid in listed))]
    reason = why_foreign(found, ours, in_namespace=in_namespace, exists=lambda pid: pid < 70000)
    assert bool(reason) is is_foreign
    assert not is_foreign or "another namespace" in reason


def test_a_process_exists_or_not():
    assert process_exists(OWN)
    assert process_exists(1)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not process_exists(ended.pid)


# -- what is held ----------------------------------------------------------------------------------------------------


def test_what_is_held_on_several_cards_adds_up():
    cards = [use((5, MiB), (6, GiB)), use((5, 2 * MiB), index=1)]
    assert bytes_of(cards, [5, 6, 7]) == {5: 3 * MiB, 6: GiB, 7: 0}
    assert [(held.card.index, held.pid) for held in holdings(cards, [5])] == [(0, 5), (1, 5)]


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ([use((5, None))], None),
        ([use((5, None)), use((5, MiB), index=1)], MiB),
        ([silent()], None),
        ([silent(), use((5, MiB), index=1)], MiB),
        ([silent(), use((6, MiB), index=1)], None),
        ([use(used=20 * GiB)], None),  # the driver lists nobody, and somebody uses it
        ([use(used=3 * MiB)], 0),
        ([use((6, MiB), used=20 * GiB)], 0),
        ([], 0),
    ],
)
def test_what_is_not_known_is_not_zero(cards, expected):
    assert bytes_of(cards, [5]) == {5: expected}


def test_the_users_of_a_card_that_is_cut_are_those_of_its_instances():
    instance = CardUse(
        card=Card(index=0, slot=1, uuid="MIG-1", parent_uuid="GPU-0"), users=(CardUser(pid=5, used_bytes=MiB),)
    )
    assert bytes_of([use((5, MiB), is_partitioned=True), instance], [5]) == {5: MiB}
    assert bytes_of([use((5, MiB), is_partitioned=True)], [5]) == {5: MiB}


# -- what has come back ----------------------------------------------------------------------------------------------


BEFORE = use((5, 512 * MiB), (9, GiB), used=2 * GiB)


@pytest.mark.parametrize(
    ("now", "missing"),
    [
        (use((5, 512 * MiB), (9, GiB), used=2 * GiB), 512 * MiB),  # still on the list
        (use((5, 100 * MiB), (9, GiB), used=2 * GiB), 100 * MiB),
        (use((5, None), (9, GiB), used=2 * GiB), 512 * MiB),
        (use((9, GiB), used=2 * GiB), 512 * MiB),  # off the list, and not freed
        (use((9, GiB), used=2 * GiB - 300 * MiB), 212 * MiB),
        (use((9, GiB), used=2 * GiB - 512 * MiB), 0),  # back
        (use((9, GiB), used=2 * GiB - 500 * MiB), 0),  # but for what is rounded
        (use((9, 3 * GiB), used=4 * GiB - 512 * MiB), 0),  # back, and others have taken more
        (use((9, 3 * GiB), (10, GiB), used=5 * GiB), 512 * MiB),
        (use(used=GiB - 512 * MiB), 0),  # others have gone too
        (use(used=2 * GiB - 512 * MiB), 0),  # and theirs is not back yet: that is not waited for
        (use((9, GiB), (10, None), used=2 * GiB), 0),  # what others hold is not known: that is no reason to wait
        (use((9, GiB), used=None), 0),
        (CardUse(card=BEFORE.card, users=Unavailable("nvml", "lost")), 0),
    ],
)
def test_memory_of_ended_processes_is_missing_until_the_card_has_it_back(now, missing):
    assert missing_bytes(BEFORE, now, holdings([BEFORE], [5])) == missing


def test_what_another_card_does_is_not_looked_at():
    gone = holdings([BEFORE], [5])
    other = use((9, GiB), used=20 * GiB, index=1)
    assert missing_bytes(use(used=GiB, index=1), other, gone) == 0


# -- what no framework accounts for ----------------------------------------------------------------------------------


def test_the_rest_of_ones_own_memory_is_what_no_framework_has():
    assert unaccounted(use((OWN, 700 * MiB), (9, GiB)), 200 * MiB) == 500 * MiB
    assert unaccounted(use((OWN, 100 * MiB)), 200 * MiB) == 0


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (silent("nvmlX failed"), "nvmlX failed"),
        (use((9, GiB)), "the driver does not list this process on GPU 0"),
        (use((OWN, None)), "the driver does not say what a process holds on GPU 0"),
        (use(used=GiB), "the driver lists no process on GPU 0, where memory is in use"),
    ],
)
def test_where_that_is_not_known_it_says_why(found, reason):
    assert unaccounted(found, 0) == Unavailable("nvml", reason)
