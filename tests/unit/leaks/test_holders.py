"""Who holds it: for each kind of holder the words that name it, and how holders are counted and ranked."""

import ctypes

import pytest

from pytest_gpuclean.leaks import causes
from pytest_gpuclean.leaks.forward import Forward
from pytest_gpuclean.leaks.holders import Target, find_holders
from pytest_gpuclean.leaks.roots import Roots

from . import kinds
from .world import SIZE_BYTES

CASES = {**kinds.DATA, **kinds.OBJECTS, **kinds.FUNCTIONS, **kinds.PROGRAM}


@pytest.mark.parametrize("name", CASES)
def test_a_holder_is_named(world, name):
    code, kind, chain = CASES[name]
    found = world(code).leak().found()
    assert found[0] == (kind, chain)
    assert len(found) == 1


def test_two_holders_of_one_tensor_are_both_told(world):
    code = """
    class Box: pass
    CACHE, BOX = [], Box()
    def leak(t): CACHE.append(t); BOX.last = {"a": [t]}
    """
    found = world(code).leak().found()
    assert found == [
        ("module global", "test_model.CACHE[0]"),
        ("instance attribute", 'test_model.BOX.last["a"][0]'),
    ]


def test_two_attributes_of_one_object_are_both_told(world):
    code = """
    class Box: pass
    BOX = Box()
    def leak(t): BOX.first = [t]; BOX.second = [[t]]
    """
    assert {chain for _, chain in world(code).leak().found()} == {
        "test_model.BOX.first[0]",
        "test_model.BOX.second[0][0]",
    }


def test_an_object_with_many_attributes_is_one_holder(world):
    code = """
    class Box: pass
    BOX = Box()
    def leak(*tensors):
        for number, tensor in enumerate(tensors): setattr(BOX, f"part_{number}", [tensor])
    """
    (holder,) = world(code).leak(10).holding().holders
    assert (holder.chain, holder.count, holder.held_bytes) == ("test_model.BOX.part_0[0]", 10, 10 * SIZE_BYTES)


def test_what_is_in_one_container_is_one_holder(world):
    code = "CACHE = {'a': []}\ndef leak(*tensors): CACHE['a'] += tensors"
    (holder,) = world(code).leak(1000).holding().holders
    assert (holder.kind, holder.chain) == ("module global", 'test_model.CACHE["a"][0]')
    assert (holder.count, holder.held_bytes) == (1000, 1000 * SIZE_BYTES)


def test_the_largest_holder_comes_first(world):
    code = """
    SMALL, LARGE = [], []
    def leak(*tensors): SMALL.extend(tensors[:2]); LARGE.extend(tensors[2:])
    """
    holders = world(code).leak(12).holding().holders
    assert [(holder.chain, holder.count) for holder in holders] == [
        ("test_model.LARGE[0]", 10),
        ("test_model.SMALL[0]", 2),
    ]


def test_a_hundred_holders_are_all_found(world):
    code = """
    def leak(*tensors):
        for number, tensor in enumerate(tensors): globals()[f"KEPT_{number}"] = [tensor]
    """
    holding = world(code).leak(100).holding()
    assert {holder.chain for holder in holding.holders} == {f"test_model.KEPT_{number}[0]" for number in range(100)}
    assert holding.cut == ""


def test_of_two_modules_the_one_that_defines_it_is_named(world):
    world("CACHE = []", name="test_defining")
    holder = "from test_defining import CACHE\ndef leak(t): CACHE.append(t)"
    assert world(holder, name="test_a").leak().found() == [("module global", "test_defining.CACHE[0]")]


def test_the_module_of_a_user_is_named_before_that_of_a_library(world):
    library = world("KEPT = []", name="a_library")
    library.module.__file__ = "/usr/lib/python3/site-packages/a_library.py"
    holder = "import a_library\nKEPT = [[[0]]]\ndef leak(t): a_library.KEPT.append(t); KEPT[0][0].append(t)"
    assert world(holder).leak().found() == [
        ("module global", "test_model.KEPT[0][0][1]"),
        ("module global", "a_library.KEPT[0]"),
    ]


