"""`--pdb` and `breakpoint()` in a real terminal: the debugger finds everything, and the run goes on as it would."""

import os
import re
import sys

import pytest

pexpect = pytest.importorskip("pexpect")

DEBUGGED = """
    def test_fails():
        buffer = allocate(16 * MiB)
        answer = 42
        assert answer == 41

    def test_clean():
        buffer = allocate(4 * MiB)

    def test_leaks():
        KEPT.append(allocate(4 * MiB))
"""


@pytest.fixture
def terminal(street, monkeypatch):
    """Starts pytest in a pseudo-terminal, with the plugin or without."""
    started = []

    def start(*arguments, plugin="gpuclean"):
        monkeypatch.setenv("PYTEST_ADDOPTS", f"-p {plugin} -p no:cacheprovider -p no:faulthandler")
        monkeypatch.setenv("TERM", "dumb")
        child = pexpect.spawn(
            sys.executable,
            ["-m", "pytest", *arguments],
            cwd=str(street.path),
            env=dict(os.environ),
            encoding="utf-8",
            timeout=60,
            echo=False,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def say(child, line, expected):
    child.sendline(line)
    child.expect(expected)


@pytest.mark.parametrize("plugin", ["gpuclean", "no:gpuclean"])
def test_the_debugger_finds_the_locals_of_a_failed_test(street, terminal, plugin):
    street.write(DEBUGGED)
    gate = [] if plugin.startswith("no:") else ["--gpu-clean=quick", "--gpu-settle=0"]
    child = terminal("--pdb", *gate, plugin=plugin)
    child.expect(r"\(Pdb\)")
    say(child, "p answer", r"42\r\n\(Pdb\)")
    say(child, "p buffer.size_bytes", r"16777216\r\n\(Pdb\)")
    say(child, "c", pexpect.EOF)
    if gate:
        assert re.search("1 failed, 2 passed, 1 error", child.before)
        assert "LEAK test_it.py::test_leaks: leaked 4.0 MiB" in child.before
        assert "LEAK test_it.py::test_fails" not in child.before
    else:
        assert re.search("1 failed, 2 passed in", child.before)
    assert "INTERNALERROR" not in child.before


def test_a_breakpoint_stops_there_and_the_test_is_judged(street, terminal):
    street.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))
            answer = 42
            breakpoint()

        def test_clean():
            buffer = allocate(4 * MiB)
    """)
    child = terminal("--gpu-clean=quick", "--gpu-settle=0")
    child.expect(r"\(Pdb\)")
    say(child, "p answer", r"42\r\n\(Pdb\)")
    say(child, "c", pexpect.EOF)
    assert re.search("2 passed, 1 error", child.before)
    assert "LEAK test_it.py::test_leaks: leaked 4.0 MiB" in child.before


def test_whoever_quits_the_debugger_quits_the_run(street, terminal):
    street.write(DEBUGGED)
    child = terminal("--pdb", "--gpu-clean=quick", "--gpu-settle=0")
    child.expect(r"\(Pdb\)")
    say(child, "q", pexpect.EOF)
    assert "Exit: Quitting debugger" in child.before
    assert "INTERNALERROR" not in child.before
    child.close()
    assert child.exitstatus == 2


def test_a_run_that_confirms_a_leak_opens_no_debugger(street, terminal):
    street.write("""
        def test_leaks(request):
            if KEPT:
                raise ValueError("the second run fails")
            KEPT.append(allocate(4 * MiB))

        def test_subtests_fail_in_the_second_run(subtests):
            for number in range(2):
                with subtests.test(number=number):
                    assert not KEPT[1:]
            KEPT.append(allocate(4 * MiB))
    """)
    fixture = "subtests" if pytest.version_tuple >= (9, 0) else "request"
    if fixture == "request":
        (street.path / "test_it.py").write_text(
            (street.path / "test_it.py").read_text(encoding="utf-8").partition("def test_subtests")[0], encoding="utf-8"
        )
    child = terminal("--pdb", "--gpu-clean=quick", "--gpu-settle=0", "--gpu-leak-confirm=1")
    child.expect(pexpect.EOF)
    assert "(Pdb)" not in child.before
    assert re.search(r"\d passed", child.before)
