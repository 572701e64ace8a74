"""What a test leaves in the state of the program is its leak."""

import atexit
import contextvars
import functools
import logging.handlers
import weakref
from unittest import mock

import torch

FLAGGED = {
    "test_appends_to_a_module_list": "leaked 16.0 MiB on ",
    "test_fills_a_cached_function": "leaked 16.0 MiB on ",
    "test_fills_a_cached_method": "leaked 16.0 MiB on ",
    "test_makes_an_object_that_its_class_registers": "leaked 16.0 MiB on ",
    "test_sets_an_attribute_of_a_class": "leaked 16.0 MiB on ",
    "test_fills_a_mutable_default": "leaked 16.0 MiB on ",
    "test_keeps_a_closure": "leaked 16.0 MiB on ",
    "test_keeps_a_function_with_a_default": "leaked 16.0 MiB on ",
    "test_keeps_a_small_slice_of_a_large_tensor": "leaked 16.0 MiB on ",
    "test_calls_a_mock_that_is_never_reset": "leaked 16.0 MiB on ",
    "test_sets_a_context_variable": "leaked 16.0 MiB on ",
    "test_registers_something_for_the_exit": "leaked 16.0 MiB on ",
    "test_registers_a_finalizer_of_something_that_stays": "leaked 16.0 MiB on ",
    "test_logs_to_a_handler_that_keeps_records": "leaked 16.0 MiB on ",
    "test_leaves_an_attribute_on_the_session": "leaked 16.0 MiB on ",
    "test_keeps_what_is_a_little_over_the_threshold": "leaked 1.5 MiB on ",
    "test_keeps_many_small_tensors": "leaked 12.0 MiB on ",
    "test_keeps_a_frozen_batch": "leaked 16.0 MiB on ",
}
HELD = {
    "test_appends_to_a_module_list": "test_program_state.RESULTS[N]",
    "test_calls_a_mock_that_is_never_reset": [
        "test_program_state.EVENTS.on_batch.call_args_list[N].args[N]",
        "test_program_state.EVENTS.mock_calls[N].args[N]",
    ],
    "test_fills_a_cached_function": "functools.cache of test_program_state.load_weights: result",
    "test_fills_a_cached_method": "functools.cache of test_program_state.Tokenizer.encode: result",
    "test_fills_a_mutable_default": "default argument of test_program_state.collect: seen[N]",
    "test_keeps_a_closure": "test_program_state.RESULTS[N] -> closure of test_program_state.",
    "test_keeps_a_frozen_batch": "test_program_state.RESULTS[N] -> tuple[N]",
    "test_keeps_a_function_with_a_default": "test_program_state.RESULTS[N] -> default argument of test_program_state.",
    "test_keeps_a_small_slice_of_a_large_tensor": "test_program_state.RESULTS[N]",
    "test_keeps_many_small_tensors": "test_program_state.RESULTS[N][N]",
    "test_keeps_what_is_a_little_over_the_threshold": "test_program_state.RESULTS[N]",
    "test_leaves_an_attribute_on_the_session": "pytest's Session: last_batch",
    "test_logs_to_a_handler_that_keeps_records": 'logging.getLogger("test_program_state").handlers[N].buffer[N].batch',
    "test_makes_an_object_that_its_class_registers": "test_program_state.Tokenizer.registry[N].table",
    "test_registers_a_finalizer_of_something_that_stays": "weakref.finalize callback list: args[N][N]",
    "test_registers_something_for_the_exit": [
        "atexit callback list: args[N][N]",
        "atexit callback: args[N][N]",  # beside others that take one argument
    ],
    "test_sets_a_context_variable": "context variable 'CURRENT'",
    "test_sets_an_attribute_of_a_class": "test_program_state.Plain.shared",
}

RESULTS = []
EVENTS = mock.Mock()
CURRENT = contextvars.ContextVar("CURRENT")
logger = logging.getLogger(__name__)


def make(device):
    return torch.ones(2048, 2048, device=device)


@functools.cache
def load_weights(device):
    return make(device)


class Tokenizer:
    registry = []

    def __init__(self, table):
        self.table = table
        type(self).registry.append(self)

    @functools.lru_cache(maxsize=8)
    def encode(self, device):
        return make(device)


class Plain:
    def __init__(self):
        self.name = "plain"


def collect(batch, seen=[]):
    seen.append(batch)
    return len(seen)


def test_uses_memory_and_returns_it(device):
    assert make(device).sum() == 2048 * 2048


def test_appends_to_a_module_list(device):
    RESULTS.append(make(device))
    assert RESULTS


def test_fills_a_cached_function(device):
    assert load_weights(device).shape == (2048, 2048)


def test_uses_memory_between_leaks(device):
    x = make(device)
    assert (x * 2).max() == 2


def test_fills_a_cached_method(device):
    tokenizer = Tokenizer.__new__(Tokenizer)
    assert tokenizer.encode(device).dtype == torch.float32


def test_makes_an_object_that_its_class_registers(device):
    assert Tokenizer(make(device)).table.numel() == 2048 * 2048


def test_sets_an_attribute_of_a_class(device):
    Plain.shared = make(device)
    assert Plain().shared is Plain.shared


def test_fills_a_mutable_default(device):
    assert collect(make(device)) > 0


def test_keeps_a_closure(device):
    weights = make(device)

    def apply(x):
        return x * weights

    RESULTS.append(apply)


def test_keeps_a_function_with_a_default(device):
    RESULTS.append(lambda x, weights=make(device): x * weights)


def test_keeps_a_small_slice_of_a_large_tensor(device):
    RESULTS.append(make(device)[0, :4])


def test_calls_a_mock_that_is_never_reset(device):
    EVENTS.on_batch(make(device))
    EVENTS.on_batch.assert_called()


def test_sets_a_context_variable(device):
    CURRENT.set(make(device))
    assert CURRENT.get() is not None


def test_registers_something_for_the_exit(device):
    atexit.register(list, [make(device)])


def test_registers_a_finalizer_of_something_that_stays(device):
    weakref.finalize(logger, list, [make(device)]).atexit = False


def test_logs_to_a_handler_that_keeps_records(device):
    handler = logging.handlers.MemoryHandler(1000, flushLevel=100)
    logger.addHandler(handler)
    logger.error("batch of %d", 4, extra={"batch": make(device)})


def test_leaves_an_attribute_on_the_session(device, request):
    request.session.last_batch = make(device)


def test_keeps_what_is_a_little_over_the_threshold(device):
    RESULTS.append(torch.ones(3 * 128 * 1024, device=device))


def test_keeps_many_small_tensors(device):
    RESULTS.append([torch.ones(16 * 1024, device=device) for _ in range(192)])


def test_keeps_a_frozen_batch(device):
    RESULTS.append(frozenset({("x", make(device))}))


def test_uses_memory_after_leaks(device):
    assert make(device).min() == 1
