"""What a leak is made of: not what was there before, what has been told already, or what live fixtures hold."""

import ctypes
import dataclasses
import gc
import warnings
import weakref
from contextlib import contextmanager

import pytest

from pytest_gpuclean.explaining import Explainer
from pytest_gpuclean.memory.census import each_living
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import ARRAYS, HEAP
from pytest_gpuclean.units import KiB, MiB

numpy = pytest.importorskip("numpy")

KEPT: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    gc.collect()
    yield
    KEPT.clear()


def zeros(mib=4):
    return numpy.zeros((mib, MiB), dtype=numpy.uint8)


def leak(mib=4, **more):
    given = {"kind": "test", "name": "test_x", "device": "cpu", "source": "arrays", "threshold_bytes": MiB}
    return Leak(**{**given, "leaked_bytes": mib * MiB, **more})


def explainer(limit=20, fixture_values=(), **more):
    found = Explainer(limit, lambda: fixture_values, **more)
    found.mark()
    return found


def shapes(told):
    return [(content.count, content.shape) for content in told.explanation.contents]


def test_it_says_what_leaked_and_who_holds_it():
    asked = explainer()
    KEPT.append(zeros())
    told = asked.explained(leak())
    assert shapes(told) == [(1, (4, MiB))]
    assert [holder.chain for holder in told.explanation.holders] == [f"{__name__}.KEPT[0]"]
    assert (told.explanation.explained_bytes, told.explanation.unexplained) == (4 * MiB, "")
    assert told.explanation.seconds > 0


def test_what_was_there_before_is_no_part_of_it():
    KEPT.append(zeros())
    asked = explainer()
    KEPT.append(zeros())
    assert [holder.chain for holder in asked.explained(leak()).explanation.holders] == [f"{__name__}.KEPT[1]"]


def test_what_has_been_told_is_no_part_of_the_next():
    asked = explainer()
    KEPT.append(zeros())
    asked.explained(leak())
    KEPT.append(zeros())
    assert [holder.chain for holder in asked.explained(leak()).explanation.holders] == [f"{__name__}.KEPT[1]"]


def test_what_was_there_when_an_earlier_test_was_looked_into_is_no_part_of_the_next():
    asked = explainer()
    KEPT.append(zeros(4))  # was not told: as much was freed in its test
    KEPT.append(zeros(6))
    assert shapes(asked.explained(leak(6))) == [(1, (6, MiB))]
    KEPT.append([zeros(2), zeros(2)])
    assert shapes(asked.explained(leak(4, name="test_y"))) == [(2, (2, MiB))]


def test_what_a_fixture_leaks_may_have_been_there_when_an_earlier_test_was_looked_into():
    asked = explainer()
    KEPT.append(zeros(3))
    KEPT.append(zeros(6))
    asked.explained(leak(6))
    told = asked.explained(leak(3, name="table", kind="fixture"))
    assert [holder.chain for holder in told.explanation.holders] == [f"{__name__}.KEPT[0]"]


def test_what_took_the_place_of_something_smaller_is_part_of_it():
    asked = explainer()
    KEPT.append(zeros(3))
    asked.explained(leak(3))
    KEPT.append(zeros(6))
    KEPT.pop(0)
    told = asked.explained(leak(3))
    assert shapes(told) == [(1, (6, MiB))]
    assert [holder.chain for holder in told.explanation.holders] == [f"{__name__}.KEPT[0]"]
    assert told.explanation.unexplained == ""


def test_what_was_allowed_is_no_part_of_the_next():
    asked = explainer()
    KEPT.append(zeros())
    asked.take_in(leak())
    KEPT.append(zeros())
    assert [holder.chain for holder in asked.explained(leak()).explanation.holders] == [f"{__name__}.KEPT[1]"]


@contextmanager
def out_of_sight(index):
    """Hide an array, so that one with its address and its `id` comes up later: nobody can have it made so."""
    array = ctypes.py_object(KEPT[index])
    ctypes.pythonapi.Py_IncRef(array)
    place = id(KEPT[index])
    KEPT[index] = array = None
    yield
    KEPT[index] = ctypes.cast(place, ctypes.py_object).value
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(KEPT[index]))


@pytest.mark.parametrize("name", ["test_x", "test_y"])
@pytest.mark.parametrize("account", [ARRAYS, HEAP])
def test_what_is_made_where_something_was_freed_that_has_been_told_is_new(account, name):
    asked = explainer()
    KEPT.extend([zeros(), zeros()])
    asked.explained(leak(8))
    with out_of_sight(0):
        asked.note_freed({account: -4 * MiB})
    told = asked.explained(leak(name=name))
    assert [holder.chain for holder in told.explanation.holders] == [f"{__name__}.KEPT[0]"]


