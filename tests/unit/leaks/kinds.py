"""Code that leaves something behind, by what holds it: the kind and the chain that have to name it.

Each case: its name, the kind, the chain, then a module whose `leak` leaves its argument behind.
"""


def _parsed(text):
    cases = {}
    for case in text.split("\n\n## ")[1:]:
        name, kind, chain, *code = case.split("\n")
        cases[name] = ("\n".join(code), kind, chain)
    return cases


DATA = _parsed(
    r"""


## global
module global
test_model.KEPT
def leak(t): global KEPT; KEPT = t

## list
module global
test_model.KEPT[1]
KEPT = [0]
def leak(t): KEPT.append(t)

## dict
module global
test_model.KEPT["a"][0]
KEPT = {}
def leak(t): KEPT['a'] = [t]

## path as key
module global
test_model.KEPT["a.b/c"]
KEPT = {}
def leak(t): KEPT['a.b/c'] = t

## tuple
module global
test_model.KEPT[1][0]
def leak(t): global KEPT; KEPT = (1, (t,))

## set
module global
test_model.KEPT
KEPT = set()
def leak(t): KEPT.add(t)

## frozenset
module global
test_model.KEPT[0]
def leak(t): global KEPT; KEPT = [frozenset([t])]

## dict key
module global
test_model.KEPT.keys()
KEPT = {}
def leak(t): KEPT[t] = 1

## in a dict key
module global
test_model.KEPT.keys()[1]
KEPT = {}
def leak(t): KEPT[1, t] = 1

## deque
module global
test_model.KEPT[1]
import collections
KEPT = collections.deque([0])
def leak(t): KEPT.append(t)

## defaultdict
module global
test_model.KEPT["a"][0]
import collections
KEPT = collections.defaultdict(list)
def leak(t): KEPT['a'].append(t)

## ordered dict
module global
test_model.KEPT["a"]
import collections
KEPT = collections.OrderedDict()
def leak(t): KEPT['a'] = t

## user dict
instance attribute
test_model.KEPT.data["a"]
import collections
KEPT = collections.UserDict()
def leak(t): KEPT['a'] = t

## named tuple
module global
test_model.KEPT[0].y
import collections
P = collections.namedtuple('P', 'x y')
def leak(t): global KEPT; KEPT = [P(1, t)]

## list with attributes
instance attribute
test_model.KEPT.mask
class Batch(list): pass
KEPT = Batch()
def leak(t): KEPT.mask = t

## iterator
module global
test_model.KEPT -> list[0]
def leak(t): global KEPT; KEPT = iter([t])

## queue
instance attribute
test_model.KEPT.queue[0][1]
import queue
KEPT = queue.Queue()
def leak(t): KEPT.put((1, t))

## simple queue
module global
test_model.KEPT -> list[0]
import queue
KEPT = queue.SimpleQueue()
def leak(t): KEPT.put([t])

## two names
module global
test_model.A[0]
A = B = []
def leak(t): A.append(t)

## namespace
instance attribute
test_model.KEPT.a
import types
KEPT = types.SimpleNamespace()
def leak(t): KEPT.a = t

## weak key
weak dictionary
test_model.KEPT[<Key>][0]
import weakref
class Key: pass
KEY = Key()
KEPT = weakref.WeakKeyDictionary()
def leak(t): KEPT[KEY] = [t]
"""
)

