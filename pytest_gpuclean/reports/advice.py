"""What to do about each kind of holder: one line, and the heading of docs/leaks.md that says more."""

from __future__ import annotations

PAGE = "docs/leaks.md"

ADVICE = {
    "module-global": "empty it in a fixture's teardown, or make it the value of a fixture",
    "class-attribute": "set it to None in the class's teardown, or keep it on the instance",
    "cached-function": "call its cache_clear() in a fixture's teardown",
    "closure": "let go of the function, or set the variable to None at its end",
    "default-argument": "a default value lives as long as its function: use None, and make it inside",
    "function-attribute": "delete the attribute in a fixture's teardown",
    "instance-attribute": "let go of the object, or of its attribute",
    "running-thread": "end the thread in the teardown: thread.join(timeout=...)",
    "suspended-generator": "close it: generator.close(), or contextlib.closing",
    "async-task": "cancel the task and await it before its loop is closed",
    "context-variable": "set it back: VAR.reset(token), in a finally",
    "thread-local": "delete the attribute before the thread goes on to other work",
    "kept-exception": "keep the text of the exception, or traceback.clear_frames(error.__traceback__)",
    "logging-handler": "log figures instead of tensors, or flush the handler",
    "mock": "call reset_mock() in the teardown: it keeps the arguments of every call",
    "finalizer": "hand the callback numbers or a weak reference; atexit.unregister takes it back",
    "interpreter-hook": "set it back in a fixture's teardown",
    "hook": "call remove() on the handle that registering the hook returned",
    "optimizer-state": "let go of the optimizer, and of the scheduler or trainer that refers to it",
    "gradient": "optimizer.zero_grad(set_to_none=True), or let go of the parameter",
    "kept-graph": "keep the number, not the graph: loss.item(), or output.detach()",
    "fixture": "give it back in the fixture's teardown",
    "test-runner": "do not keep it on pytest's own objects, or delete it there in the teardown",
    "garbage": "break the cycle, or let the collector run",
    "no-python-holder": "look for what keeps memory outside Python: a captured graph, pinned memory, an extension",
}


def advice_on(cause: str) -> str:
    """Give the advice on a cause by its stable name, with where to read on."""
    return f"{ADVICE[cause]} ({PAGE}#{cause})" if cause in ADVICE else f"read on in {PAGE}#{cause}"
