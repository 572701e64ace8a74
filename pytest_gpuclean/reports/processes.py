"""What was left behind and what became of it, in words."""

from __future__ import annotations

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.units import format_seconds, format_size


def describe_left(left: LeftProcess) -> str:
    """Say it in one line: `sleep (pid 12), port 6006: ended by SIGINT after 12 ms`.

    Args:
        left: the process.
    """
    ports = f"port{'s' * (len(left.ports) > 1)} {', '.join(map(str, left.ports))}" if left.ports else ""
    memory = f"{format_size(left.gpu_bytes)} of GPU memory" if left.gpu_bytes else ""
    return f"{', '.join(filter(None, [f'{left.name} (pid {left.pid})', ports, memory]))}: {_end(left)}"


def _end(left: LeftProcess) -> str:
    if left.is_alive:
        return f"{'goes on' if left.is_spared else 'is still alive'}: {left.reason or 'no reason is known'}"
    ways = {"itself": "ended by itself", "shut down": "shut down with its pool"}
    took = f" after {format_seconds(left.seconds)}" if left.seconds else ""
    return f"{ways.get(left.ended_by, f'ended by {left.ended_by}')}{took}{f'; {left.reason}' if left.reason else ''}"