OBJECTS = _parsed(
    r"""


## class
class attribute
test_model.Model.cache[0]
class Model:
  cache = []
def leak(t): Model.cache.append(t)

## inner class
class attribute
test_model.Model.Cache.items["a"]
class Model:
  class Cache:
    items = {}
def leak(t): Model.Cache.items['a'] = t

## class of a function
module global
test_model.KEPT.big[0]
def leak(t):
  global KEPT
  class Local:
    big = [t]
  KEPT = Local

## class of an instance
module global
test_model.KEPT[0].__class__.big[0]
def leak(t):
  global KEPT
  class Local:
    big = [t]
  KEPT = [Local()]

## instance
instance attribute
test_model.KEPT.v[0]
class Model:
  def __init__(self, v): self.v = v
def leak(t): global KEPT; KEPT = Model([t])

## instance, set from outside
instance attribute
test_model.KEPT.other
class Model: pass
KEPT = Model()
def leak(t): KEPT.other = t

## instance with a dict
instance attribute
test_model.KEPT.a["b"]
class Model: pass
KEPT = Model()
def leak(t): vars(KEPT)['a'] = {'b': t}

## slots
instance attribute
test_model.KEPT.w[0]
class Model:
  __slots__ = ('v', 'w')
KEPT = Model()
def leak(t): KEPT.w = (t,)

## dataclass
instance attribute
test_model.KEPT.b[0]
import dataclasses
@dataclasses.dataclass(slots=True)
class P:
  a: int
  b: object
def leak(t): global KEPT; KEPT = P(1, [t])

## behind a class attribute
instance attribute
test_model.KEPT.cache
class Model:
  cache = None
  def put(self, v): self.cache = v
KEPT = Model()
def leak(t): KEPT.put(t)

## objects in containers
module global
test_model.CACHE["a"][0].weight
class Model:
  def __init__(self, v): self.weight = v
CACHE = {'a': []}
def leak(t): CACHE['a'].append(Model(t))

## cached property
cached property
test_model.KEPT.big[0]
import functools
class Model:
  @functools.cached_property
  def big(self): return [self.__dict__.pop('x')]
KEPT = Model()
def leak(t): KEPT.x = t; KEPT.big

## property
closure
test_model.KEPT.x.fget -> closure of test_model.leak.<locals>.Local.x: t
def leak(t):
  global KEPT
  class Local:
    @property
    def x(self): return t
  KEPT = Local

## exception's arguments
module global
test_model.KEPT.args[0][0]
def leak(t): global KEPT; KEPT = ValueError([t])

## weakref callback
weakref callback
test_model.KEPT.__callback__ -> closure of test_model.leak.<locals>.<lambda>: t
import weakref
class Key: pass
def leak(t): global KEPT; KEPT = weakref.ref(Key, lambda _: t)

## mock
mock
test_model.KEPT.call_args_list[1].args[0]
from unittest import mock
KEPT = mock.Mock()
def leak(t): KEPT(1); KEPT(t, 2); KEPT(3)

## magic mock
mock
test_model.KEPT.step.call_args_list[0].kwargs["x"]
from unittest import mock
KEPT = mock.MagicMock()
def leak(t): KEPT.step(x=t)

## mock's return value
mock
test_model.KEPT.load.return_value[0]
from unittest import mock
KEPT = mock.Mock()
def leak(t): KEPT.load.return_value = [t]
"""
)

