"""The search runs none of anybody's code, prints no value, and leaves nothing behind."""

import gc
import sys
import threading
import types
import warnings
import weakref

import pytest

from . import kinds

HOSTILE = """
CALLS = []

def told(name):
    def method(self, *arguments, **keywords):
        CALLS.append(name)
        raise RuntimeError(name)
    return method

METHODS = (
    "__getattribute__", "__getattr__", "__setattr__", "__eq__", "__ne__", "__hash__", "__repr__", "__str__", "__len__",
    "__bool__", "__iter__", "__contains__", "__getitem__", "__call__", "__dir__", "__reduce__", "__sizeof__", "__lt__",
    "__instancecheck__", "__subclasscheck__", "__enter__", "__get__", "__index__", "__length_hint__", "keys", "items",
)
class Meta(type):
    pass
for name in METHODS:
    if name != "__getattribute__":
        setattr(Meta, name, told(f"Meta.{name}"))
class Hostile(metaclass=Meta):
    __class__ = property(told("__class__"))
    __dict__ = property(told("__dict__"))
    __slots__ = ("held", "more", "__weakref__")
class Attributes(metaclass=Meta):
    __class__ = property(told("__class__"))
for name in METHODS:
    type.__setattr__(Hostile, name, told(name))
    type.__setattr__(Attributes, name, told(name))
Meta.__getattribute__ = told("Meta.__getattribute__")
SLOT = [member for name, member in type.__dict__["__dict__"].__get__(Hostile).items() if name == "held"][0]
def hold(value):
    hostile = object.__new__(Hostile)
    SLOT.__set__(hostile, value)
    return hostile
def own(value):
    owner = object.__new__(Attributes)
    object.__setattr__(owner, "held", value)
    return owner
"""


CHAINS = {
    "test_model.KEPT.held[0]": "def leak(t): global KEPT; KEPT = hold([t])",
    "test_model.KEPT.held[1]": "def leak(t): global KEPT; KEPT = own([0, t])",
    "test_model.KEPT[0].held.held": "KEPT = []\ndef leak(t): KEPT.append(hold(own(t)))",
    "test_model.KEPT[2]": "KEPT = []\ndef leak(t): KEPT.extend([object.__new__(Hostile), Hostile, t])",
    "test_model.KEPT -> closure of test_model.leak.<locals>.hook: t": """
def leak(t):
    global KEPT
    def hook(): return a, t
    a = object.__new__(Hostile)
    KEPT = hook
""",
    "test_model.KEPT -> generator test_model.rows: x.held": """
def rows(a, x): yield
def leak(t): global KEPT; KEPT = rows(hold(1), hold(t)); next(KEPT)
""",
    'test_model.KEPT["a"]': """
class Odd(dict): pass
for name in METHODS: setattr(Odd, name, told(name))
def leak(t): global KEPT; KEPT = dict.__new__(Odd); dict.update(KEPT, a=t)
""",
    "test_model.KEPT[0]": """
class Odd(list): pass
for name in METHODS: setattr(Odd, name, told(name))
def leak(t): global KEPT; KEPT = list.__new__(Odd); list.append(KEPT, t)
""",
    "test_model.KEPT.held_": """
class Odd(str):
    __eq__ = told("eq")
    def __hash__(self): return str.__hash__(self)
class Box: pass
KEPT = Box()
def leak(t): KEPT.__dict__[Odd("held")] = 1; KEPT.held_ = t
""",
}


@pytest.mark.parametrize("chain", CHAINS)
def test_no_code_of_an_object_runs(world, chain):
    model = world(HOSTILE + CHAINS[chain]).leak()
    del model.module.CALLS[:]
    assert [found for _, found in model.found()] == [chain]
    assert model.module.CALLS == []


def test_the_key_of_a_hostile_object_is_its_type(world):
    code = HOSTILE + "ONE = object.__new__(Hostile)\nHostile_hash = 1\n"
    code += "def leak(t):\n  global KEPT\n  type.__setattr__(Hostile, '__hash__', lambda self: 1)\n  KEPT = {ONE: t}\n"
    code += "  type.__setattr__(Hostile, '__hash__', told('hash'))"
    model = world(code).leak()
    del model.module.CALLS[:]
    assert model.found() == [("module global", "test_model.KEPT[<Hostile>]")]
    assert model.module.CALLS == []


