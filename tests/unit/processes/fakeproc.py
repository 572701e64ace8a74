"""A /proc made of files, for what no test can bring about on a real system."""

import os

from pytest_gpuclean.processes.procfs import Procfs

NAMESPACE = "pid:[4026531836]"


class FakeProc(Procfs):
    """Writes processes as the kernel shows them."""

    def __init__(self, folder):
        super().__init__(str(folder))
        self._folder = folder
        self.boot("boot-1")

    def boot(self, boot_id):
        path = self._folder / "sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(boot_id + "\n")

    def own(self, pid):
        (self._folder / "self").symlink_to(str(pid))

    def add(
        self,
        pid,
        *,
        name=b"python",
        state="S",
        parent=1,
        start=1000,
        uid=(1000, 1000),
        environ=b"",
        argv=b"",
        namespace=NAMESPACE,
        children=None,
        threads=1,
        ignored=0,
        flags=0,
        cgroup=None,
    ):
        folder = self._folder / str(pid)
        (folder / "ns").mkdir(parents=True, exist_ok=True)
        middle = " ".join(["1", "1", "0", "-1", str(flags), *["0"] * 8, "20", "0", str(threads), "0", str(start)])
        (folder / "stat").write_bytes(b"%d (%s) %s %d %s 0 0\n" % (pid, name, state.encode(), parent, middle.encode()))
        status = f"Name:\tx\nUid:\t{uid[0]}\t{uid[1]}\t{uid[1]}\t{uid[1]}\nSigIgn:\t{ignored:016x}\nSigCgt:\t0000\n"
        (folder / "status").write_text(status)
        (folder / "environ").write_bytes(environ)
        (folder / "cmdline").write_bytes(argv)
        if cgroup is not None:
            (folder / "cgroup").write_text(cgroup)
        link = folder / "ns/pid"
        if not link.is_symlink():
            link.symlink_to(namespace)
        if children is not None:
            task = folder / "task" / str(pid)
            task.mkdir(parents=True, exist_ok=True)
            (task / "children").write_text(" ".join(map(str, children)) + " ")
        return self.stat(pid)

    def descriptor(self, pid, number, leads_to):
        folder = self._folder / str(pid) / "fd"
        folder.mkdir(exist_ok=True)
        os.symlink(leads_to, folder / str(number))

    def listen(self, pid, *rows, version=""):
        """Write the table of sockets: port, inode and state of each."""
        folder = self._folder / str(pid) / "net"
        folder.mkdir(exist_ok=True)
        lines = ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"]
        for index, (port, inode, state) in enumerate(rows):
            lines.append(
                f"{index:4}: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 "
                f" 1000        0 {inode} 1 0000000000000000 100 0 0 10 0"
            )
        (folder / f"tcp{version}").write_text("\n".join(lines) + "\n")
