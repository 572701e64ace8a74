"""What is alive, block by block: each storage once, with everything that stands on it, and named without its values."""

import gc

import pytest

from pytest_gpuclean.memory.living import blocks_on, contents_of
from pytest_gpuclean.model.leaks import Content
from pytest_gpuclean.model.memory import ARRAYS
from pytest_gpuclean.units import MiB

numpy = pytest.importorskip("numpy")

QUARTER = (256, 1024)
"""Of float32: 1 MiB."""


def no_site(identity, value):  # noqa: ARG001
    return ""


class Look:
    """What has come to life since it was made."""

    def __init__(self):
        gc.collect()
        self.before = set(blocks_on(ARRAYS))

    def blocks(self):
        gc.collect()
        found = blocks_on(ARRAYS)
        return [block for identity, block in found.items() if identity not in self.before and block.size_bytes >= MiB]

    def contents(self, site_of=no_site):
        return contents_of(self.blocks(), site_of)


def content(name, dtype, shape, count=1, size=MiB, made_at=""):
    return Content(
        type_name=name, dtype=dtype, shape=shape, device="cpu", count=count, held_bytes=size, made_at=made_at
    )


def test_an_array_is_named_by_type_dtype_and_shape():
    look = Look()
    kept = numpy.zeros(QUARTER, dtype=numpy.float32)
    assert look.contents() == [content("ndarray", "float32", QUARTER)]
    assert kept.nbytes == MiB


def test_views_stand_on_one_block_and_the_largest_names_it():
    look = Look()
    kept = numpy.zeros(QUARTER, dtype=numpy.float32)
    views = [kept[:1], kept[:, :3]]
    assert len(views) == 2
    assert look.contents() == [content("ndarray", "float32", QUARTER)]


def test_a_small_view_tells_the_bytes_of_its_base():
    look = Look()
    kept = [numpy.zeros(MiB, dtype=numpy.uint8).reshape(1024, 1024)[0, :4]]
    assert kept[0].nbytes == 4
    (found,) = look.contents()
    assert found.held_bytes == MiB


def test_blocks_of_one_sort_are_one_group_and_the_largest_group_is_first():
    look = Look()
    kept = [numpy.zeros(MiB, dtype=numpy.uint8) for _ in range(3)] + [numpy.zeros((4, MiB), dtype=numpy.uint8)]
    assert len(kept) == 4
    assert look.contents() == [
        content("ndarray", "uint8", (4, MiB), size=4 * MiB),
        content("ndarray", "uint8", (MiB,), count=3, size=3 * MiB),
    ]


def test_groups_are_told_apart_by_where_they_were_made():
    look = Look()
    kept = [numpy.zeros(MiB, dtype=numpy.uint8) for _ in range(2)]
    sites = {id(kept[0]): "test_a.py:1 in first", id(kept[1]): "test_a.py:2 in second"}
    found = look.contents(lambda identity, value: sites[id(value)])  # noqa: ARG005
    assert {one.made_at for one in found} == set(sites.values())


class TestOfTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    def test_a_parameter_with_its_gradient_is_two_blocks(self):
        look = Look()
        weight = self.torch.nn.Parameter(self.torch.ones(QUARTER))
        weight.sum().backward()
        found = look.contents()
        assert sorted((one.type_name, one.count) for one in found) == [("Parameter", 1), ("Tensor", 1)]

    def test_a_gradient_is_reached_from_its_tensor(self):
        look = Look()
        weight = self.torch.nn.Parameter(self.torch.ones(QUARTER))
        weight.sum().backward()
        owners = [owner for block in look.blocks() for owner, _ in block.owners]
        assert any(owner is weight for owner in owners)

    def test_a_bare_storage_has_no_shape(self):
        look = Look()
        kept = self.torch.ones(QUARTER).untyped_storage()
        assert kept.nbytes() == MiB
        assert look.contents() == [content("UntypedStorage", "", ())]

    def test_a_subclass_is_not_asked(self):
        class Hostile(self.torch.Tensor):
            @property
            def shape(self):
                raise AssertionError("asked")

            dtype = device = shape

            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):  # noqa: ARG003
                raise AssertionError(f"called for {function}")

        look = Look()
        kept = self.torch.ones(QUARTER).as_subclass(Hostile)
        assert look.contents() == [content("Hostile", "float32", QUARTER)]
        assert type(kept) is Hostile