def test_what_is_excused_counts_apart_and_nothing_else_does():
    asked = explainer(limit=1)
    KEPT.append(zeros())
    first = asked.explained(leak())
    asked.count_apart([first])  # it fails
    unknown = asked.explained(leak())
    assert (unknown.explanation.holders, bool(unknown.explanation.cut)) == ((), True)
    for excuse in ("known", "allowed", "kept_once"):
        asked.count_apart([leak(known="it was not looked up"), dataclasses.replace(unknown, known="nor was this")])
        assert asked.explained(leak()).explanation.cut
        for _ in range(2):  # it never comes to more than the limit
            asked.count_apart([dataclasses.replace(first, **{excuse: "why"})])
        KEPT.append(zeros())
        assert asked.explained(leak()).explanation.holders


def test_a_leak_on_another_device_takes_nothing_from_what_has_been_told():
    asked = explainer()
    KEPT.append(zeros())
    asked.explained(leak())
    asked.explained(leak(device="cuda:0", source="torch"))
    KEPT.append(zeros())
    assert [holder.chain for holder in asked.explained(leak()).explanation.holders] == [f"{__name__}.KEPT[1]"]


def test_what_a_live_fixture_holds_is_no_part_of_it():
    value = {"weight": zeros(8)}
    asked = Explainer(20, lambda: [(1, [value])])
    KEPT.append(zeros())
    assert shapes(asked.explained(leak())) == [(1, (4, MiB))]


def test_what_is_known_to_be_older_than_the_window_is_no_part_of_it():
    KEPT.append(zeros())
    address = KEPT[0].__array_interface__["data"][0]
    KEPT.append(zeros())
    told = Explainer(20, tuple).explained(leak(), older=[("memory", address)])
    assert [holder.chain for holder in told.explanation.holders] == [f"{__name__}.KEPT[1]"]


@pytest.mark.parametrize("at", [0, 1])
def test_what_has_been_told_comes_after_what_has_the_address_of_something_older(at):
    KEPT.extend([[], []])
    asked = explainer()
    KEPT[1 - at].append(zeros())
    asked.explained(leak())
    KEPT[at].append(zeros())
    told = asked.explained(leak(), [living.storage.identity for living in each_living()])
    assert [holder.chain for holder in told.explanation.holders] == [f"{__name__}.KEPT[{at}][0]"]


def test_what_no_array_accounts_for_is_said():
    asked = explainer()
    KEPT.append(zeros())
    part = asked.explained(leak(20)).explanation
    assert 4 * MiB <= part.explained_bytes < 4 * MiB + 64 * KiB
    assert part.unexplained.startswith("no tensor or array that Python can see accounts for 16.0 MiB of it: ")
    none = asked.explained(leak(20, device="fake:0", source="fake")).explanation
    assert (none.contents, none.holders) == ((), ())
    assert none.unexplained.startswith("no tensor or array that Python can see accounts for it: ")


def test_so_many_are_looked_up_and_no_more():
    asked = explainer(limit=1)
    KEPT.append(zeros())
    assert asked.explained(leak()).explanation.contents
    second = asked.explained(leak()).explanation
    assert second.contents == ()
    assert second.cut == "who holds it was looked up for 1 leak of this run: --gpu-leak-explain"


@pytest.mark.parametrize("found", [leak(kind="peak"), leak()], ids=["a peak", "a limit of 0"])
def test_what_is_not_looked_up_stays_as_it_was(found):
    asked = explainer(limit=20 if found.kind == "peak" else 0)
    assert asked.explained(found) is found


def test_nothing_of_the_look_stays_alive():
    asked = explainer()
    array = zeros()
    KEPT.append(array)
    asked.explained(leak())
    gc.collect()
    before = [type(one) for one in gc.get_referrers(array)]
    KEPT.clear()
    assert len(gc.get_referrers(array)) == len(before) - 1


