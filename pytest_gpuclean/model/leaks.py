"""What leaked, what it is made of, and who holds it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from pytest_gpuclean.model import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Tensors or arrays of one sort that are still alive. Types, names and shapes; never values."""

    type_name: str
    """`Tensor`, `Parameter`, `ndarray`, `ArrayImpl`."""
    dtype: str
    """`float32`; empty for a bare storage."""
    shape: tuple[int, ...]
    device: str
    count: int
    held_bytes: int
    """Of all of them together, each storage once."""
    made_at: str = ""
    """Where they were made, such as `test_model.py:12 in test_train`; empty where that was not recorded."""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Content:
        """Read what `to_wire` wrote."""
        return cls(**{**wire, "shape": tuple(wire["shape"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What keeps leaked memory alive: the chain from something that a person knows to a tensor."""

    kind: str
    """What the chain begins with or goes through: `module global`, `closure`, `thread`, `forward hook`, `fixture`."""
    chain: str
    """As one would type it: `test_model.CACHE["a"][0]`, then the types on the way where no code leads further."""
    cause: str
    """The stable name of the advice: the heading of its page in docs/leaks.md."""
    held_bytes: int
    """Of what leaked, as much as is reached from it."""
    count: int
    """How many of the leaked tensors and arrays are reached from it."""
    detail: str = ""
    """One more fact: where a thread stands now, which bytes a graph has saved."""
    is_known: bool = True
    """Whether `chain` names something; else it says why nothing is named."""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Holder:
        """Read what `to_wire` wrote."""
        return cls(**wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What leaked and who holds it."""

    contents: tuple[Content, ...] = ()
    """What leaked, by sort, the largest first."""
    holders: tuple[Holder, ...] = ()
    """Who holds it, the largest first."""
    explained_bytes: int = 0
    """How much of the leak these tensors and arrays are."""
    unexplained: str = ""
    """What the rest may be, in a sentence; empty where there is none."""
    left: tuple[str, ...] = ()
    """Threads, file descriptors and shared memory that are left too: information."""
    cut: str = ""
    """What was not looked at, and why; empty where all was."""
    seconds: float = 0.0
    """What it took to find this out."""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Explanation:
        """Read what `to_wire` wrote."""
        contents = tuple(Content.from_wire(content) for content in wire["contents"])
        holders = tuple(Holder.from_wire(holder) for holder in wire["holders"])
        return cls(**{**wire, "contents": contents, "holders": holders, "left": tuple(wire["left"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Memory that somebody kept: a test, a fixture of a wider scope, or many tests together."""

    kind: Literal["test", "fixture", "module", "session", "peak"]
    name: str
    """The test, the fixture or the module that kept it."""
    device: str
    source: str
    leaked_bytes: int
    """For a peak: the peak itself."""
    threshold_bytes: int
    """For a peak: its limit."""
    scope: str = ""
    """Of a fixture: `class`, `module`, `package` or `session`."""
    tests: int = 0
    """Of a module or session: over how many tests it adds up."""
    allowed: str = ""
    """The reason why it is allowed; empty where it is not."""
    children: str = ""
    """Of memory that left processes held: `a child process (pid 12, python serve.py)`; empty for one's own."""
    known: str = ""
    """Which baseline knows it; empty where none does."""
    kept_once: str = ""
    """What running again showed, where it does not go on growing; empty elsewhere."""
    note: str = ""
    """One more line: an allowance that has expired, the attempt that leaked."""
    explanation: Explanation | None = None
    """What leaked and who holds it; None where that was not looked up."""

    @property
    def excused(self) -> bool:
        """Whether it is told without failing anything."""
        return bool(self.allowed or self.known or self.kept_once)

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Leak:
        """Read what `to_wire` wrote."""
        found = wire["explanation"]
        return cls(**{**wire, "explanation": None if found is None else Explanation.from_wire(found)})
