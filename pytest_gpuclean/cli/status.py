"""`gpuclean status`: devices, memory, who holds it, which servers run, and what can be measured here."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from pytest_gpuclean.cli.cards import Cards, CardUse, read_cards
from pytest_gpuclean.cli.console import Console, write_json
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import format_size

_MOST_USERS = 10


class StatusCommand:
    """Looks at the machine.

    Args:
        cards: gives the GPUs with who uses them.
    """

    name = "status"
    summary = "show the GPUs, who holds their memory, which servers run, and what can be measured here"
    usage: str | None = None

    def __init__(self, cards: Callable[[], Cards] = read_cards) -> None:
        self._cards = cards

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="write it as JSON")

    def run(self, options: argparse.Namespace) -> int:
        status = _gather(self._cards())
        if options.json:
            write_json(status)
        else:
            _show(status, Console())
        return 0


def _gather(cards: Cards) -> dict[str, Any]:
    from pytest_gpuclean.cli.facts import facts
    from pytest_gpuclean.processes.listing import list_known, list_runs

    listing = list_runs()
    return {
        "devices": [] if isinstance(cards, Unavailable) else [_device(use) for use in cards],
        "host_memory": _host_memory(),
        "servers": [asdict(server) for server in list_known()],
        "runs": listing.to_wire()["runs"],
        "notes": list(listing.notes),
        "facts": [asdict(fact) for fact in facts(cards)],
    }


def _device(use: CardUse) -> dict[str, Any]:
    card, users = use.card, use.users
    return {
        "device": card.label,
        "name": card.name,
        "uuid": card.uuid,
        "total_bytes": card.total_bytes,
        "used_bytes": card.used_bytes,
        "users": [] if isinstance(users, Unavailable) else [_user(user.pid, user.used_bytes) for user in users],
        "users_unknown": users.reason if isinstance(users, Unavailable) else "",
    }


def _user(pid: int, used_bytes: int | None) -> dict[str, Any]:
    from pytest_gpuclean.processes.command import command_line, label, read_command
    from pytest_gpuclean.processes.listing import user_of
    from pytest_gpuclean.processes.procfs import Procfs

    procfs = Procfs()
    # In a container the driver tells the numbers of the host: one that is not here is nobody's that could be named.
    is_here = procfs.stat(pid) is not None
    command = read_command(procfs, pid, 0) if is_here else None
    return {
        "pid": pid,
        "used_bytes": used_bytes,
        "name": label(command) if command else "",
        "command": command_line(command) if command else "",
        "user": user_of(procfs, pid),
    }


def _host_memory() -> dict[str, int] | None:
    try:
        import psutil

        found = psutil.virtual_memory()
        return {"total_bytes": int(found.total), "available_bytes": int(found.available)}
    except Exception:  # psutil is missing or broken: the facts say so
        return None


def _show(status: dict[str, Any], console: Console) -> None:
    console.heading("devices")
    for device in status["devices"]:
        _show_device(device, console)
    if not status["devices"]:
        reasons = [fact["detail"] for fact in status["facts"] if fact["what"] == "GPU memory of the machine"]
        console.line(f"none is known: {'; '.join(reasons)}" if reasons else "none")
    host = status["host_memory"]
    if host is not None:
        console.heading("host memory")
        console.line(f"{format_size(host['available_bytes'])} of {format_size(host['total_bytes'])} available")
    console.heading("servers")
    for server in status["servers"]:
        console.line(_process_text(server))
        console.detail(server["command"])
    if not status["servers"]:
        console.line("no TensorBoard, ROS 2 or known server runs")
    console.heading("runs")
    for line in run_lines(status["runs"]):
        console.line(line)
    if not status["runs"]:
        console.line("none is alive, and none that was killed has left a process")
    for note in status["notes"]:
        console.line(f"note: {note}")
    console.heading("what can be measured and done here")
    for fact in status["facts"]:
        console.line(f"{'yes' if fact['is_possible'] else 'no ':3} {fact['what']}: {fact['detail']}")


def _show_device(device: dict[str, Any], console: Console) -> None:
    used, total = (_size(device[name]) for name in ("used_bytes", "total_bytes"))
    console.line(f"{device['device']} {device['name']}: {used} of {total} in use")
    if device["users_unknown"]:
        console.line(f"who uses it is not known: {device['users_unknown']}", indent=2)
    users = sorted(device["users"], key=lambda user: -(user["used_bytes"] or 0))
    for user in users[:_MOST_USERS]:
        name = user["name"] or "(not to be seen from here)"
        whose = f" ({user['user']})" if user["user"] else ""
        console.line(f"pid {user['pid']} {name}{whose}: {_size(user['used_bytes'])}", indent=2)
    if len(users) > _MOST_USERS:
        console.line(f"and {len(users) - _MOST_USERS} more", indent=2)


def _size(size: int | None) -> str:
    return "not known" if size is None else format_size(size)


def _process_text(process: dict[str, Any]) -> str:
    ports = ", ".join(map(str, process["ports"]))
    listens = f", port{'s' * (len(process['ports']) > 1)} {ports}" if ports else ""
    user = f", {process['user']}" if process["user"] else ""
    return f"{process['name']} (pid {process['pid']}{listens}{user})"


def run_lines(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Say of each run whether it is alive and how many processes it has.

    Args:
        runs: as plain data.
    """
    for run in runs:
        count = len(run["processes"])
        processes = f"{count or 'no'} process{'es' * (count != 1)}"
        if run["is_alive"]:
            yield f"alive: {run['name']}, {processes}"
        else:
            yield f"killed: {run['name']} left {processes}; to stop them: gpuclean clean"