def test_a_second_name_is_told(world):
    (holder,) = world("A = B = []\ndef leak(t): A.append(t)").leak().holding().holders
    assert (holder.chain, holder.detail) == ("test_model.A[0]", "also test_model.B")


def test_a_fixture_is_called_as_the_caller_calls_it(world):
    model = world("class Model: pass\nMODEL = Model()\ndef leak(t): MODEL.layers = [t]").leak()
    known = {id(model.module.MODEL): "fixture 'model' (module scope)"}
    assert model.found(known=known) == [("fixture", "fixture 'model' (module scope): model.layers[0]")]


def test_a_fixture_that_is_the_tensor_itself_is_named(world):
    model = world("def leak(t): global KEPT; KEPT = t").leak()
    known = {id(model.module.KEPT): "fixture 'weights' (session scope)"}
    assert ("fixture", "fixture 'weights' (session scope)") in model.found(known=known)


def test_a_definition_of_a_fixture_is_seen_through(world):
    code = """
    class FixtureDef: pass
    FixtureDef.__module__ = "_pytest.fixtures"
    DEFINITION = FixtureDef()
    def leak(t): DEFINITION.argname = "model"; DEFINITION.cached_result = ({"a": t}, None, None)
    """
    model = world(code).leak()
    words = "fixture 'model' (module scope)"
    assert model.found(known={id(model.module.DEFINITION): words}) == [("fixture", f'{words}: model["a"]')]
    assert model.found() == [("fixture", "fixture 'model': model[\"a\"]")]


def test_a_test_of_pytest_is_named_by_its_place(world):
    code = """
    class Node:
        __slots__ = ("__dict__", "name", "parent")
        def __init__(self, name, parent): self.name, self.parent = name, parent
    Node.__module__ = "_pytest.nodes"
    class Session(Node): pass
    Session.__module__ = "_pytest.main"
    class Function(Node): pass
    ITEM = Function("test_b[1]", Node("TestA", Node("test_a.py", Session("", None))))
    def leak(t): ITEM.funcargs = {"x": [t]}
    """
    chain = 'pytest\'s Function test_a.py::TestA::test_b[1]: funcargs["x"][0]'
    assert world(code).leak().found() == [("pytest", chain)]


def test_a_report_of_this_pytest_is_named(world, request):
    report = pytest.TestReport(request.node.nodeid, ("", 0, ""), {}, "passed", None, "call")
    model = world("def leak(t): REPORT.user_properties.append(('loss', t))", REPORT=report).leak()
    assert model.found() == [("pytest", f"pytest's report of {report.nodeid}: user_properties[0][1]")]


def test_a_test_of_this_pytest_is_named(world, request):
    model = world("def leak(t): NODE.my_own = [t]", NODE=request.node).leak()
    packages = "leaks::" if request.node.getparent(pytest.Package) and pytest.version_tuple < (8,) else ""
    name = f"{packages}test_holders.py::test_a_test_of_this_pytest_is_named"
    assert model.found() == [("pytest", f"pytest's Function {name}: my_own[0]")]
    del request.node.my_own


def test_objects_of_the_caller_are_no_holders(world):
    code = "OURS = []\nKEPT = []\ndef leak(t): OURS.append(t); KEPT.append(t)"
    model = world(code).leak()
    assert model.found(ours=[id(model.module.OURS)]) == [("module global", "test_model.KEPT[0]")]
    assert len(model.found()) == 2


def test_a_variable_of_a_running_function_is_named(world):
    code = """
    def leak(t): TARGETS.append(t)
    def hold():
        rows = [TARGETS.pop()]
        return search()
    TARGETS = []
    """
    model = world(code).leak()
    model.module.search = model.found
    assert model.module.hold() == [("running function", "running function test_model.hold: rows[0]")]


def test_where_a_thread_stands_is_told(world):
    code, *_ = kinds.PROGRAM["thread"]
    (holder,) = world(code).leak().holding().holders
    line = (
        code.splitlines().index("def loop(batch): END.wait()") + 1 + len("class Tensor:\n    pass\n".splitlines()) + 1
    )
    assert holder.detail.startswith(f"now at test_model.py:{line} in loop, inside threading.py:")


