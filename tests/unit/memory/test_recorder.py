"""Which line made a tensor or an array is noted, and nothing else is different while that is done or afterwards."""

import gc
import inspect
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import pytest

from pytest_gpuclean.memory.places import Places
from pytest_gpuclean.memory.recorder import SiteRecorder
from pytest_gpuclean.memory.storages import StorageReaders
from unit.fakes import remove

numpy = pytest.importorskip("numpy")

HERE = "test_recorder.py"
TESTS = Path(__file__).parents[2]


def line_of(text):
    """The number of the one line of this file that says this."""
    lines = inspect.getsource(sys.modules[__name__]).splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.rstrip().endswith(f"# {text}")]
    return number


class Recorded:
    def __init__(self, traces_arrays=False):
        self.recorder = SiteRecorder(Places(__file__.rpartition(HERE)[0].rstrip("/\\")), traces_arrays=traces_arrays)
        self.readers = StorageReaders()

    def site_of(self, value):
        return self.recorder.site_of(self.readers.reader_of(type(value))(value).identity, value)

    def was_made_in(self, value, text, function):
        return self.site_of(value).split(", from ")[0] == f"{HERE}:{line_of(text)} in {function}"


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def made_by_a_helper(torch):
    return torch.zeros(100)  # helper


# -- torch ----------------------------------------------------------------------------------------------------------


def test_each_tensor_has_the_line_that_made_it(torch):
    recorded = Recorded()
    with recorded.recorder:
        made = torch.ones(10)  # made
        computed = made * 2  # computed
        given = torch.tensor([1.0, 2.0])  # given
        changed = torch.ones(3).add_(1)  # changed
        grown = torch.empty(0)
        grown.resize_(1000)  # grown
        frozen = torch.nn.Linear(3, 4).weight  # frozen
    here = "test_each_tensor_has_the_line_that_made_it"
    for value, text in [
        (made, "made"),
        (computed, "computed"),
        (given, "given"),
        (changed, "changed"),
        (grown, "grown"),
        (frozen, "frozen"),
    ]:
        assert recorded.was_made_in(value, text, here), text


def test_a_helper_is_named_with_the_line_that_called_it(torch):
    recorded = Recorded()
    with recorded.recorder:
        value = made_by_a_helper(torch)  # calls
    here = "test_a_helper_is_named_with_the_line_that_called_it"
    assert recorded.site_of(value) == (
        f"{HERE}:{line_of('helper')} in made_by_a_helper, from {HERE}:{line_of('calls')} in {here}"
    )


def test_views_and_what_is_done_in_place_keep_the_site_of_the_memory(torch):
    recorded = Recorded()
    with recorded.recorder:
        base = torch.ones(10)  # base
        view = base.view(2, 5)[1]
        base.mul_(3)
        detached = base.detach()
    here = "test_views_and_what_is_done_in_place_keep_the_site_of_the_memory"
    assert {recorded.site_of(value) for value in (base, view, detached)} == {f"{HERE}:{line_of('base')} in {here}"}


def test_gradients_and_the_state_of_an_optimizer_have_theirs(torch):
    recorded = Recorded()
    with recorded.recorder:
        weight = torch.nn.Parameter(torch.ones(5))
        weight.sin().sum().backward()  # backward
        optimizer = torch.optim.SGD([weight], momentum=0.9)
        optimizer.step()  # step
    here = "test_gradients_and_the_state_of_an_optimizer_have_theirs"
    assert recorded.was_made_in(weight.grad, "backward", here)
    assert recorded.was_made_in(optimizer.state[weight]["momentum_buffer"], "step", here)


def test_what_is_made_of_an_array_has_the_line_of_either(torch):
    recorded = Recorded(traces_arrays=True)
    with recorded.recorder:
        array = numpy.arange(100)  # array
        tensor = torch.from_numpy(array)
    here = "test_what_is_made_of_an_array_has_the_line_of_either"
    assert recorded.was_made_in(tensor, "array", here)


