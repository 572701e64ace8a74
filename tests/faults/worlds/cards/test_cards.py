import pytest
from conftest import use_card

MiB = 2**20


@pytest.fixture(scope="module")
def server():
    process = use_card(1, 64 * MiB)
    yield process
    process.kill()
    process.wait()


def test_passes():
    pass


def test_leaves_a_process_that_uses_a_card():
    use_card(0, 512 * MiB)


@pytest.mark.gpu_require(count=2, memory="1GiB", free="1GiB")
def test_has_its_cards(server):
    assert server.poll() is None


@pytest.mark.gpu_require(memory="900GiB")
def test_lacks_a_card():
    raise RuntimeError("it has none")


@pytest.mark.gpu_exclusive
def test_has_a_card_for_itself():
    pass


def test_fails(server):
    assert server.poll() is not None


def test_runs_out_of_memory():
    raise type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB"
    )
