"""What a ledger says is believed only as it was written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import Claim, LedgerFile
from pytest_gpuclean.processes.run_record import NewerLedgerError, RunRecord, Seen, UnreadableLedgerError

RECORD = RunRecord(
    claim=Claim(
        cookie="0123456789abcdef",
        uid=1000,
        boot_id="boot-1",
        pid_namespace="pid:[1]",
        start_ticks=77,
        ledger=LedgerFile(1, 2, 3, 0o2002002),
        recorded=frozenset({ProcessKey(5, 50)}),
    ),
    key=ProcessKey(4, 40),
    command="pytest tests",
    started_at=1.5,
    terminal=34816,
    cgroup="0::/\n",
    seen=(Seen(key=ProcessKey(5, 50), label="sleep", started_by="test_a"), Seen(key=ProcessKey(6, 60))),
    kept=frozenset({ProcessKey(6, 60)}),
)
HEAD = json.loads(RECORD.to_line())


def head(**changes):
    return (json.dumps({**HEAD, **changes}) + "\n").encode()


def test_it_reads_what_it_wrote():
    assert RunRecord.from_lines(RECORD.to_lines()) == RECORD


def test_a_line_that_was_cut_off_by_the_kill_is_left_out():
    data = RECORD.to_lines()
    cut = RunRecord.from_lines(data[: data.index(b'"seen":[6') + 4])
    assert cut.seen == RECORD.seen[:1]


def test_a_later_version_is_told_apart():
    with pytest.raises(NewerLedgerError):
        RunRecord.from_lines(b'{"version":2,"claim":"something new"}\n')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"\x00\xff\xfe\n",
        b'{"version":1}\n',
        RECORD.to_line()[:-1],
        RECORD.to_line() + b"nonsense\n",
        RECORD.to_line() + b'{"seen":[0,1],"label":"","started_by":""}\n',
        RECORD.to_line() + b'{"seen":[true,1],"label":"","started_by":""}\n',
        RECORD.to_line() + b"[]\n[1]\n3\n",
        b"[" * 100_000 + b"\n",
        head(version="1"),
        head(version=0),
        head(claim={**HEAD["claim"], "cookie": ""}),
        head(claim={**HEAD["claim"], "cookie": "a"}),
        head(claim={**HEAD["claim"], "cookie": "0123456789abcdef/"}),
        head(claim={**HEAD["claim"], "uid": None}),
        head(claim={**HEAD["claim"], "uid": -1}),
        head(claim={**HEAD["claim"], "start_ticks": "0"}),
        head(claim={**HEAD["claim"], "ledger": [1, 2, 3]}),
        head(claim={**HEAD["claim"], "ledger": [1, 2, "3", 4]}),
        head(claim={**HEAD["claim"], "boot_id": ""}),
        head(claim={**HEAD["claim"], "more": 1}),
        head(key=[0, 0]),
        head(key=[1.5, 0]),
        head(terminal="x"),
        head(terminal=1e400),
    ],
)
def test_whatever_else_stands_there_is_not_believed(data):
    with pytest.raises(UnreadableLedgerError):
        RunRecord.from_lines(data)


@given(st.binary(max_size=300))
def test_no_garbage_brings_it_down(data):
    for text in (data, RECORD.to_line() + data, RECORD.to_line()[:100] + data):
        try:
            RunRecord.from_lines(text)
        except UnreadableLedgerError:
            pass


def test_what_a_terminal_would_obey_is_written_out():
    wire = {**HEAD, "command": "py\x1b[2Jtest\n" + "x" * 500}
    name = RunRecord.from_lines((json.dumps(wire) + "\n").encode()).name
    assert name.isprintable()
    assert len(name) < 120