def test_inner_tensors_of_a_subclass_have_the_line_too(torch):
    recorded = Recorded()
    with warnings.catch_warnings(), recorded.recorder:
        warnings.simplefilter("ignore")
        ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
        result = ragged.sin()  # ragged
    assert recorded.was_made_in(result._values, "ragged", "test_inner_tensors_of_a_subclass_have_the_line_too")


def test_a_gradient_on_a_device_has_the_line_that_asked_for_it(simgpu, tmp_path):
    script = tmp_path / "train.py"  # apart: torch makes a queue for each device at the first backward pass of a process
    script.write_text(
        """if True:
        import simgpu
        simgpu.load()
        import torch
        from pytest_gpuclean.memory.recorder import SiteRecorder
        from pytest_gpuclean.memory.storages import StorageReaders

        recorder, readers = SiteRecorder(), StorageReaders()
        with recorder:
            weight = torch.ones(5, device="simgpu:0", requires_grad=True)
            weight.sin().sum().backward()
        for value in (weight, weight.grad):
            print(recorder.site_of(readers.reader_of(type(value))(value).identity, value))
        """,
        encoding="utf-8",
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS)])}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.splitlines() == ["train.py:10 in <module>", "train.py:11 in <module>"]


def test_what_was_made_before_or_after_or_in_another_thread_is_not_known(torch):
    recorded = Recorded()
    before = torch.ones(10)
    made = []
    with recorded.recorder:
        thread = threading.Thread(target=lambda: made.append(torch.ones(11)))
        thread.start()
        thread.join()
        view = before[2:]
    after = torch.ones(12)
    assert [recorded.site_of(value) for value in (before, *made, after)] == [""] * 3
    assert recorded.site_of(view) == ""


def test_an_address_that_was_given_to_something_of_another_size_is_not_taken_for_the_same(torch):
    recorded = Recorded()
    with recorded.recorder:
        value = torch.ones(10)
    identity = recorded.readers.reader_of(type(value))(value).identity
    assert recorded.recorder.site_of(identity, value) != ""
    assert recorded.recorder.site_of(identity, torch.ones(11)) == ""
    recorded.recorder.forget()
    assert recorded.recorder.site_of(identity, value) == ""


# -- NumPy ----------------------------------------------------------------------------------------------------------


def test_each_array_has_the_line_that_made_it():
    recorded = Recorded(traces_arrays=True)
    with recorded.recorder:
        made = numpy.ones(1000)  # ones
        computed = [made + 1]  # sum
        view = numpy.zeros((10, 10))[2:]  # view
    here = "test_each_array_has_the_line_that_made_it"
    assert recorded.was_made_in(made, "ones", here)
    assert recorded.was_made_in(computed[0], "sum", here)
    assert recorded.was_made_in(view, "view", here)


def test_arrays_are_not_traced_where_nobody_asks():
    recorded = Recorded()
    with recorded.recorder:
        assert not tracemalloc.is_tracing()
        made = numpy.ones(1000)
    assert recorded.site_of(made) == ""


def test_an_array_that_was_there_before_is_not_known():
    before = numpy.ones(1000)
    recorded = Recorded(traces_arrays=True)
    with recorded.recorder:
        pass
    assert recorded.site_of(before) == ""


# -- all is as it was -----------------------------------------------------------------------------------------------


def test_tracing_stops_where_it_was_not_on_and_goes_on_where_it_was():
    with Recorded(traces_arrays=True).recorder:
        assert tracemalloc.is_tracing()
    assert not tracemalloc.is_tracing()
    tracemalloc.start(3)
    try:
        recorded = Recorded(traces_arrays=True)
        with recorded.recorder:
            made = numpy.ones(1000)  # traced anyway
        assert tracemalloc.get_traceback_limit() == 3
        assert recorded.was_made_in(
            made, "traced anyway", "test_tracing_stops_where_it_was_not_on_and_goes_on_where_it_was"
        )
    finally:
        tracemalloc.stop()