class TestOfGraphs:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    def kept(self, output):
        weight = self.torch.ones(1024, 1024, requires_grad=True)
        result = (self.torch.ones(1024, 1024) * 2 * weight).exp()
        return result if output else result.sum()

    def test_a_kept_loss_is_told_with_its_graph(self):
        asked = explainer()
        KEPT.append(self.kept(output=False))
        (holder,) = asked.explained(leak(12)).explanation.holders
        assert (holder.kind, holder.cause, holder.held_bytes) == ("kept graph", "kept-graph", 12 * MiB)
        assert holder.chain.startswith(f"{__name__}.KEPT[0].grad_fn (")
        assert (
            holder.detail
            == "1 kept graph of 3 functions (MulBackward0 ... SumBackward0) holds 8.0 MiB of saved tensors"
        )

    def test_what_a_graph_has_saved_is_told_once(self):
        asked = explainer()
        for _ in range(2):
            KEPT.append(self.kept(output=False))
            told = asked.explained(leak(12)).explanation
        assert [holder.chain.partition(".grad_fn")[0] for holder in told.holders] == [f"{__name__}.KEPT[1]"]

    def test_what_only_a_graph_has_saved_leads_to_nothing(self):
        """It has a Python object once somebody has looked at it, and may come before the loss among all objects."""
        asked = explainer()
        logits = self.torch.zeros(1024, 1024, requires_grad=True)
        classes = self.torch.zeros(1024, dtype=self.torch.long)
        KEPT.append(self.torch.nn.functional.cross_entropy(logits, classes))
        del logits
        for _ in range(2):
            gc.collect()
            list(each_living())
        (holder,) = asked.explained(leak(8)).explanation.holders
        assert holder.chain.startswith(f"{__name__}.KEPT[0].grad_fn (")
        assert holder.held_bytes == 8 * MiB

    def test_what_a_function_of_the_users_keeps_on_its_ctx_is_held_by_who_keeps_the_graph(self):
        class Doubled(self.torch.autograd.Function):
            @staticmethod
            def forward(ctx, value):
                ctx.doubled = value * 2
                return ctx.doubled.clone()

            @staticmethod
            def backward(ctx, gradient):
                return gradient * 2

        asked = explainer()
        KEPT.append(Doubled.apply(self.torch.zeros(1024, 1024, requires_grad=True)).sum())
        (holder,) = asked.explained(leak(8)).explanation.holders
        assert holder.chain.startswith(f"{__name__}.KEPT[0].grad_fn (")
        assert holder.held_bytes == 8 * MiB

    def penalised(self):
        """Return a model whose parameters and gradients keep each other, and its loss."""
        layers = [self.torch.nn.Linear(1024, 1024, bias=False) for _ in range(2)]
        loss = self.torch.nn.Sequential(*layers)(self.torch.ones(1, 1024)).pow(2).sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of just this cycle
            loss.backward(create_graph=True)
        return layers, loss

    def test_a_gradient_with_a_graph_of_its_own_is_named_where_nobody_refers_to_it(self):
        asked = explainer()
        parameters = [weakref.ref(layer.weight) for layer in self.penalised()[0]]
        gc.collect()
        (holder,) = asked.explained(leak(16)).explanation.holders
        assert (holder.kind, holder.cause) == ("gradient", "gradient")
        assert holder.chain == "a gradient that has a graph of its own (create_graph=True)"
        assert holder.held_bytes >= 8 * MiB
        for parameter in parameters:
            parameter().grad = None

    def test_who_keeps_a_model_is_named_also_where_its_gradients_have_graphs(self):
        asked = explainer()
        layers, loss = self.penalised()
        KEPT.extend(layers)
        del layers, loss
        holders = asked.explained(leak(16)).explanation.holders
        assert {holder.chain.partition("[")[0] for holder in holders} == {f"{__name__}.KEPT"}
        for layer in KEPT:
            layer.weight.grad = None

    def test_a_kept_output_is_told_with_what_its_graph_holds(self):
        asked = explainer()
        KEPT.append(self.kept(output=True))
        (holder,) = asked.explained(leak(12)).explanation.holders
        assert holder.chain.startswith(f"{__name__}.KEPT[0]")
        assert holder.cause == "kept-graph"
        assert "(MulBackward0 ... ExpBackward0)" in holder.detail

    def test_a_tensor_without_a_graph_has_none(self):
        asked = explainer()
        KEPT.append(self.kept(output=True).detach())
        (holder,) = asked.explained(leak(4)).explanation.holders
        assert (holder.cause, holder.detail) == ("module-global", "")

    def test_a_gradient_is_told_with_its_parameter(self):
        asked = explainer()
        KEPT.append(self.torch.nn.Parameter(self.torch.ones(1024, 1024)))
        KEPT[0].sum().backward()
        (holder,) = asked.explained(leak(8)).explanation.holders
        assert (holder.chain, holder.count, holder.held_bytes) == (f"{__name__}.KEPT[0]", 2, 8 * MiB)
