"""Servers that tests start: they stop their own children where they are asked in the way they know."""

from __future__ import annotations

import signal

from pytest_gpuclean.processes.families.interface import Command, Kind
from pytest_gpuclean.processes.families.shapes import any_of, is_program, python_call, runs_module, runs_script

_JUPYTER = ("jupyter", "jupyter-lab", "jupyter-notebook", "jupyter-server", "jupyter-nbclassic")
_JUPYTER_MODULES = ("jupyterlab", "notebook", "jupyter_server", "jupyter")
_RAY_SCRIPTS = ("dashboard.py", "log_monitor.py", "monitor.py", "dashboard/agent.py", "runtime_env/agent/main.py")


def _is_ray(command: Command) -> bool:
    if command.argv and command.argv[0].startswith("ray::"):
        return True
    call = python_call(command)
    return (
        call is not None
        and call.kind == "script"
        and "/ray/" in call.target
        and (call.target.endswith(_RAY_SCRIPTS) or call.target.endswith("workers/default_worker.py"))
    )


def _is_vllm(command: Command) -> bool:
    call = python_call(command)
    if call is None:
        return False
    serves = call.script == "vllm" and call.arguments[:1] == ("serve",)
    return serves or call.is_module("vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server")


RAY_CORE = Kind(
    name="Ray", matches=is_program({"raylet", "gcs_server"}), first_signal=signal.SIGTERM, grace_seconds=3.0
)
RAY_PYTHON = Kind(name="Ray", matches=_is_ray, first_signal=signal.SIGTERM)
JUPYTER = Kind(
    name="Jupyter",
    matches=any_of(runs_script(*_JUPYTER), runs_module(*_JUPYTER_MODULES)),
    first_signal=signal.SIGTERM,  # SIGINT makes it ask the terminal whether it should
    grace_seconds=3.0,
    tree_at_once=False,
)
KERNEL = Kind(
    name="Jupyter kernel",
    matches=runs_module("ipykernel_launcher", "ipykernel"),
    first_signal=signal.SIGTERM,  # SIGINT interrupts a cell, and no more
    goes_with_parent=True,
)
VLLM = Kind(name="vLLM", matches=_is_vllm, grace_seconds=4.0, tree_at_once=False)
TRITON = Kind(name="Triton server", matches=is_program({"tritonserver"}), grace_seconds=4.0, tree_at_once=False)
SERVERS = (RAY_CORE, RAY_PYTHON, JUPYTER, KERNEL, VLLM, TRITON)
