"""`--gpu-assign`: one visible GPU for each worker of pytest-xdist, set before it imports anything.

execnet sets the variables of a worker's spec in the bare interpreter, before pytest, a conftest or a framework is
there. The spec outlives the worker: one that is started in the place of a dead one gets the same GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import pytest

from pytest_gpuclean.memory.assignable import VARIABLES, Assignable, Assignables, amd_nodes, assignable, nvidia_files
from pytest_gpuclean.plugin.cards import nvml_of
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.telling import say, verbosity

ASSIGNED = "GPUCLEAN_ASSIGNED"
"""In a worker's environment, until its plugins are loaded."""
_INPUT = "gpuclean_assigned"
_IS_AUTO = pytest.StashKey[bool]()


def assigned_to(config: pytest.Config) -> str:
    """Return the GPU that this worker was given, as the variable names it; empty where it was given none."""
    return str(getattr(config, "workerinput", {}).get(_INPUT, ""))


def gpus_of(config: pytest.Config) -> Assignables:
    """List the GPUs to hand out in this run."""
    return assignable(nvml_of(config).devices(), os.environ, nvidia=len(nvidia_files()), amd=amd_nodes())


def workers_for_auto(config: pytest.Config) -> int | None:
    """Say what `-n auto` is: one worker for each GPU, and no more than processors; None where that is not ours to say.

    An environment variable or a hook in a conftest says it before us.
    """
    others = config.hook.pytest_xdist_auto_num_workers.get_hookimpls()
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or any(
        not getattr(hook.plugin, "__name__", "").startswith(("xdist.", "pytest_gpuclean.")) for hook in others
    ):
        return None
    count = len(gpus_of(config).gpus)
    config.stash[_IS_AUTO] = count > 0
    return min(count, _processors()) or None


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Assigning:
    """Hands the GPUs out. Registered in the run's controller alone."""

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_setupnodes(self, config: pytest.Config, specs: list[Any]) -> None:
        """Write each worker's GPU into its spec, and say who has which."""
        with guard_of(config, "the GPUs are not handed out as they should"):
            self._hand_out(config, specs)

    def _hand_out(self, config: pytest.Config, specs: list[Any]) -> None:
        found = gpus_of(config)
        local = [spec for spec in specs if _is_local(spec)]
        free = [spec for spec in local if not any(variable in spec.env for variable in found.variables)]
        given = deal([str(spec.id) for spec in free], found.gpus)
        for spec in free:
            gpu = given.get(str(spec.id))
            if gpu is not None:
                given_env = dict.fromkeys(found.variables, gpu.value)
                spec.env.update({**given_env, ASSIGNED: ";".join(f"{name}={gpu.value}" for name in given_env)})
        lines = [*_lines(given, found, is_auto=config.stash.get(_IS_AUTO, False))]
        lines += _left_out((str(spec.id) for spec in local if spec not in free), "left as its own --tx says")
        lines += _left_out(
            (str(spec.id) for spec in specs if spec not in local), "left as it is, for it runs elsewhere"
        )
        if verbosity(config) >= 0:
            for line in lines:
                say(config, f"--gpu-assign: {line}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker which GPU it has, for its records."""
        with guard_of(node.config, "a worker's GPU is not named"):
            environ = getattr(node.gateway.spec, "env", {})
            node.workerinput[_INPUT] = next((environ[name] for name in VARIABLES if name in environ), "")


def keep_assigned(environ: MutableMapping[str, str]) -> None:
    """Set in a worker what it was assigned, where another plugin (pytest-env) has set the variable in every process.

    Args:
        environ: of the worker; what it was assigned is in it once.
    """
    for pair in filter(None, environ.pop(ASSIGNED, "").split(";")):
        name, _, value = pair.partition("=")
        environ[name] = value


def deal(workers: Iterable[str], gpus: tuple[Assignable, ...]) -> Mapping[str, Assignable]:
    """Give each worker a GPU, the first one again after the last."""
    return {worker: gpus[index % len(gpus)] for index, worker in enumerate(workers)} if gpus else {}


def _is_local(spec: Any) -> bool:
    return bool(spec.popen) and not spec.via


def _lines(given: Mapping[str, Assignable], found: Assignables, *, is_auto: bool) -> Iterable[str]:
    if not found.gpus:
        yield f"no GPU to hand out: {found.problem}"
        return
    by_gpu: dict[Assignable, list[str]] = {}
    for worker, gpu in given.items():
        by_gpu.setdefault(gpu, []).append(worker)
    if by_gpu:
        yield "; ".join(f"{', '.join(workers)} on {gpu}" for gpu, workers in by_gpu.items())
    if len(given) > len(found.gpus):
        count = "the only GPU" if len(found.gpus) == 1 else f"{len(found.gpus)} GPUs"
        yield f"{len(given)} workers share {count} and their memory"
    elif is_auto:
        yield "-n auto is one worker for each visible GPU; more of them would share its memory"
    if found.problem:
        yield found.problem


def _left_out(workers: Iterable[str], how: str) -> list[str]:
    names = ", ".join(workers)
    return [f"{names} {how}"] if names else []