FUNCTIONS = _parsed(
    r"""


## closure
closure
test_model.KEPT -> closure of test_model.leak.<locals>.hook: t
def leak(t):
  global KEPT
  def hook(): return t
  KEPT = hook

## closure in a list
closure
test_model.KEPT[0] -> closure of test_model.make.<locals>.hook: acts["a"]
KEPT = []
def make(acts):
  def hook(): return acts
  return hook
def leak(t): KEPT.append(make({'a': t}))

## decorated
closure
closure of test_model.step: v
import functools
def keep(v):
  def deco(f):
    @functools.wraps(f)
    def w(): return v
    return w
  return deco
def leak(t):
  global step
  @keep(t)
  def step(): pass
  step.__qualname__ = 'step'

## default argument
default argument
default argument of test_model.step: cache[0]
def step(a, cache=[], *, b=1): pass
def leak(t): step.__defaults__[0].append(t)

## keyword default
default argument
default argument of test_model.step: cache["a"]
def step(*, cache={}): pass
def leak(t): step.__kwdefaults__['cache']['a'] = t

## default argument of a method
default argument
default argument of test_model.Model.step: cache[0]
class Model:
  def step(self, cache=[]): cache.append(self.x)
def leak(t): m = Model(); m.x = t; m.step()

## function attribute
function attribute
test_model.step.calls[0]
def step(): pass
step.calls = []
def leak(t): step.calls.append(t)

## functools.cache
functools cache
functools.cache of test_model.load: result[0]
import functools
X = []
@functools.cache
def load(n): return [X.pop()]
def leak(t): X.append(t); load(3)

## functools.lru_cache
functools cache
functools.cache of test_model.load: result
import functools
X = []
@functools.lru_cache(8)
def load(n): return X.pop()
def leak(t): X.append(t); load(3)

## argument in a cache
functools cache
functools.cache of test_model.norm: argument 1
import functools
@functools.lru_cache
def norm(a, b): return 1
def leak(t): norm(1, t)

## cached method
functools cache
functools.cache of test_model.Model.run: argument 0.x
import functools
class Model:
  @functools.cache
  def run(self): return 1
def leak(t): m = Model(); m.x = t; m.run()

## partial
partial
test_model.KEPT.keywords["end"][0]
import functools
def leak(t): global KEPT; KEPT = functools.partial(print, 1, end=[t])

## method of a list
bound method
test_model.KEPT.__self__[0]
def leak(t): global KEPT; KEPT = [t].append

## bound method
bound method
test_model.KEPT[0].__self__.w
class Model:
  def step(self): pass
def leak(t): global KEPT; m = Model(); m.w = t; KEPT = [m.step]

## generator
generator
test_model.KEPT -> generator test_model.batches: x[0]
def batches(x): yield x
def leak(t): global KEPT; KEPT = batches([t]); next(KEPT)

## generator in a generator
generator
test_model.KEPT -> generator test_model.outer: y
def inner(x): yield x
def outer(y): yield from inner(y)
def leak(t): global KEPT; KEPT = outer(t); next(KEPT)

## generator's loop
generator
test_model.KEPT -> generator test_model.batches -> list[1]
def batches():
  for x in X.pop():
    del x
    yield 1
X = []
def leak(t): global KEPT; X.append([1, t]); KEPT = batches(); next(KEPT)

## coroutine
coroutine
test_model.KEPT -> coroutine test_model.work: x
async def work(x): pass
def leak(t): global KEPT; KEPT = work(t)
def undo(): KEPT.close()

## asynchronous generator
asynchronous generator
test_model.KEPT -> asynchronous generator test_model.rows: x
async def rows(x): yield x
def leak(t):
  global KEPT
  KEPT = rows(t)
  try: KEPT.asend(None).send(None)
  except StopIteration: pass

## exception
exception
test_model.KEPT[0] -> traceback of ValueError in test_model.step: u
KEPT = []
def step(u): raise ValueError
def leak(t):
  try: step(t)
  except ValueError as e: KEPT.append(e)
  del t

## context of an exception
exception
test_model.KEPT.__context__ -> traceback of KeyError in test_model.step: u
def step(u): raise KeyError
def leak(t):
  global KEPT
  try:
    try: step(t)
    except KeyError: raise ValueError
  except ValueError as e: KEPT = e.with_traceback(None)
  KEPT.__context__.__traceback__ = KEPT.__context__.__traceback__.tb_next; del t

## caller of what raised
exception
test_model.KEPT -> traceback of ValueError in caller test_model.high: v
import sys
def low():
  raise ValueError
def high(v):
  try: low()
  except ValueError as e:
    e.__traceback__ = e.__traceback__.tb_next
    return e
def leak(t): global KEPT; KEPT = high(t)
def undo(): KEPT.__traceback__ = None

## frame
module global
test_model.KEPT -> frame of test_model.high: v
import sys
def high(v): return sys._getframe()
def leak(t): global KEPT; KEPT = high(t)
"""
)

