"""What was left behind and what became of it, in words."""

from __future__ import annotations

from pytest_gpuclean.model import LeftProcess
from pytest_gpuclean.units import format_seconds, format_size


def describe_left(left: LeftProcess) -> str:
    """Say it in one line: `sleep (pid 12) `sleep 100`, started by test_x: ended by SIGINT after 12 ms`.

    Args:
        left: the process.
    """
    parts = [f"{left.name} (pid {left.pid}) `{left.command}`"]
    if left.started_by:
        parts.append(f"started by {left.started_by}")
    if left.ports:
        parts.append(f"port{'s' * (len(left.ports) > 1)} {', '.join(map(str, left.ports))}")
    if left.gpu_bytes:
        parts.append(f"{format_size(left.gpu_bytes)} of GPU memory")
    return f"{', '.join(parts)}: {_end(left)}"


def _end(left: LeftProcess) -> str:
    if left.is_alive:
        return f"goes on: {left.reason or 'no reason is known'}"
    how = {"itself": "ended by itself", "shut down": "shut down"}.get(left.ended_by, f"ended by {left.ended_by}")
    took = f" after {format_seconds(left.seconds)}" if left.seconds else ""
    return f"{how}{took}{f'; {left.reason}' if left.reason else ''}"
