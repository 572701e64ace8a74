"""Who holds tensors and arrays: what the collector does not track, and the parts of models that people know."""

import sys

import pytest

from .world import SIZE_BYTES

MODEL = """
import torch
NET = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
"""
CASES = {
    "parameter": ("def leak(t): return [NET[1].weight]", "torch module", "test_model.NET[1].weight"),
    "buffer": (
        "NET.register_buffer('mask', torch.zeros(2))\ndef leak(t): return [NET.mask]",
        "torch module",
        "test_model.NET.mask",
    ),
    "forward hook": (
        (
            "ACTS = []\ndef watch(acts):\n  return lambda m, i, o: acts.append(o)\n"
            "def leak(t): acts = [t]; NET[0].register_forward_hook(watch(acts))"
        ),
        "forward hook",
        "test_model.NET[0]._forward_hooks[{key}] -> closure of test_model.watch.<locals>.<lambda>: acts[0]",
    ),
    "backward hook": (
        (
            "def watch(acts):\n  return lambda m, i, o: acts.append(o)\n"
            "def leak(t): NET[0].register_full_backward_hook(watch([t]))"
        ),
        "backward hook",
        "test_model.NET[0]._backward_hooks[{key}] -> closure of test_model.watch.<locals>.<lambda>: acts[0]",
    ),
    "tensor hook": (
        "W = torch.zeros(2, requires_grad=True)\ndef leak(t): W.register_hook(lambda g: t)",
        "tensor hook",
        "test_model.W._backward_hooks[{key}] -> closure of test_model.leak.<locals>.<lambda>: t",
    ),
    "optimizer state": (
        (
            "P = torch.nn.Parameter(torch.zeros(3))\nOPT = torch.optim.Adam([P])\n"
            "def leak(t): P.grad = torch.ones(3); OPT.step(); return [OPT.state[P]['exp_avg']]"
        ),
        "optimizer state",
        'test_model.OPT.state[<Parameter>]["exp_avg"]',
    ),
    "attribute of a tensor": (
        "W = torch.zeros(2)\ndef leak(t): W.cache = [t]",
        "instance attribute",
        "test_model.W.cache[0]",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_parts_of_a_torch_model_are_named(world, name):
    torch = pytest.importorskip("torch")
    code, kind, chain = CASES[name]
    ((found_kind, found),) = world(MODEL + code).leak(make=lambda: torch.zeros(4)).found()
    before, mark, after = chain.partition("{key}")
    assert found_kind == kind
    assert found.startswith(before)
    assert found.endswith(after)
    assert not mark or found[len(before) : -len(after)].isdecimal()


def test_all_parameters_of_a_model_are_one_holder(world):
    pytest.importorskip("torch")
    (holder,) = world(MODEL + "def leak(t): return list(NET.parameters())").leak().holding().holders
    assert (holder.kind, holder.chain, holder.count) == ("torch module", "test_model.NET[0].weight", 4)


def test_a_model_and_its_optimizer_are_both_told(world):
    pytest.importorskip("torch")
    code = "OPT = torch.optim.SGD(NET.parameters())\ndef leak(t): return [NET[0].weight]"
    assert {*world(MODEL + code).leak().found()} == {
        ("torch module", "test_model.NET[0].weight"),
        ("optimizer state", 'test_model.OPT.param_groups[0]["params"][0]'),
    }


def test_the_state_of_an_optimizer_and_its_gradients_have_one_holder_each(world):
    pytest.importorskip("torch")
    code = """
OPT = torch.optim.Adam(NET.parameters())
def leak(t):
    NET(torch.ones(1, 2)).sum().backward()
    OPT.step()
    return [state[name] for state in OPT.state.values() for name in ("exp_avg", "exp_avg_sq")]
"""
    (holder,) = world(MODEL + code).leak().holding().holders
    assert (holder.kind, holder.count) == ("optimizer state", 8)


UNTRACKED = {
    'test_model.KEPT["a"]': "KEPT = {}\ndef leak(t): KEPT['a'] = t",
    'test_model.KEPT["a"]["b"][1]': "KEPT = {}\ndef leak(t): KEPT['a'] = {'b': (1, t)}",
    "test_model.KEPT[1]": "def leak(t): global KEPT; KEPT = (1, t)",
    'test_model.Model.cache["a"]': "class Model:\n  cache = {}\ndef leak(t): Model.cache['a'] = t",
    'test_model.MODEL.cache["a"]': "class Model: pass\nMODEL = Model()\ndef leak(t): MODEL.cache = {'a': t}",
    'default argument of test_model.step: cache["a"]': (
        "def step(cache={}): pass\ndef leak(t): step.__defaults__[0]['a'] = t"
    ),
    'test_model.HOOKS[0] -> closure of test_model.leak.<locals>.hook: kept["a"]': (
        "HOOKS = []\ndef leak(t):\n  def hook(): return kept\n  kept = {'a': t}\n  HOOKS.append(hook)"
    ),
    "thread 'loader' in test_model.loop: batch[\"a\"]": (
        "import threading\nEND = threading.Event()\ndef loop(batch): END.wait()\n"
        "def leak(t): threading.Thread(target=loop, args=({'a': t},), name='loader').start()\ndef undo(): END.set()"
    ),
    'a_library.KEPT["a"]["b"]': "import a_library\ndef leak(t): a_library.KEPT['a'] = {'b': t}",
}


@pytest.mark.parametrize("chain", UNTRACKED)
def test_an_array_in_containers_that_are_not_tracked_is_found(world, chain):
    numpy = pytest.importorskip("numpy")
    library = world("KEPT = {}", name="a_library")
    library.module.__file__ = "/usr/lib/python3/site-packages/a_library.py"
    found = world(UNTRACKED[chain]).leak(make=lambda: numpy.zeros(4)).found()
    assert found[0][1] == chain
    assert len(found) == 1


def test_an_array_in_an_array_of_objects_is_found(world):
    numpy = pytest.importorskip("numpy")
    code = "import numpy\nKEPT = {'rows': numpy.empty(3, dtype=object)}\ndef leak(t): KEPT['rows'][1] = t"
    model = world(code).leak(make=lambda: numpy.zeros(4))
    assert model.found() == [("module global", 'test_model.KEPT["rows"].flat[1]')]


def test_many_arrays_in_a_dict_are_one_holder(world):
    numpy = pytest.importorskip("numpy")
    code = "KEPT = {}\ndef leak(*arrays): KEPT.update(enumerate(arrays))"
    (holder,) = world(code).leak(500, make=lambda: numpy.zeros(4)).holding().holders
    assert (holder.chain, holder.count, holder.held_bytes) == ("test_model.KEPT[0]", 500, 500 * SIZE_BYTES)


def test_where_the_time_is_too_short_for_arrays_it_does_not_say_that_nobody_holds_them(world):
    numpy = pytest.importorskip("numpy")
    library = world("KEPT = {}", name="a_library")
    library.module.__file__ = "/usr/lib/python3/site-packages/a_library.py"
    model = world("import a_library\ndef leak(t): a_library.KEPT['a'] = {'b': t}").leak(make=lambda: numpy.zeros(4))
    calls = []

    def slow(value):
        calls.append(value)
        return ()

    for seconds in (0.0, 0.0005, 0.005):
        for holder in model.holding(seconds=seconds, reached_from=slow).holders:
            assert holder.kind != "no Python holder"


def test_frameworks_are_not_imported_for_it(world):
    before = set(sys.modules)
    world("KEPT = []\ndef leak(t): KEPT.append(t)").leak().holding()
    assert set(sys.modules) - before == {"test_model"}