def test_a_thread_that_threading_does_not_know_is_told(world):
    code = """
    import _thread, threading, time
    END, BEGUN, ENDED = threading.Event(), threading.Event(), threading.Event()
    def loop(batch):
        BEGUN.set()
        END.wait()
        ENDED.set()
    def leak(t): _thread.start_new_thread(loop, ([t],)); BEGUN.wait()
    def undo(): END.set(); ENDED.wait()
    """
    ((kind, chain),) = world(code).leak().found()
    assert kind == "thread"
    assert chain.endswith(", not started by threading' in test_model.loop: batch[0]")


def test_where_a_generator_is_suspended_is_told(world):
    (holder,) = (
        world("def rows(x):\n    yield x\ndef leak(t): global KEPT; KEPT = rows(t); next(KEPT)")
        .leak()
        .holding()
        .holders
    )
    assert holder.detail == "suspended at test_model.py:5 in rows"


def test_the_work_that_an_executor_still_has_is_named(world):
    code = """
    import concurrent.futures, threading
    END = threading.Event()
    POOL = concurrent.futures.ThreadPoolExecutor(1)
    def step(x): pass
    def leak(t): POOL.submit(END.wait); POOL.submit(step, [t])
    def undo(): END.set(); POOL.shutdown()
    """
    found = world(code).leak().found()
    assert found[0] == ("executor", "test_model.POOL._work_queue -> work item of test_model.step: args[0][0]")
    assert {kind for kind, _ in found[1:]} <= {"executor", "weak dictionary"}


def test_many_exceptions_in_a_list_are_one_holder(world):
    code = """
    KEPT = []
    def step(u): raise ValueError
    def leak(*tensors):
        while tensors:
            try: step(tensors[0])
            except ValueError as error: KEPT.append(error.with_traceback(error.__traceback__.tb_next))
            tensors = tensors[1:]
    """
    (holder,) = world(code).leak(200).holding().holders
    assert (holder.kind, holder.count) == ("exception", 200)
    assert holder.chain == "test_model.KEPT[0] -> traceback of ValueError in test_model.step: u"


def test_a_suffix_ends_the_chain(world):
    model = world("WEIGHTS = []\ndef leak(t): WEIGHTS.append(t)").leak(suffix=".grad")
    assert model.found() == [("gradient", "test_model.WEIGHTS[0].grad")]


def test_all_that_stands_on_a_block_counts_once(world):
    model = world("KEPT = []\ndef leak(a, b): KEPT.append(b); return [a, b]").leak(2)
    model.targets[:] = [Target(tuple(each.values[0] for each in model.targets), SIZE_BYTES)]
    (holder,) = model.holding().holders
    assert (holder.chain, holder.count, holder.held_bytes) == ("test_model.KEPT[0]", 1, SIZE_BYTES)


def test_what_only_code_in_c_holds_has_no_holder(world):
    model = world("def leak(t): incref(t)", incref=lambda value: ctypes.pythonapi.Py_IncRef(ctypes.py_object(value)))
    model.leak()
    assert model.found() == [("no Python holder", "no Python object refers to it")]
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(model.targets[0].values[0]))


def test_what_an_object_holds_that_only_code_in_c_holds_is_named(world):
    code = """
    import weakref
    class Handle: pass
    KEPT = []
    def leak(t): h = Handle(); h.buffer = [t]; incref(h); KEPT.append(weakref.ref(h))
    """
    model = world(code, incref=lambda value: ctypes.pythonapi.Py_IncRef(ctypes.py_object(value)))
    model.leak()
    assert model.found() == [("no Python holder", "test_model.Handle that no Python object refers to: buffer[0]")]
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(model.module.KEPT[0]()))


def test_a_function_that_only_code_in_c_keeps_from_ending_is_named(world):
    code = """
    import sys
    def leak(t): incref(sys._getframe())
    """
    kept = []

    def incref(frame):  # as greenlet does
        kept.append(id(frame))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(frame))

    model = world(code, incref=incref)
    model.leak()
    assert model.found() == [("no Python holder", "frame of test_model.leak: t")]
    ctypes.pythonapi.Py_DecRef(ctypes.cast(kept[0], ctypes.py_object))


