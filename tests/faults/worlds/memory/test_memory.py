import pytest
from fakegpu import MiB, allocate

KEPT = []


@pytest.fixture(scope="module")
def model():
    yield [allocate(8 * MiB)]


@pytest.fixture(scope="module")
def engine():
    KEPT.append(allocate(8 * MiB))


def test_passes():
    pass


def test_uses_and_frees():
    allocate(3 * MiB)


def test_uses_a_model(model):
    model.append(allocate(2 * MiB))


def test_fails(model):
    held = allocate(2 * MiB)
    assert not held


def test_after_a_failure():
    pass


@pytest.mark.skip
def test_skipped():
    pass


@pytest.mark.xfail
def test_expected():
    raise RuntimeError("expected")


def test_leaks():
    KEPT.append(allocate(4 * MiB))


def test_excused():
    KEPT.append(allocate(4 * MiB))


@pytest.mark.gpu_leak(allow="first-use cache")
def test_allowed():
    KEPT.append(allocate(4 * MiB))


class TestClass:
    @pytest.fixture(scope="class", autouse=True)
    def table(self):
        yield allocate(MiB)

    def test_one(self):
        self.held = allocate(2 * MiB)

    @pytest.mark.gpu_limit(peak="1GiB")
    def test_cycle(self):
        held = [allocate(2 * MiB)]
        held.append(held)


def test_drifts(engine):
    KEPT.append(allocate(MiB // 2))


def test_handle(gpu_clean):
    gpu_clean.on_cleanup(lambda: None)
    assert gpu_clean.peak is not None
