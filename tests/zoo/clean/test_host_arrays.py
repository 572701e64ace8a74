"""NumPy arrays that fixtures hold, files that are mapped, and what is no array."""

import sys

import numpy as np
import pytest
import torch

KEPT = {}


def make():
    return np.ones((1024, 2048))


@pytest.fixture(scope="module")
def images():
    return make()


@pytest.fixture(scope="module")
def features():
    return {"table": make(), "views": []}


@pytest.fixture(scope="session")
def store():
    return []


def test_uses_the_images(images):
    assert images.mean() == 1


def test_fills_the_features(features):
    features["more"] = make()


def test_keeps_views_of_the_features(features):
    features["views"] += [features["table"][:2], features["table"].T]


def test_keeps_a_tensor_of_the_images(features, images):
    features["tensor"] = torch.from_numpy(images)


def test_keeps_a_view_of_what_a_fixture_holds(images):
    KEPT["view"] = images[:4]
    del KEPT["view"]


@pytest.mark.parametrize("step", range(3))
def test_fills_a_session_store(store, step):
    store.append(make())


def test_drops_what_the_store_has(store):
    store.clear()


def test_uses_arrays_and_returns_them():
    assert (make() @ np.ones((2048, 4))).sum() > 0


def test_fails_with_an_array():
    array = make()
    assert array.sum() == 0


def test_leaves_a_cycle():
    cycle = [make()]
    cycle.append(cycle)


def test_leaves_an_array_of_objects_in_a_cycle():
    array = np.empty(1, dtype=object)
    array[0] = {"array": array, "data": make()}


def test_maps_a_file(tmp_path):
    np.save(tmp_path / "x.npy", make())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert mapped[0, 0] == 1


def test_keeps_a_mapped_file_and_some_objects(tmp_path_factory):
    path = tmp_path_factory.mktemp("mapped") / "x.npy"
    np.save(path, make())
    KEPT.setdefault("mapped", np.load(path, mmap_mode="r"))
    KEPT.setdefault("text", [str(number) for number in range(100_000)])


def test_imports_a_package_for_the_first_time():
    import sympy

    assert sympy.sqrt(16) == 4


def test_imports_another_one():
    scipy_stats = pytest.importorskip("scipy.stats")
    assert scipy_stats.norm.cdf(0) == 0.5


def test_imports_a_module_with_a_table(tmp_path, monkeypatch):
    if "zoo_table" not in sys.modules:
        (tmp_path / "zoo_table.py").write_text(
            "import numpy\n\nTABLE = numpy.ones((512, 2048))\n\n\nclass Lookup:\n    table = TABLE * 2\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
    import zoo_table

    assert zoo_table.TABLE.max() == 1


def test_multiplies_large_matrices():
    assert (torch.ones(1024, 1024) @ torch.ones(1024, 1024)).max() == 1024


def test_uses_a_data_loader_with_a_worker():
    data = torch.utils.data.TensorDataset(torch.ones(64, 64, 1024))
    assert sum(len(batch[0]) for batch in torch.utils.data.DataLoader(data, batch_size=32, num_workers=1)) == 64


def test_stops_a_data_loader_half_way():
    data = torch.utils.data.TensorDataset(torch.ones(64, 64, 1024))
    for batch in torch.utils.data.DataLoader(data, batch_size=16, num_workers=1):
        assert len(batch[0]) == 16
        break


@pytest.fixture(scope="module")
def first_batch():
    data = torch.utils.data.TensorDataset(torch.ones(64, 64, 1024))
    return next(iter(torch.utils.data.DataLoader(data, batch_size=32, num_workers=1)))


def test_uses_the_batch_of_a_fixture(first_batch):
    assert first_batch[0].max() == 1


def test_uses_it_once_more(first_batch):
    assert first_batch[0].min() == 1
