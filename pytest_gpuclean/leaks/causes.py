"""The kinds of holders, and the stable name of the advice on each."""

from __future__ import annotations

MODULE_GLOBAL = "module global"
CLASS_ATTRIBUTE = "class attribute"
INSTANCE_ATTRIBUTE = "instance attribute"
CACHED_PROPERTY = "cached property"
FUNCTOOLS_CACHE = "functools cache"
CLOSURE = "closure"
DEFAULT_ARGUMENT = "default argument"
FUNCTION_ATTRIBUTE = "function attribute"
PARTIAL = "partial"
BOUND_METHOD = "bound method"
RUNNING_FUNCTION = "running function"
THREAD = "thread"
GENERATOR = "generator"
COROUTINE = "coroutine"
ASYNC_GENERATOR = "asynchronous generator"
TASK = "asyncio task"
FUTURE = "future"
EXECUTOR = "executor"
CONTEXT_VARIABLE = "context variable"
THREAD_LOCAL = "thread-local"
EXCEPTION = "exception"
LAST_EXCEPTION = "last exception"
LOGGING_HANDLER = "logging handler"
MOCK = "mock"
FINALIZER = "finalizer"
ATEXIT = "atexit callback"
SIGNAL_HANDLER = "signal handler"
INTERPRETER_HOOK = "interpreter hook"
WEAK_DICTIONARY = "weak dictionary"
WEAKREF_CALLBACK = "weakref callback"
FORWARD_HOOK = "forward hook"
BACKWARD_HOOK = "backward hook"
TENSOR_HOOK = "tensor hook"
TORCH_MODULE = "torch module"
OPTIMIZER = "optimizer state"
GRADIENT = "gradient"
KEPT_GRAPH = "kept graph"
FIXTURE = "fixture"
PYTEST = "pytest"
GARBAGE = "uncollectable garbage"
CYCLE = "reference cycle"
FROZEN = "frozen objects"
NO_HOLDER = "no Python holder"
NOT_FOLLOWED = "not followed"

GENERIC = frozenset({"", MODULE_GLOBAL, CLASS_ATTRIBUTE, INSTANCE_ATTRIBUTE})
"""Kinds that give way to one further on in the chain that says more."""

WEAK = frozenset({PARTIAL, BOUND_METHOD, TORCH_MODULE})
"""Kinds that give way to a stronger one farther on."""

KINDS = tuple(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str) and name != "__doc__"
)


_CAUSES = {
    # What a future holds, it holds once it is done: there is nothing left to cancel.
    "instance-attribute": (INSTANCE_ATTRIBUTE, CACHED_PROPERTY, BOUND_METHOD, TORCH_MODULE, WEAK_DICTIONARY, FUTURE),
    "cached-function": (FUNCTOOLS_CACHE,),
    "closure": (CLOSURE, PARTIAL),
    "running-thread": (THREAD, RUNNING_FUNCTION),
    "suspended-generator": (GENERATOR, COROUTINE, ASYNC_GENERATOR),
    "async-task": (TASK, EXECUTOR),
    "kept-exception": (EXCEPTION, LAST_EXCEPTION),
    "finalizer": (FINALIZER, ATEXIT, WEAKREF_CALLBACK),
    "interpreter-hook": (SIGNAL_HANDLER, INTERPRETER_HOOK),
    "hook": (FORWARD_HOOK, BACKWARD_HOOK, TENSOR_HOOK),
    "test-runner": (PYTEST,),
    "garbage": (GARBAGE, CYCLE, FROZEN),
    "no-python-holder": (NO_HOLDER, NOT_FOLLOWED),
}
"""Where several kinds have the same advice, or it has another name than the kind."""
_CAUSE_OF = {kind: cause for cause, kinds in _CAUSES.items() for kind in kinds}


def cause_of(kind: str) -> str:
    """Return the name of the advice on a kind of holder: a heading of docs/leaks.md."""
    return _CAUSE_OF.get(kind) or kind.replace(" ", "-")
