"""Locks of devices: between processes, freed by the kernel, and harmless where others may write too."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pytest_gpuclean.processes.device_locks import DeviceLocks, NoLock, NotFree, lock_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks on Windows")

HOLDER = """
    import sys, time
    from pytest_gpuclean.processes.device_locks import DeviceLocks
    locks = DeviceLocks(sys.argv[1], [(key, key) for key in sys.argv[2].split(",")], print)
    print(locks.take("test_other.py::test_long", 30), flush=True)
    {then}
"""


class Other:
    """Another process that has the lock."""

    def __init__(self, folder, keys="a", then="sys.stdin.readline(); locks.release(); print('released', flush=True)"):
        code = textwrap.dedent(HOLDER).format(then=then)
        command = [sys.executable, "-c", code, str(folder), keys]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said = self.process.stdout.readline()

    def say(self, text="\n"):
        self.process.stdin.write(text)
        self.process.stdin.flush()
        return self.process.stdout.readline()


@pytest.fixture
def other(tmp_path):
    started = []

    def start(**more):
        started.append(Other(tmp_path, **more))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def locks_of(folder, *keys, tell=lambda _: None):
    return DeviceLocks(str(folder), [(key, f"card {key}") for key in keys or "a"], tell)


def test_a_free_device_is_had_at_once(tmp_path):
    locks = locks_of(tmp_path)
    assert locks.take("test_it", 0) < 1
    locks.release()
    assert locks.take("test_it", 0) < 1
    locks.release()


def test_a_device_that_another_process_has_is_not_free_and_that_is_told(tmp_path, other):
    holder = other()
    found = locks_of(tmp_path).take("test_it", 0.1)
    assert isinstance(found, NotFree)
    assert found.reason.startswith(f"card a was not free within 100 ms: pid {holder.process.pid} for ")
    assert found.reason.endswith("(test_other.py::test_long) has it")


def test_it_is_had_as_soon_as_it_is_let_go(tmp_path, other):
    holder = other()
    threading.Timer(0.3, holder.say).start()
    locks = locks_of(tmp_path)
    assert 0.2 < locks.take("test_it", 20) < 5
    locks.release()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_a_process_that_dies_lets_go(tmp_path, other, number):
    holder = other()
    holder.process.send_signal(number)
    holder.process.wait()
    locks = locks_of(tmp_path)
    assert not isinstance(locks.take("test_it", 20), (NotFree, NoLock))
    locks.release()


def test_a_forked_child_does_not_keep_what_its_dead_parent_had(tmp_path, other):
    holder = other(then="import os; pid = os.fork(); (print(pid, flush=True) if pid else None); time.sleep(60)")
    child = int(holder.process.stdout.readline())
    try:
        holder.process.kill()
        holder.process.wait()
        os.kill(child, 0)  # it is still there
        locks = locks_of(tmp_path)
        assert not isinstance(locks.take("test_it", 10), (NotFree, NoLock))
        locks.release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_lets_go_leaves_it_to_its_parent(tmp_path, other):
    other(
        then="import os; pid = os.fork(); pid or (locks.release(), os._exit(0)); os.waitpid(pid, 0); "
        "print('child has gone', flush=True); time.sleep(60)"
    ).process.stdout.readline()
    assert isinstance(locks_of(tmp_path).take("test_it", 0.1), NotFree)


def test_several_devices_are_had_together_or_not_at_all(tmp_path, other):
    holder = other(keys="b")
    locks = locks_of(tmp_path, "a", "b", "c")
    assert isinstance(locks.take("test_it", 0.1), NotFree)
    second = other(keys="a,c")  # which the attempt above has let go of
    assert float(second.said) < 5
    for one in (holder, second):
        one.say()
    assert not isinstance(locks.take("test_it", 10), (NotFree, NoLock))
    locks.release()


def test_they_are_always_taken_in_one_order_so_that_two_never_wait_for_each_other(tmp_path, other):
    other(keys="b")
    waiting = threading.Thread(target=locks_of(tmp_path, "b", "a").take, args=("test_it", 3))
    waiting.start()
    time.sleep(0.3)
    code = (
        "import sys; from pytest_gpuclean.processes.device_locks import DeviceLocks; "
        "print(DeviceLocks(sys.argv[1], [('a', 'a')], print).take('x', 0))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    waiting.join()
    assert "a was not free" in run.stdout  # it has a, and waits for b


def test_never_two_at_a_time(tmp_path):
    code = textwrap.dedent("""
        import os, pathlib, sys, time
        from pytest_gpuclean.processes.device_locks import DeviceLocks
        folder = sys.argv[1]
        locks = DeviceLocks(folder, [("a", "a")], print)
        for number in range(40):
            assert isinstance(locks.take("one", 60), float)
            inside = os.open(folder + "/inside", os.O_CREAT | os.O_EXCL)
            time.sleep(0.001)
            os.close(inside)
            os.unlink(folder + "/inside")
            locks.release()
    """)
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in "123"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


def test_who_has_had_it_lets_those_go_first_who_wait(tmp_path):
    code = textwrap.dedent("""
        import sys, time
        from pytest_gpuclean.processes.device_locks import DeviceLocks
        locks = DeviceLocks(sys.argv[1], [("a", "a")], print)
        for _ in range(20):
            assert isinstance(locks.take("one", 60), float)
            print(sys.argv[2], flush=True)
            time.sleep(0.06)
            locks.release()
    """)
    out = tmp_path / "order"
    with out.open("w") as file:
        processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], stdout=file) for name in "xy"]
        assert [process.wait(60) for process in processes] == [0, 0]
    order = "".join(out.read_text().split())
    first = min(order.rindex("x"), order.rindex("y")) + 1  # while both were there
    both = order[order.index("y" if order[0] == "x" else "x") : first]
    changes = sum(one != two for one, two in zip(both, both[1:], strict=False))
    assert changes > len(both) / 2, order


def test_a_long_wait_is_told_with_who_has_it(tmp_path, other):
    holder = other()
    told = []
    locks_of(tmp_path, tell=told.append).take("test_it", 1.3)
    [text] = told
    assert text.startswith(f"card a, which pid {holder.process.pid} for ")


def test_a_deleted_file_does_not_lead_to_two_holders(tmp_path, other):
    first = other()
    found = []
    waiting = threading.Thread(target=lambda: found.append(locks_of(tmp_path).take("test_it", 2)))
    waiting.start()
    time.sleep(0.3)
    (tmp_path / "gpuclean-a.lock").unlink()
    second = other()  # has a new file
    assert float(second.said) < 5
    first.say()  # and lets go of the old one
    waiting.join()
    assert isinstance(found[0], NotFree)
    assert f"pid {second.process.pid} for" in found[0].reason


# -- where others may write too ---------------------------------------------------------------------------------------


def test_the_file_is_everybodys(tmp_path):
    before = os.umask(0o077)
    try:
        locks = locks_of(tmp_path)
        locks.take("test_it", 0)
    finally:
        os.umask(before)
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o666
    locks.release()


def test_a_link_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "gpuclean-a.lock").symlink_to(target)
    found = locks_of(tmp_path).take("test_it", 0)
    assert found == NoLock(f"{tmp_path}/gpuclean-a.lock is a link")
    assert target.read_text() == "precious"


def test_a_hard_link_is_not_written_to(tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    os.link(target, tmp_path / "gpuclean-a.lock")
    assert "more than one name" in locks_of(tmp_path).take("test_it", 0).reason
    assert target.read_text() == "precious"


def test_a_pipe_in_its_place_hangs_nobody(tmp_path):
    os.mkfifo(tmp_path / "gpuclean-a.lock")
    assert "is no plain file" in locks_of(tmp_path).take("test_it", 0).reason


def test_a_folder_in_its_place_is_told(tmp_path):
    (tmp_path / "gpuclean-a.lock").mkdir()
    assert isinstance(locks_of(tmp_path).take("test_it", 0), NoLock)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="takes another user")
def test_a_file_that_another_user_keeps_to_himself_is_told(tmp_path):
    code = """if True:
        import os, sys
        from pytest_gpuclean.processes.device_locks import DeviceLocks
        os.setuid(65534)
        print(DeviceLocks(sys.argv[1], [("a", "a")], print).take("x", 0))
    """
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o1777)
    (tmp_path / "gpuclean-a.lock").touch(0o600)
    run = [sys.executable, "-c", code, str(tmp_path)]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "belongs to uid 0, who keeps it to himself (mode 0600; 0666 would be right)" in told
    (tmp_path / "gpuclean-a.lock").chmod(0o666)
    assert float(subprocess.run(run, capture_output=True, text=True, check=True).stdout) < 5


@pytest.mark.parametrize(
    "text", ["", "nonsense", "\x1b[31m1 2 3", "1 2 " + "\x1b]0;title\x07" * 500, "9" * 300 + " 1 x"]
)
def test_what_others_write_into_the_file_is_made_harmless(tmp_path, other, text):
    other()
    (tmp_path / "gpuclean-a.lock").write_text(text)
    reason = locks_of(tmp_path).take("test_it", 0).reason
    assert reason.isprintable()
    assert len(reason) < 400


@pytest.mark.parametrize("key", ["../../etc/passwd", "GPU-1/2", "MIG-GPU-a/1/0", "x" * 500, "ü", ""])
def test_a_key_never_leads_out_of_the_folder(tmp_path, key):
    locks = locks_of(tmp_path, key)
    assert locks.take("test_it", 0) < 1
    assert len(list(tmp_path.iterdir())) == 1
    locks.release()


def test_a_folder_that_is_none_is_told(tmp_path):
    assert lock_folder({"GPUCLEAN_LOCKS": str(tmp_path / "none")}) == NoLock(
        f"GPUCLEAN_LOCKS='{tmp_path}/none' is no folder"
    )
    assert lock_folder({"GPUCLEAN_LOCKS": str(tmp_path)}) == str(tmp_path)
    assert isinstance(locks_of(tmp_path / "none").take("test_it", 0), NoLock)


def test_the_folder_is_the_same_for_every_user_and_job():
    folder = lock_folder({"TMPDIR": "/somewhere/else", "XDG_RUNTIME_DIR": "/run/user/1000"})
    assert folder in ("/dev/shm", "/tmp")
    assert Path(folder).stat().st_mode & stat.S_ISVTX


def test_a_wait_takes_no_processor_time(tmp_path, other):
    other()
    begin = time.process_time()
    locks_of(tmp_path).take("test_it", 1)
    assert time.process_time() - begin < 0.3