PROGRAM = _parsed(
    r"""


## thread
thread
thread 'loader' in test_model.loop: batch[0]
import threading
END = threading.Event()
def loop(batch): END.wait()
def leak(t): threading.Thread(target=loop, args=([t],), name='loader').start()
def undo(): END.set()

## thread's target
thread
thread 'loader' in test_model.run: me.rows
import threading
END = threading.Event()
class Loader: pass
def run(me): END.wait()
def leak(t): m = Loader(); m.rows = t; threading.Thread(target=run, args=(m,), name='loader').start()
def undo(): END.set()

## thread that did not start
instance attribute
test_model.KEPT._args[0]
import threading
def leak(t): global KEPT; KEPT = threading.Thread(target=print, args=(t,))

## thread-local
thread-local
test_model.KEPT.x[0]
import threading
KEPT = threading.local()
def leak(t): KEPT.x = [t]

## context variable
context variable
context variable 'state': value[0]
import contextvars
STATE = contextvars.ContextVar('state')
def leak(t): STATE.set([t])
def undo(): STATE.set(None)

## kept context
context variable
test_model.KEPT -> context variable 'state'
import contextvars
V = contextvars.ContextVar('state')
KEPT = contextvars.copy_context()
def leak(t): KEPT.run(V.set, t)

## token
context variable
test_model.KEPT.old_value[0]
import contextvars
V = contextvars.ContextVar('state')
def leak(t): global KEPT; V.set([t]); KEPT = V.set(1)

## default of a context variable
context variable
test_model.KEPT.get()[0]
import contextvars
def leak(t): global KEPT; KEPT = contextvars.ContextVar('state', default=[t])

## asyncio task
asyncio task
asyncio task 'loader' -> coroutine test_model.work: x[0]
import asyncio
LOOP = asyncio.new_event_loop()
async def work(x): await asyncio.sleep(100)
def leak(t):
  LOOP.create_task(work([t]), name='loader')
  LOOP.run_until_complete(asyncio.sleep(0))
def undo():
  for task in asyncio.all_tasks(LOOP): task.cancel()
  LOOP.run_until_complete(asyncio.sleep(0)); LOOP.close()

## finished task
future
test_model.KEPT.result()[0]
import asyncio
LOOP = asyncio.new_event_loop()
X = []
async def work(): return [X.pop()]
def leak(t):
  global KEPT
  X.append(t)
  KEPT = LOOP.create_task(work())
  LOOP.run_until_complete(KEPT)
def undo(): LOOP.close()

## future
future
test_model.KEPT.result()[0]
import concurrent.futures
KEPT = concurrent.futures.Future()
def leak(t): KEPT.set_result([t])

## last exception
last exception
sys.last_value -> traceback of ValueError in test_model.step: u
import sys
def step(u): raise ValueError
def leak(t):
  try: step(t)
  except ValueError as e: sys.last_value = e.with_traceback(e.__traceback__.tb_next)
  del t
def undo(): del sys.last_value

## hook of the interpreter
interpreter hook
sys.excepthook -> closure of test_model.leak.<locals>.hook: t
import sys
OLD = sys.excepthook
def leak(t):
  def hook(*a): return t
  sys.excepthook = hook
def undo(): sys.excepthook = OLD

## signal handler
signal handler
handler of SIGUSR2 -> closure of test_model.leak.<locals>.hook: t
import signal
def leak(t):
  def hook(*a): return t
  signal.signal(signal.SIGUSR2, hook)
def undo(): signal.signal(signal.SIGUSR2, signal.SIG_DFL)

## collector's callback
interpreter hook
gc.callbacks[0] -> closure of test_model.leak.<locals>.hook: t
import gc
def leak(t):
  def hook(*a): return t
  gc.callbacks.insert(0, hook)
def undo(): gc.callbacks.pop(0)

## logging handler
logging handler
logging.getLogger("app.train").handlers[0].buffer[0].args[0]
import logging.handlers
def leak(t):
  log = logging.getLogger('app.train')
  log.propagate = False
  log.addHandler(logging.handlers.MemoryHandler(9)); log.warning('at %s', t)
def undo():
  log = logging.getLogger('app.train')
  log.handlers[0].buffer.clear(); log.removeHandler(log.handlers[0])

## finalizer
finalizer
weakref.finalize callback test_model.close: args[0][0]
import weakref
class Key: pass
KEY = Key()
def close(x): pass
def leak(t): weakref.finalize(KEY, close, [t])
def undo(): global KEY; del KEY

## atexit, arguments
atexit callback
atexit callback test_model.close: args[0]
import atexit
def close(x): pass
def leak(t): atexit.register(close, t)
def undo(): atexit.unregister(close)

## atexit, keyword arguments
atexit callback
atexit callback test_model.close: kwargs["x"]
import atexit
def close(**given): pass
def leak(t): atexit.register(close, x=t)
def undo(): atexit.unregister(close)

## atexit, arguments of a class
atexit callback
atexit callback test_model.Close: args[0][0]
import atexit
class Close(list): pass
def leak(t): atexit.register(Close, [t])
def undo(): atexit.unregister(Close)

## atexit, arguments of an object
atexit callback
atexit callback test_model.Close: args[0]
import atexit
class Close:
  def __call__(self, x): pass
U = Close()
def leak(t): atexit.register(U, t)
def undo(): atexit.unregister(U)

## atexit, closure
atexit callback
atexit callback test_model.leak.<locals>.inner -> closure of test_model.leak.<locals>.inner: t
import atexit
def leak(t):
  global close
  def inner(): return t
  atexit.register(inner); U.append(weakref.ref(inner))
import weakref
U = []
def undo(): atexit.unregister(U[0]())

## arguments that no callback at exit takes
no Python holder
tuple that no Python object refers to: value[1]
import atexit, ctypes
def close(x): pass
atexit.register(close, 0)
def leak(t):
  global U
  held = (0, t)
  U = id(held)
  ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
def undo():
  ctypes.pythonapi.Py_DecRef(ctypes.cast(U, ctypes.py_object))
  atexit.unregister(close)

## cycle
no Python holder
no Python object refers to it, but for what gc.freeze() has put aside
import gc
class Node: pass
def leak(t): n = Node(); n.me = n; n.tensor = t; gc.freeze()
def undo(): gc.unfreeze()

## garbage
uncollectable garbage
gc.garbage[0][0]
import gc
def leak(t): gc.garbage.append([t])
def undo(): gc.garbage.clear()
"""
)
