"""The gate as DESIGN.md describes it, on plain numbers: who is told to have leaked, with the true owner of every byte.

Nothing here is taken from the package: each buffer knows who made it and who has been charged with it.
"""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Buffer:
    """Memory on the device, from its making until it is freed."""

    size: int
    module: str
    is_charged: bool = False
    is_freed: bool = False


@dataclass
class Reference:
    """Follows a run, and says what the gate has to tell at the end of each test."""

    threshold: int
    buffers: list[Buffer] = field(default_factory=list)
    of_fixture: dict[str, list[Buffer]] = field(default_factory=dict)
    """What live fixtures of a wider scope own: made in their setup, or reachable from their value."""
    of_test: list[Buffer] = field(default_factory=list)
    told: list[tuple[str, str, int]] = field(default_factory=list)
    freed: int = 0
    grown: set[str] = field(default_factory=set)
    """Fixtures to whose values this test has added."""
    ever_grown: set[str] = field(default_factory=set)
    """Live fixtures to whose values any test has added."""
    module: str = ""
    freed_of_others: int = 0
    """In this module, of what modules before it had kept: a module is judged by its net growth, as a test is."""
    is_open: bool = False
    """Whether DESIGN.md leaves open who is told: see `end_test_itself`."""

    def begin_test(self, module: str) -> None:
        if module != self.module:
            self.module, self.freed_of_others = module, 0
        self.of_test, self.told, self.freed, self.grown = [], [], 0, set()

    def make(self, size: int, module: str, fixture: str | None = None) -> Buffer:
        buffer = Buffer(size, module)
        self.buffers.append(buffer)
        (self.of_test if fixture is None else self.of_fixture.setdefault(fixture, [])).append(buffer)
        return buffer

    def add(self, size: int, module: str, fixture: str) -> Buffer:
        self.grown.add(fixture)
        self.ever_grown.add(fixture)
        return self.make(size, module, fixture)

    def free(self, buffer: Buffer) -> None:
        buffer.is_freed = True
        owned = [each for buffers in self.of_fixture.values() for each in buffers]
        if buffer not in self.of_test and buffer not in owned:
            self.freed += buffer.size
            self.freed_of_others += buffer.size if buffer.module != self.module else 0
            # What was told and is freed after all looks like what adds up, and was kept by somebody else.
            self.is_open |= buffer.is_charged

    def end_test_itself(self, test: str) -> None:
        """Growth of the window, less what wider fixtures own: over the threshold it is the test's leak."""
        left = _alive(self.of_test)
        # Where tests before kept a little and a fixture's value has grown, numbers alone do not tell when it grew.
        self.is_open |= bool(self.grown and self._uncharged_before(left))
        growth = _size(left) - self.freed
        if growth > self.threshold:
            self._charge(left, "test", test, growth)

    def end_fixture(self, fixture: str, module: str) -> None:
        """What it did not give back is its leak, an error of the last test of its scope."""
        left = _alive(self.of_fixture.pop(fixture, []))
        for buffer in left:
            buffer.module = module
        # A little that a test has added is not looked for, and may stand among what adds up.
        self.is_open |= fixture in self.ever_grown and _size(left) > self.threshold
        self.ever_grown.discard(fixture)
        if _size(left) > self.threshold:
            self._charge(left, "fixture", fixture, _size(left))

    def end_module(self, module: str) -> None:
        """Tests that each stay under the threshold but add up are an error of the module."""
        left = [each for each in self._uncharged() if each.module == module]
        self._judge_what_adds_up(left, "module", module, self.freed_of_others)

    def end_session(self) -> None:
        """Modules that each stay under it, of the run."""
        self._judge_what_adds_up(self._uncharged(), "session", "the whole run")

    def _judge_what_adds_up(self, left: list[Buffer], kind: str, name: str, freed: int = 0) -> None:
        if _size(left) - freed > self.threshold:
            self._charge(left, kind, name, _size(left) - freed)

    def _uncharged_before(self, left: list[Buffer]) -> bool:
        return any(each not in left for each in self._uncharged())

    def _uncharged(self) -> list[Buffer]:
        owned = [buffer for buffers in self.of_fixture.values() for buffer in buffers]
        return [each for each in _alive(self.buffers) if not each.is_charged and each not in owned]

    def _charge(self, buffers: list[Buffer], kind: str, name: str, size: int) -> None:
        self.told.append((kind, name, size))
        for buffer in buffers:
            buffer.is_charged = True


def _alive(buffers: list[Buffer]) -> list[Buffer]:
    return [buffer for buffer in buffers if not buffer.is_freed]


def _size(buffers: list[Buffer]) -> int:
    return sum(buffer.size for buffer in buffers)
