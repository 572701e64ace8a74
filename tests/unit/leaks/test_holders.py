"""Who holds it: for each kind of holder, the words that name it."""

import gc

import pytest

from .world import World

TENSOR = "class Tensor: pass\n"


@pytest.fixture
def world(tmp_path):
    made = []

    def make(code, **how):
        made.append(World(TENSOR + code, tmp_path, **how))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.mark.parametrize(
    ("code", "kind", "chain"),
    [
        ("def leak(t): global KEPT; KEPT = t", "module global", "test_model.KEPT"),
        ('CACHE = {"a": []}\ndef leak(t): CACHE["a"].append(t)', "module global", 'test_model.CACHE["a"][0]'),
        (
            "class Model:\n  cache = []\ndef leak(t): Model.cache.append(t)",
            "class attribute",
            "test_model.Model.cache[0]",
        ),
        (
            "class Model: pass\nMODEL = Model()\ndef leak(t): MODEL.cache = {1: t}",
            "instance attribute",
            "test_model.MODEL.cache[1]",
        ),
        (
            "HOOKS = []\ndef leak(t):\n  def hook(): return t\n  HOOKS.append(hook)",
            "closure",
            "test_model.HOOKS[0] -> closure of test_model.leak.<locals>.hook: t",
        ),
        (
            "def leak(t):\n  global BATCHES\n  def batches(x): yield x\n  BATCHES = batches([t])\n  next(BATCHES)",
            "generator",
            "test_model.BATCHES -> generator test_model.leak.<locals>.batches: x[0]",
        ),
    ],
)
def test_a_holder_is_named(world, code, kind, chain):
    if not hasattr((lambda: 0).__code__, "co_qualname"):
        chain = chain.replace("generator test_model.leak.<locals>.batches", "generator test_model.batches")
    assert world(code).leak().found() == [(kind, chain)]


def test_the_search_leaves_collection_as_it_was(world):
    world("def leak(t): global KEPT; KEPT = t").leak().holding()
    assert gc.isenabled()
