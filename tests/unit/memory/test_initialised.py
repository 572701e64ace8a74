"""Which devices are initialised, and who did it: seen without an effect on anybody."""

import importlib
import sys
import textwrap
import types
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from pytest_gpuclean.memory.initialised import InitTrace, Place, initialised_devices, place_of


def module_of(name, **members):
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(members)
    return module


class Backend:
    """What torch.cuda does around its initialisation, less the device."""

    def __init__(self):
        self.calls = []
        self.ready = False

    def lazy_init(self):
        if self.ready:
            return
        for call, _ in self.calls:
            call()
        self.ready = True


@pytest.fixture
def backend(monkeypatch):
    """A torch.cuda of its own, as it is once imported."""
    found = Backend()
    cuda = module_of("torch.cuda", _queued_calls=found.calls, is_initialized=lambda: found.ready)
    found.module = module_of("torch", cuda=cuda)
    monkeypatch.setitem(sys.modules, "torch", found.module)
    monkeypatch.setitem(sys.modules, "torch.cuda", cuda)
    for name in ("torch.xpu", "torch.mtia", "torch.hpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return found


@pytest.fixture
def trace(tmp_path):
    found = InitTrace(str(tmp_path))
    yield found
    found.end()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run code as a file of the user's."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    for name in ("made_it", "library_user"):
        sys.modules.pop(name, None)


def test_nothing_is_initialised_until_it_is(backend):
    assert "cuda" not in initialised_devices()
    backend.lazy_init()
    assert "cuda" in initialised_devices()


def test_the_line_that_initialises_is_seen(backend, trace, run):
    trace.begin()
    run(
        "made_it",
        """
        import sys

        def use():
            sys.modules["torch"].lazy_init()
    """,
    )
    torch_does = "def go():\n    for call, _ in calls:\n        call()"
    backend.module.lazy_init = compiled("torch.cuda", "/x/torch/cuda/__init__.py", torch_does, calls=backend.calls)
    sys.modules["made_it"].use()
    assert trace.places == {"cuda": Place("made_it.py:5")}


def test_a_torch_that_is_imported_later_is_seen_too(trace, tmp_path, run, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torch" / "cuda").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("from torch import cuda\nfrom torch import last\n")
    (tmp_path / "torch" / "last.py").write_text("")
    (tmp_path / "torch" / "cuda" / "__init__.py").write_text(
        textwrap.dedent("""
        _queued_calls = []
        _initialized = False

        def is_initialized():
            return _initialized

        def init():
            global _initialized
            for call, _ in _queued_calls:
                call()
            _initialized = True
    """)
    )
    trace.begin()
    run("made_it", "import torch\n\ntorch.cuda.init()\n")
    try:
        assert trace.places == {"cuda": Place("made_it.py:3")}
        assert initialised_devices() == ("cuda",)
    finally:
        for name in ("torch", "torch.cuda", "torch.last"):
            sys.modules.pop(name, None)


def test_one_call_is_added_and_nothing_is_replaced(backend, trace):
    before = dict(vars(sys.modules["torch.cuda"]))
    trace.begin()
    for number in range(5):
        trace.find_spec(f"module{number}")
    assert vars(sys.modules["torch.cuda"]) == before
    assert len(backend.calls) == 1
    assert backend.calls[0][1] == []


def test_it_finds_no_module_and_leaves_no_finder(trace):
    before = list(sys.meta_path)
    trace.begin()
    assert trace.find_spec("anything") is None
    trace.end()
    trace.end()
    assert sys.meta_path == before


def test_after_the_end_nothing_is_noted(backend, trace):
    trace.begin()
    trace.end()
    backend.lazy_init()
    assert trace.places == {}


def test_trouble_of_our_own_never_reaches_the_framework(backend, trace, monkeypatch):
    trace.begin()
    trace._places = None
    backend.lazy_init()
    assert backend.ready


@pytest.mark.parametrize("calls", [None, (), "text", {}])
def test_a_torch_without_such_a_list_is_left_alone(backend, trace, calls):
    sys.modules["torch.cuda"]._queued_calls = calls
    trace.begin()
    backend.lazy_init()
    assert trace.places == {}


def test_a_stand_in_that_raises_is_not_initialised(backend):
    sys.modules["torch.cuda"].is_initialized = lambda: 1 / 0
    assert "cuda" not in initialised_devices()


@pytest.mark.parametrize(
    ("platforms", "expected"), [([], False), (["cpu"], False), (["cpu", "interpreter"], False), (["cpu", "tpu"], True)]
)
def test_jax_counts_where_it_has_more_than_the_processor(monkeypatch, platforms, expected):
    bridge = module_of("jax._src.xla_bridge", _backends=dict.fromkeys(platforms))
    monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", bridge)
    assert ("tpu" in initialised_devices()) is expected


def test_the_simulated_accelerator_is_seen_once_it_is_in_use(simgpu):
    simgpu.module.init()
    assert "simgpu" in initialised_devices()


# -- the place --------------------------------------------------------------------------------------------------------


def compiled(name, file, text, **names):
    space = {"__name__": name, **names}
    exec(compile(textwrap.dedent(text), str(file), "exec"), space)
    return space["go"]


def test_a_frameworks_own_frames_are_passed_over(tmp_path):
    inner = compiled(
        "torch.cuda",
        "/x/torch/cuda/__init__.py",
        "def go(): return place_of(sys._getframe(), root)",
        place_of=place_of,
        sys=sys,
        root=str(tmp_path),
    )
    outer = compiled("conftest", tmp_path / "conftest.py", "\n\ndef go():\n    return inner()", inner=inner)
    assert outer() == Place("conftest.py:4")


def test_a_library_is_told_with_the_users_own_line(tmp_path):
    library = str(Path(pytest.__file__).parent.parent)
    inner = compiled(
        "torch",
        "/x/torch/__init__.py",
        "def go(): return place_of(sys._getframe(), root)",
        place_of=place_of,
        sys=sys,
        root=str(tmp_path),
    )
    middle = compiled("transformers.utils", f"{library}/transformers/utils.py", "def go(): return inner()", inner=inner)
    outer = compiled("test_x", tmp_path / "tests" / "test_x.py", "def go():\n    return middle()", middle=middle)
    assert outer() == Place(".../site-packages/transformers/utils.py:1", "tests/test_x.py:2")


def test_what_only_the_runner_has_called_has_no_place(tmp_path):
    inner = compiled(
        "torch",
        "/x/torch/__init__.py",
        "def go(): return place_of(sys._getframe(), root)",
        place_of=partial(place_of),
        sys=sys,
        root=str(tmp_path),
    )
    runner = compiled("_pytest.python", "/x/_pytest/python.py", "def go(): return inner()", inner=inner)
    assert runner() is None
