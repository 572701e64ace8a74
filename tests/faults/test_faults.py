"""Whatever call of the plugin fails: no test comes out otherwise, nothing is lost, and it is told.

In the plain suite a few faults of each world; `tox -e faults` makes each call fail that the plugin makes. In the
environment: GPUCLEAN_FAULTS (how many of each world, or `all`), GPUCLEAN_FAULTS_SEED (of the order), and
GPUCLEAN_FAULTS_ONLY (a part of a fault's text, as it was told).
"""

import os
import random
import sys

import fakenvml
import pytest

from .judging import defects
from .running import WITH_CARDS, WORLDS, Runner
from .seams import choose

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has everything imported")

_FEW = 2
"""Of each world."""
_LEAST_REACHED = 0.8
"""Not every call is made in each run: what polls, polls more or less often."""


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    if request.param == WITH_CARDS and (reason := fakenvml.unavailable_reason()):
        pytest.skip(f"no stand-in for the driver: {reason}")
    return request.param


@pytest.fixture(scope="module")
def runner(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    cards = fakenvml.World(folder).card("GPU-a").card("GPU-b").published().write() if world == WITH_CARDS else None
    with Runner(folder, cards.environment() if cards else {}) as runner:
        yield runner


def test_no_fault_changes_a_run(world, runner, capsys):
    wanted = os.environ.get("GPUCLEAN_FAULTS", str(_FEW))
    only = os.environ.get("GPUCLEAN_FAULTS_ONLY", "")
    seed = int(os.environ.get("GPUCLEAN_FAULTS_SEED", "1" if wanted == str(_FEW) else random.randrange(10**6)))
    with capsys.disabled():
        print(f"\nfaults of {world}: GPUCLEAN_FAULTS_SEED={seed}")
    plain, clean = runner.run_plain(world), runner.run(world)
    assert plain["status"] in (0, 1), plain["output"]
    assert clean["status"] in (0, 1), clean["output"]
    faults = [fault for fault in choose(clean["counts"], random.Random(seed)) if only in str(fault)]
    most = len(faults) if wanted == "all" or only else int(wanted)
    found, reached = [], 0
    for fault in faults:
        if reached == most:
            break
        faulty = runner.run(world, fault)
        reached += bool(faulty["raised"])
        wrong = defects(plain, clean, faulty, runner.folder, fault)
        found += [f"{fault}:\n    " + "\n    ".join(wrong)] if wrong else []
    assert not found, f"{len(found)} of {most} faults, by GPUCLEAN_FAULTS_SEED={seed}\n" + "\n".join(found)
    assert reached >= _LEAST_REACHED * most
