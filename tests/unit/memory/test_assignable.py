"""Which GPUs there are to hand out."""

import pytest

from pytest_gpuclean.memory.assignable import Assignable, amd_nodes, assignable, entries_of
from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import GiB

CUDA, HIP, ROCR, ZE = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"
NO_DRIVER = Unavailable("nvml", "there is no driver")


def card(index, name="H100", **more):
    return Card(index=index, uuid=f"GPU-{index}aaa", name=name, total_bytes=80 * GiB, **more)


def instance(index, slot):
    parent = f"GPU-{index}aaa"
    return Card(
        index=index, uuid=f"MIG-{index}{slot}", name="MIG 1g", total_bytes=10 * GiB, slot=slot, parent_uuid=parent
    )


FOUR = tuple(card(index) for index in range(4))
MIXED = (card(0, "H100"), card(1, "T4"))
WITH_MIG = (card(0, is_partitioned=True), instance(0, 0), instance(0, 1), card(1))


def values(found):
    return [gpu.value for gpu in found.gpus]


@pytest.mark.parametrize(
    ("environ", "devices", "expected", "problem"),
    [
        ({}, FOUR, ["0", "1", "2", "3"], ""),
        ({CUDA: "2,3"}, FOUR, ["2", "3"], ""),
        ({CUDA: "3, 1"}, FOUR, ["3", "1"], ""),
        ({CUDA: "GPU-2aaa,GPU-0"}, FOUR, ["GPU-2aaa", "GPU-0"], ""),
        ({CUDA: ""}, FOUR, [], "CUDA_VISIBLE_DEVICES='' shows none"),
        ({CUDA: "-1"}, FOUR, [], "CUDA_VISIBLE_DEVICES='-1' shows none"),
        ({CUDA: "1,-1,2"}, FOUR, ["1"], ""),
        ({CUDA: "1,7,2"}, FOUR, ["1"], "'7' is no card here"),
        ({CUDA: "zero"}, FOUR, [], "'zero' is no number"),
        ({CUDA: "1,1"}, FOUR, [], "names a card twice"),
        ({}, (), [], "there is no GPU here"),
        ({}, (card(0), card(1, is_barred=True), card(2)), ["0", "1"], ""),
        # Cards that differ: CUDA's numbers are not NVML's, so by UUID where it is ours to choose.
        ({}, MIXED, ["GPU-0aaa", "GPU-1aaa"], ""),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, MIXED, ["0", "1"], ""),
        ({CUDA: "1,0"}, MIXED, ["1", "0"], ""),
        # MIG: CUDA shows a process one instance, and each worker may have its own.
        ({}, WITH_MIG, ["MIG-00", "MIG-01", "GPU-1aaa"], ""),
        ({CUDA: "MIG-01,MIG-00"}, WITH_MIG, ["MIG-01", "MIG-00"], ""),
        ({CUDA: "0"}, WITH_MIG, ["MIG-00", "MIG-01"], ""),
    ],
)
def test_what_the_caller_has_made_visible_is_handed_out(environ, devices, expected, problem):
    found = assignable(devices, environ)
    assert values(found) == expected
    assert problem in found.problem
    assert bool(found.problem) == bool(problem)
    assert found.variables[0] == CUDA or not found.gpus


@pytest.mark.parametrize(
    ("environ", "nvidia", "amd", "variables", "expected"),
    [
        ({}, 2, 0, (CUDA,), ["0", "1"]),
        ({}, 0, 3, (HIP,), ["0", "1", "2"]),
        ({CUDA: "5,7"}, 8, 0, (CUDA,), ["5", "7"]),
        ({CUDA: "5,7"}, 0, 0, (CUDA,), ["5", "7"]),
        ({CUDA: "GPU-a,MIG-b"}, 0, 0, (CUDA,), ["GPU-a", "MIG-b"]),
        ({HIP: "2,3"}, 0, 4, (HIP,), ["2", "3"]),
        ({ROCR: "2,3"}, 0, 4, (ROCR,), ["2", "3"]),
        ({ROCR: "2,3", HIP: "1,0"}, 0, 4, (HIP,), ["1", "0"]),  # within what ROCR shows
        ({CUDA: "0,1", HIP: "0,1"}, 0, 4, (HIP, CUDA), ["0", "1"]),
        ({CUDA: "0,1", HIP: "0,1"}, 2, 0, (CUDA, HIP), ["0", "1"]),
        ({CUDA: "0", HIP: "2,3"}, 0, 4, (HIP,), ["2", "3"]),
        ({ZE: "0.0,0.1"}, 0, 0, (ZE,), ["0.0", "0.1"]),
    ],
)
def test_without_nvidias_library_the_variables_and_the_file_system_say_it(environ, nvidia, amd, variables, expected):
    found = assignable(NO_DRIVER, environ, nvidia=nvidia, amd=amd)
    assert (found.variables, values(found)) == (variables, expected)


@pytest.mark.parametrize("devices", [FOUR, NO_DRIVER])
def test_naming_a_gpu_twice_gives_none(devices):
    found = assignable(devices, {CUDA: "0,0"}, nvidia=4)
    assert found.gpus == ()
    assert "twice" in found.problem


def test_a_machine_without_any_gpu_says_why():
    assert assignable(NO_DRIVER, {}).problem == "there is no driver"


def test_the_name_and_the_memory_are_told_where_the_number_says_which_card_it_is():
    assert str(assignable(FOUR, {CUDA: "2"}).gpus[0]) == "GPU 2 (H100, 80.0 GiB)"
    assert assignable(MIXED, {CUDA: "1"}).gpus == (Assignable("1"),)
    assert assignable(MIXED, {CUDA: "GPU-1"}).gpus == (Assignable("GPU-1", "T4, 80.0 GiB"),)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("0,1", ("0", "1")),
        (" 2 ,3", ("2", "3")),
        ("", ()),
        ("-1", ()),
        ("0,-1,2", ("0",)),
        ("0,,2", ("0",)),
        (",0", ()),
    ],
)
def test_a_variable_ends_where_the_drivers_end_it(text, entries):
    assert entries_of(text) == entries


def test_amd_cards_are_told_from_processors(tmp_path):
    for number, gpu_id in enumerate(["0", "51200\n", "24322\n"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "gpu_id").write_text(gpu_id)
    (tmp_path / "3").mkdir()
    assert amd_nodes(str(tmp_path)) == 2
    assert amd_nodes(str(tmp_path / "none")) == 0