def test_a_cycle_that_is_not_collected_is_named(world):
    code = """
    class Node: pass
    def leak(t):
        first, second = Node(), Node()
        first.next, second.next, second.tensor = second, first, [t]
        incref(first)
        KEPT.append(weakref.ref(first))
    import weakref
    KEPT = []
    """
    model = world(code, incref=lambda value: ctypes.pythonapi.Py_IncRef(ctypes.py_object(value)))
    model.leak()
    assert model.found() == [("reference cycle", "reference cycle of test_model.Node: tensor[0]")]
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(model.module.KEPT[0]()))


def test_what_gc_has_frozen_is_found_from_the_module(world):
    code = "import gc\nKEPT = {'a': []}\ndef leak(t): KEPT['a'].append(t); gc.freeze()\ndef undo(): gc.unfreeze()"
    assert world(code).leak().found() == [("module global", 'test_model.KEPT["a"][0]')]


def test_a_list_of_ten_thousand_links_is_followed(world):
    code = """
    class Node:
        def __init__(self, next, tensor=None): self.next, self.tensor = next, tensor
    def leak(t):
        global HEAD
        HEAD = Node(None, t)
        for _ in range(10_000): HEAD = Node(HEAD)
    def undo():
        global HEAD
        while HEAD is not None: HEAD = HEAD.next
    """
    assert world(code).leak().found() == [
        (
            "instance attribute",
            "test_model.HEAD.next.next.next.next.next -> ... 9,992 more ... -> test_model.Node.next.next.next.tensor",
        )
    ]


def test_lists_in_lists_are_followed(world):
    code = """
    def leak(t):
        global KEPT
        KEPT = t
        for _ in range(500): KEPT = [KEPT]
    """
    assert world(code).leak().found() == [
        ("module global", "test_model.KEPT[0][0][0][0][0] -> ... 491 more ... -> list[0][0][0][0]")
    ]


def test_a_hundred_thousand_targets_are_counted(world):
    model = world("KEPT = []\ndef leak(*tensors): KEPT.extend(tensors)").leak(100_000)
    (holder,) = model.holding().holders
    assert (holder.chain, holder.count) == ("test_model.KEPT[0]", 100_000)


def test_a_wide_table_of_data_is_looked_into_last(world):
    code = """
        TABLE = [[row] for row in range(10_000)]
        KEPT = {"layer": {"kept": []}}
        def leak(value): KEPT["layer"]["kept"].append(value)
    """
    model = world(code).leak()
    table, own = model.module.TABLE, {id(model)}  # a variable for the value or for a row would lead to it
    forward = Forward(Roots({}))
    forward.run({id(model.targets[0].values[0])}, own, float("inf"))
    assert forward.way_to(forward.find(model.targets[0].values))[-2] is model.module.KEPT["layer"]["kept"]
    assert forward.find(table[5_000:5_001]) is None
    forward.run({id(table[5_000])}, own, float("inf"))
    assert forward.way_to(forward.find(table[5_000:5_001]))[-2:] == [table, table[5_000]]
    forward.run({id(object)}, own, float("inf"))
    assert (forward.is_done, forward.has_all) == (True, False)


def test_a_walk_that_has_nowhere_to_begin_ends():
    roots = Roots({})
    roots.modules.users = roots.running.variables = list
    forward = Forward(roots)
    forward.run({id(roots)}, (), float("inf"))
    assert not forward.has_all


def test_with_no_time_it_says_how_many_were_not_followed(world):
    holding = world("KEPT = []\ndef leak(*tensors): KEPT.extend(tensors)").leak(5).holding(seconds=0.0)
    assert holding.holders == ()
    assert holding.cut == "0 of 5 followed"


def test_nothing_has_no_holder():
    assert find_holders([], reached_from=lambda value: ()) == ((), "")


def test_every_kind_that_is_named_is_known():
    assert {kind for _, kind, _ in CASES.values()} <= {*causes.KINDS}
    assert all(cause == cause.lower() and " " not in cause for cause in map(causes.cause_of, causes.KINDS))
