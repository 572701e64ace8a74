"""What a suspended function holds is kept where the function is."""

import threading

import torch

FLAGGED = {
    "test_keeps_a_generator_that_is_not_done": "leaked 16.0 MiB on ",
    "test_keeps_a_coroutine_that_is_not_done": "leaked 16.0 MiB on ",
    "test_starts_a_thread_that_does_not_end": "leaked 16.0 MiB on ",
    "test_keeps_a_value_for_the_thread": "leaked 16.0 MiB on ",
}
HELD = {
    "test_keeps_a_coroutine_that_is_not_done": "test_suspended.PENDING[N] -> coroutine test_suspended.serve: weights",
    "test_keeps_a_generator_that_is_not_done": "test_suspended.PENDING[N] -> generator test_suspended.batches: batch",
    "test_keeps_a_value_for_the_thread": "test_suspended.LOCAL.batches[N]",
    "test_starts_a_thread_that_does_not_end": "thread 'Thread-N (<lambda>)' in test_suspended.",
}

PENDING = []
LOCAL = threading.local()


def make(device):
    return torch.ones(2048, 2048, device=device)


def batches(device):
    batch = make(device)
    for step in range(10):
        yield batch * step


def test_runs_a_generator_to_its_end(device):
    assert sum(1 for _ in batches(device)) == 10


def test_keeps_a_generator_that_is_not_done(device):
    generator = batches(device)
    PENDING.append(generator)
    assert next(generator).sum() == 0


class Ready:
    def __await__(self):
        yield self


async def serve(device):
    weights = make(device)
    await Ready()
    return weights.sum()


def test_keeps_a_coroutine_that_is_not_done(device):
    coroutine = serve(device)
    PENDING.append(coroutine)
    coroutine.send(None)


def test_starts_a_thread_that_does_not_end(device):
    thread = threading.Thread(target=lambda batch: threading.Event().wait(), args=(make(device),), daemon=True)
    thread.start()


def test_keeps_a_value_for_the_thread(device):
    LOCAL.batches = [*getattr(LOCAL, "batches", ()), make(device)]
