"""What is asked of Python about its objects does it no harm, in any release."""

import gc
import subprocess
import sys
import types

from pytest_gpuclean.interpreter import referents_of

AFTER_ASYNCIO = """
import asyncio, gc, sys
if sys.platform == "linux":
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

async def waits():
    for number in range(5):
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, future.set_result, number)
        await future

asyncio.run(waits())
"""


def test_it_answers_as_the_collector_does():
    inner, other = [1], {"a": [2]}
    objects = [inner, other, types.ModuleType("plain"), sys, gc]
    assert list(map(id, referents_of(objects))) == list(map(id, gc.get_referents(*objects)))
    assert referents_of([]) == []


def test_of_a_harmful_module_its_namespace_is_given():
    class Module(types.ModuleType):  # the harm is done by modules alone, so no attribute of others is asked for
        def __getattribute__(self, name):
            raise AssertionError(name)

    class Hostile:
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError(other)

    harmful, inner = types.ModuleType("harmful"), [1]
    nameless, hostile = types.ModuleType("nameless"), types.ModuleType("hostile")
    del nameless.__name__
    hostile.__name__ = Hostile()
    found = referents_of([[inner], harmful, nameless, hostile, Module("harmful"), (harmful,)], "harmful")
    assert [each is inner for each in found].count(True) == 1
    assert [each is vars(harmful) for each in found].count(True) == 1
    assert [each is harmful for each in found].count(True) == 1


def run_with_asyncio(code):
    # Python 3.12.1 goes round for ever, and fills the memory.
    return subprocess.run([sys.executable, "-c", AFTER_ASYNCIO + code], timeout=60, check=False, capture_output=True)


def test_a_count_of_arrays_does_no_harm_where_coroutines_have_waited():
    code = """
from pytest_gpuclean.memory.census import values_in_heap
for _ in range(3):
    list(values_in_heap([bytearray]))
    gc.collect()
"""
    result = run_with_asyncio(code)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_search_for_holders_does_no_harm_where_coroutines_have_waited():
    code = """
from pytest_gpuclean.leaks.holders import Target, find_holders
class Held:
    pass
held = Held()
# The harmful module refers to it by itself; in other releases it has another name.
name = "_scheduled_tasks" if hasattr(asyncio.tasks, "_scheduled_tasks") else "_all_tasks"
registered = getattr(asyncio.tasks, name)
registered.held = held
for _ in range(3):
    holding = find_holders([Target((held,), 1)], reached_from=lambda value: ())
    gc.collect()
assert holding.holders and not holding.cut, holding
"""
    result = run_with_asyncio(code)
    assert (result.returncode, result.stderr) == (0, b"")


def test_only_what_somebody_has_frozen_counts():
    """Python 3.12 begins with some that nobody has frozen."""
    code = """
import gc
from pytest_gpuclean.interpreter import frozen_objects
before = frozen_objects()
gc.freeze()
print(before, frozen_objects() == gc.get_freeze_count() > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "True"]