def test_tracing_that_the_test_itself_has_stopped_is_no_trouble():
    with Recorded(traces_arrays=True).recorder:
        tracemalloc.stop()


def stack_of(torch):
    return [torch._C._get_dispatch_stack_at(index) for index in range(torch._C._len_torch_dispatch_stack())]


def user_mode(torch):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Counting.calls += 1
            return func(*args, **(kwargs or {}))

    return Counting()


def test_the_modes_of_others_stay_as_they_were(torch):
    outer, left, inner = user_mode(torch), user_mode(torch), user_mode(torch)
    with outer:
        recorded = Recorded()
        with recorded.recorder:
            with inner:
                value = torch.ones(10)  # under modes
            left.__enter__()
        assert stack_of(torch) == [outer, left]
        left.__exit__(None, None, None)
    assert stack_of(torch) == []
    assert type(inner).calls > 0
    assert type(outer).calls > 0
    here = "test_the_modes_of_others_stay_as_they_were"
    assert recorded.site_of(value).endswith(f", from {HERE}:{line_of('under modes')} in {here}")


def test_a_mode_that_somebody_else_has_taken_away_is_no_trouble(torch):
    with Recorded().recorder:
        torch._C._pop_torch_dispatch_stack(None)
    assert stack_of(torch) == []


def test_fake_tensors_stay_fake_and_have_no_site(torch):
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with Recorded().recorder, FakeTensorMode():
        value = torch.ones(3) + 1
    assert type(value) is FakeTensor
    with FakeTensorMode() as mode:
        with Recorded().recorder:
            assert type(torch.ones(3)) is FakeTensor
        assert stack_of(torch) == [mode]


def test_errors_of_operations_are_their_own(torch):
    with Recorded().recorder, pytest.raises(RuntimeError, match="size of tensor a"):
        torch.ones(2) + torch.ones(3)
    assert stack_of(torch) == []


def test_the_recorder_itself_keeps_nothing_alive(torch):
    recorded = Recorded(traces_arrays=True)
    with recorded.recorder:
        value, array = torch.ones(10), numpy.ones(10)
    counts = sys.getrefcount(value), sys.getrefcount(array)
    del recorded
    gc.collect()
    assert (sys.getrefcount(value), sys.getrefcount(array)) == counts


def test_compiling_goes_on_under_it(torch):
    def compute(value):
        return value.sin() + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(compute, backend="aot_eager")
        torch._dynamo.utils.counters.clear()
        with Recorded().recorder:
            result = compiled(torch.ones(3))
            after = torch.ones(4)
    assert torch._dynamo.utils.counters["frames"]["ok"] == 1
    assert result.tolist() == compute(torch.ones(3)).tolist()
    assert after.tolist() == [1.0] * 4
    torch.compiler.reset()


def test_operators_that_take_functions_run_under_it(torch):
    from torch._higher_order_ops.while_loop import while_loop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Recorded().recorder:
            (result,) = while_loop(lambda value: value.sum() < 10, lambda value: (value + 1,), (torch.ones(2),))
    assert result.tolist() == [5.0, 5.0]
    torch.compiler.reset()


def test_nothing_is_imported_for_it():
    code = """if True:
        import sys
        import torch
        import sysconfig
        from pytest_gpuclean.memory.recorder import SiteRecorder

        sysconfig.get_path("stdlib")
        before = set(sys.modules)
        with SiteRecorder():
            (torch.ones(3, requires_grad=True) * 2).sum().backward()
        print([name for name in set(sys.modules) - before if not name.startswith("pytest_gpuclean")])
    """
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_torch_and_numpy_nothing_happens(monkeypatch):
    remove(monkeypatch, "torch", "torch.utils._python_dispatch", "numpy")
    with SiteRecorder() as nothing:
        assert not tracemalloc.is_tracing()
    assert nothing is None
