"""What tests do every day."""

import concurrent.futures
import copy
import logging
import pickle
import threading
import time
import warnings

import pytest
import torch

logger = logging.getLogger(__name__)
POOL = concurrent.futures.ThreadPoolExecutor(1)
LATEST = {}


def make(device):
    return torch.ones(2048, 2048, device=device)


def test_uses_no_memory():
    assert sum(range(10)) == 45


def test_uses_memory_and_returns_it(device):
    assert make(device).sum() > 0


def test_uses_much_memory_and_returns_it(device):
    blocks = [torch.zeros(1024, 1024, 16, device=device) for _ in range(4)]
    del blocks[::2]
    assert len(blocks) == 2


def test_uses_many_small_tensors(device):
    assert len([torch.ones(64, device=device) for _ in range(1000)]) == 1000


@pytest.mark.parametrize("step", range(30))
def test_does_little(step):
    assert len([str(number) for number in range(step)]) == step


CASES = [torch.ones(1024, 2048), torch.zeros(1024, 2048)]


@pytest.mark.parametrize("x", CASES, ids=["ones", "zeros"])
def test_has_tensors_as_parameters(x, device):
    assert x.to(device).numel() == 1024 * 2048


def test_logs_with_a_tensor(device, caplog):
    class Shape:
        def __init__(self, tensor):
            self.tensor = tensor

        def __str__(self):
            return str(tuple(self.tensor.shape))

    with caplog.at_level(logging.INFO):
        logger.info("batch %s", Shape(make(device)))
    assert "(2048, 2048)" in caplog.text


def test_logs_and_fails(device, caplog):
    logger.error("batch %r", [make(device).shape], extra={"batch": make(device)})
    assert not caplog.records


def test_warns_with_a_tensor(device):
    class BatchWarning(UserWarning):
        pass

    warning = BatchWarning("odd batch")
    warning.batch = make(device)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        warnings.warn(warning)


def test_expects_a_warning(device, recwarn):
    warning = UserWarning("odd batch")
    warning.batch = make(device)
    warnings.warn(warning)
    assert len(recwarn) == 1


def test_patches_a_global(device, monkeypatch):
    monkeypatch.setitem(LATEST, "batch", make(device))
    assert LATEST["batch"].max() == 1


def test_prints(device, capsys):
    print(make(device).shape)
    assert "2048" in capsys.readouterr().out


def test_copies_and_pickles(device):
    x = copy.deepcopy(make(device))
    assert pickle.loads(pickle.dumps(x.cpu())).sum() == x.sum()


def test_starts_a_thread_that_ends_in_time(device):
    results = []
    thread = threading.Thread(target=lambda: results.append(make(device).sum()))
    thread.start()
    thread.join()
    assert results


def test_starts_a_thread_that_ends_a_little_later(device):
    def work(batch):
        time.sleep(0.2)
        return batch.sum()

    threading.Thread(target=work, args=(make(device),)).start()


def test_starts_a_timer(device):
    threading.Timer(0.3, list, args=([make(device)],)).start()


def test_uses_a_pool_of_its_own(device):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(lambda step: make(device)[0, 0].item() * step, range(4))) == 6


def test_uses_a_pool_whose_threads_stay(device):
    assert POOL.submit(lambda batch: batch.sum().item(), make(device)).result() > 0


def test_leaves_work_to_a_pool_whose_threads_stay(device):
    def work(batch):
        time.sleep(0.1)
        return batch.max()

    POOL.submit(work, make(device))


def test_keeps_many_objects_that_are_no_tensors():
    LATEST.setdefault("text", [f"{number} is a number" for number in range(50_000)])


def test_keeps_bytes():
    LATEST.setdefault("bytes", bytearray(16 * 1024 * 1024))


def test_keeps_less_than_the_threshold(device):
    LATEST.setdefault("small", torch.ones(64 * 1024, device=device))


@pytest.mark.gpu_leak(allow="the tokenizer's first use", until="2999-12-31")
def test_is_allowed_to_leak(device):
    LATEST["allowed"] = LATEST.get("allowed", ()), make(device)


@pytest.mark.gpu_leak(threshold="64MiB")
def test_keeps_less_than_its_own_threshold(device):
    batch = make(device)
    assert batch.sum() > 0


def test_backpropagates(device):
    x = torch.ones(2048, 1024, device=device, requires_grad=True)
    (x * x).sum().backward()
    assert x.grad.max() == 2


def test_backpropagates_and_fails(device):
    x = torch.ones(2048, 1024, device=device, requires_grad=True)
    loss = (x * x).sum()
    loss.backward()
    assert x.grad.max() == loss


def test_stops_half_way(device):
    x = torch.ones(2048, 1024, device=device, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x, torch.zeros(2048, dtype=torch.long, device=device))
    assert loss.item() > 0


def test_waits_for_a_process(tmp_path):
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", "print(1)"], check=True, capture_output=True)


def test_opens_a_file_of_tensors(device, tmp_path):
    torch.save(torch.ones(2048, 2048), tmp_path / "x.pt")
    x = torch.load(tmp_path / "x.pt", mmap=True, weights_only=True)
    assert x.to(device).max() == 1