@pytest.mark.parametrize("name", ["magic mock", "mock", "mock's return value"])
def test_a_mock_is_not_called(world, name):
    model = world(kinds.OBJECTS[name][0]).leak()
    mock = model.module.KEPT
    calls = len(mock.mock_calls)
    before = set(map(id, gc.get_referents(mock)))
    model.holding()
    assert len(mock.mock_calls) == calls
    assert set(map(id, gc.get_referents(mock))) == before


def test_a_module_that_loads_on_touch_stays_unloaded(world, tmp_path, monkeypatch):
    import importlib.util

    (tmp_path / "lazy_one.py").write_text("LOADED = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = importlib.util.find_spec("lazy_one")
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_one", lazy)
    loader.exec_module(lazy)
    touched = []
    asking = types.ModuleType("asking")
    asking.__getattr__ = touched.append
    monkeypatch.setitem(sys.modules, "asking", asking)
    monkeypatch.setitem(sys.modules, "no_module", object())
    monkeypatch.setitem(sys.modules, "none", None)
    modules = set(sys.modules)
    model = world("KEPT = []\ndef leak(t): KEPT.append(t)", lazy=lazy, asking=asking).leak()
    assert model.found() == [("module global", "test_model.KEPT[0]")]
    assert "LOADED" not in object.__getattribute__(lazy, "__dict__")
    assert touched == []
    assert set(sys.modules) - modules == {"test_model"}


def test_dead_proxies_are_no_obstacle(world):
    code = """
    import weakref
    class Key: pass
    KEPT = [weakref.proxy(Key()), weakref.ref(Key())]
    def leak(t): KEPT.append(t)
    """
    assert world(code).leak().found() == [("module global", "test_model.KEPT[2]")]


def test_names_that_are_no_text_or_too_long_are_cleaned(world):
    code = """
    import threading
    END = threading.Event()
    def loop(batch): END.wait()
    class Model: pass
    Model.__qualname__ = "Mo\\ndel" + "x" * 10_000
    Model.__module__ = 7
    HOOKS = []
    def leak(t):
        def hook(): return t
        hook.__qualname__ = "ho\\x1b[31mok" * 1000
        hook.__module__ = object()
        HOOKS.append(hook)
        m = Model()
        setattr(m, "a\\nb", t)
        KEPT.add(m)
        threading.Thread(target=loop, args=(t,), name="lo\\nader" + "y" * 10_000).start()
    KEPT = set()
    def undo(): END.set()
    """
    found = world(code).leak().found()
    assert {kind for kind, _ in found} == {"closure", "thread", "module global"}
    assert all(chain.isprintable() and len(chain) < 400 for _, chain in found)


SECRET = "hunter2-s3cr3t"


def test_no_value_is_ever_printed(world):
    code = f"""
    SECRET = {SECRET!r}
    class Text(str): pass
    class Key:
        def __init__(self, text): self.text = text
        def __repr__(self): return self.text
    KEPT = {{}}
    def leak(*tensors):
        keys = [SECRET, SECRET.encode(), (SECRET,), Text("x" + SECRET), Key(SECRET), 12345678901234567890]
        for key, tensor in zip(keys, tensors): KEPT[key] = [tensor]
    """
    model = world(code).leak(6)
    chains = []
    for target in list(model.targets):
        model.targets[:] = [target]
        del target
        chains += [str(holder) for holder in model.holding().holders]
    text = " ".join(chains)
    assert "hunter2" not in text
    assert "1234567890" not in text
    assert "[<str of 14>]" in text
    assert "[<bytes>]" in text
    assert "[<tuple>]" in text
    assert "[<Text>]" in text
    assert "[<Key>]" in text


@pytest.mark.parametrize(
    "code",
    [
        "class Box: pass\nKEPT = Box()\ndef leak(t): setattr(KEPT, SECRET, t)",
        "class Box: pass\ndef leak(t): setattr(Box, SECRET, t)",
        "def step(): pass\ndef leak(t): setattr(step, SECRET, t)",
        "def leak(t): globals()[SECRET] = t",
        "import threading\nKEPT = threading.local()\ndef leak(t): setattr(KEPT, SECRET, t)",
    ],
)
def test_a_name_that_no_code_could_write_is_not_printed(world, code):
    found = world(code, SECRET=SECRET).leak().holding().holders
    assert "<str of 14>" in str(found)
    assert SECRET not in str(found)


def test_dicts_that_other_threads_change_are_no_obstacle(world):
    model = world("KEPT = {}\ndef leak(t): KEPT['a'] = {'b': t}").leak()
    kept, ended, errors = model.module.KEPT, threading.Event(), []

    def churn():
        number = 0
        while not ended.is_set():
            number += 1
            kept[f"k{number % 1000}"] = {"x": [number]}
            kept.pop(f"k{(number * 7) % 1000}", None)

    thread = threading.Thread(target=churn, name="churn")
    thread.start()
    try:
        for _ in range(6):
            if ("module global", 'test_model.KEPT["a"]["b"]') not in model.found():
                errors.append(model.found())
    finally:
        ended.set()
        thread.join()
    assert errors == []


def test_objects_that_go_meanwhile_are_no_obstacle(world):
    model = world("KEPT = []\ndef leak(t): KEPT.append([t])").leak()
    kept, ended = model.module.KEPT, threading.Event()

    def churn():
        while not ended.is_set():
            kept.append([kept[0][0]])
            kept.pop()

    thread = threading.Thread(target=churn, name="churn")
    thread.start()
    try:
        for _ in range(10):
            assert model.found()[0][1].startswith("test_model.KEPT")
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("name", [*kinds.FUNCTIONS, *kinds.PROGRAM])
def test_the_search_leaves_nothing_behind(world, name):
    cases = {**kinds.FUNCTIONS, **kinds.PROGRAM}
    model = world(cases[name][0]).leak()
    model.holding()  # what is made once: caches of the interpreter, a frame's dict before 3.13
    value = weakref.ref(model.targets[0].values[0])
    references, weak = sys.getrefcount(value()), weakref.getweakrefcount(value())
    grown = []
    for _ in range(3):  # once is no proof: libraries make things of their own now and then
        gc.collect()
        objects = len(gc.get_objects())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            modules = set(sys.modules)
            model.holding()
            assert set(sys.modules) == modules
        warned, caught = len(caught), None
        references_now, weak_now = sys.getrefcount(value()), weakref.getweakrefcount(value())
        assert (warned, references_now, weak_now) == (0, references, weak)
        gc.collect()
        grown.append(len(gc.get_objects()) - objects)  # a number: a failure must not keep the whole heap
    assert min(grown) <= 0


def test_an_instance_gets_no_dict_for_being_looked_at(world):
    code = "class Model:\n  def __init__(self, v): self.v = v\ndef leak(t): global KEPT; KEPT = Model([t])"
    model = world(code).leak()
    before = [type(each) for each in gc.get_referents(model.module.KEPT)]
    assert model.found() == [("instance attribute", "test_model.KEPT.v[0]")]
    assert [type(each) for each in gc.get_referents(model.module.KEPT)] == before


def test_what_was_let_go_is_freed_after_the_search(world):
    model = world("KEPT = []\ndef leak(t): KEPT.append(t)").leak()
    value = weakref.ref(model.targets[0].values[0])
    gc.disable()
    try:
        model.holding()
        model.targets.clear()
        model.module.KEPT.clear()
        assert value() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(world, enabled):
    model = world("KEPT = []\ndef leak(t): KEPT.append(t)").leak()
    gc.enable() if enabled else gc.disable()
    try:
        model.holding()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_a_context_variable_or_local_is_not_made(world):
    model = world("import threading\nLOCAL = threading.local()\nKEPT = []\ndef leak(t): KEPT.append((LOCAL, t))").leak()
    before = len(gc.get_referents(model.module.LOCAL))
    assert model.found() == [("module global", "test_model.KEPT[0][1]")]
    assert len(gc.get_referents(model.module.LOCAL)) == before


def test_what_the_caller_passes_may_fail(world):
    def broken(value):
        raise RuntimeError("no")

    code = "import contextvars\nV = contextvars.ContextVar('v')\ndef leak(t): V.set(t)\ndef undo(): V.set(None)"
    holding = world(code).leak().holding(reached_from=broken)
    assert holding.cut == "the search ended early: RuntimeError: no"
