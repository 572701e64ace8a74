"""The ledger: every change of memory is booked to who made it, a test or a fixture of a wider scope.

It knows numbers alone. Two kinds of account are in it: those that judge (each device's allocators, and the live
arrays of host memory), and the heap, which only raises a doubt about host memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_gpuclean.model.memory import ARRAYS, HEAP, Account, Bytes

_HEAP_NOISE_BYTES = 64 * 1024
"""By less than that a setup moves the heap without any array."""
_OLDER_BYTES = 256 * 1024
"""How much more of the heap may be freed than those held who may have held it, before older things went with it."""


@dataclass(slots=True, kw_only=True)
class FixtureShare:
    """What a live fixture of a wider scope owns."""

    key: int
    name: str
    scope: str
    held: Bytes = field(default_factory=dict)
    """What its end has to give back: what its setup brought up, and what tests added to its value."""
    reach: Bytes = field(default_factory=dict)
    """What was reachable from its value when it was last looked at."""
    is_looked_at: bool = False
    """Whether that was done at all, for devices; else it is not known what the value reached at first."""
    has_arrays: bool = False
    """The same for the arrays in host memory."""
    fallen: Bytes = field(default_factory=dict)
    """What tests freed meanwhile that nobody else accounts for: it may have been this fixture's."""
    is_certain: bool = True
    """Whether all that happened while it lived has been booked."""


@dataclass(slots=True)
class Drift:
    """What tests kept below the threshold, added up."""

    kept: Bytes = field(default_factory=dict)
    tests: int = 0


class Ledger:
    """Books the movement between two looks to the owner of that stretch of time."""

    def __init__(self) -> None:
        self.fixtures: dict[int, FixtureShare] = {}
        """Live fixtures of a wider scope."""
        self.ended: list[FixtureShare] = []
        """Fixtures that came to their end in this window and are not judged yet."""
        self.test: Bytes = {}
        """What the test of this window holds."""
        self.modules: dict[str, Drift] = {}
        self.session = Drift()
        self.unlooked: Bytes = {}
        """What of it came about since the values of live fixtures were last looked at."""
        self.heap_by_module = False
        """Whether the heap is read at the edges of modules alone: then no test is charged for it."""
        self._owners: list[Bytes] = []
        self._last: Bytes = {}
        self._known: set[Account] = set()
        self._module = ""

    # -- the timeline -------------------------------------------------------------------------------------------

    def open(self, module: str, levels: Bytes | None = None) -> None:
        """Begin a window: what is in use now is where it starts; no levels mean that nothing has changed."""
        self.test = {}
        self.ended = []  # what ended outside of all windows is nobody's to tell
        self._owners = [self.test]
        if levels:
            self._take(levels)
        if module not in self.modules:
            self.modules[module] = Drift()
        self._module = module
        self.session.tests += 1
        self.modules[module].tests += 1

    def forget(self, device: str) -> None:
        """Drop what was booked of a device, or of host memory (`cpu`): it is not watched any more."""
        shares = [
            self.test,
            *self._owners,
            self._last,
            self.session.kept,
            self.unlooked,
            *(d.kept for d in self.modules.values()),
        ]
        for fixture in (*self.fixtures.values(), *self.ended):
            shares += [fixture.held, fixture.reach, fixture.fallen]
        for share in shares:
            for account in [account for account in share if account.device == device]:
                del share[account]

    def lose_track(self) -> None:
        """Take it that something was not booked: nobody is accused by what was known before, and the window ends."""
        for share in self.fixtures.values():
            share.is_certain = False
        for drift in (self.session, *self.modules.values()):
            drift.kept.clear()
        self.unlooked = {}
        self.close()

    def close(self) -> None:
        """End the window: what follows belongs to nobody until the next one begins."""
        shares = self.fixtures.values()
        self._owners = [share.held for share in shares if self._is_owner(share.held)] if shares else []
        self.ended = []

    def _is_owner(self, share: Bytes) -> bool:
        return any(owner is share for owner in self._owners)

    def book(self, levels: Bytes) -> None:
        """Charge what changed since the last look to the present owner."""
        owner = self._owners[-1] if self._owners else None
        for account, change in self._changes(levels).items():
            if account == HEAP and self.heap_by_module and owner is self.test:
                self.drift(account, change)
            elif owner is not None:
                _add(owner, account, change)
        self._take(levels)

    def begin_setup(self, key: int, name: str, scope: str) -> None:
        """A fixture of a wider scope comes up: what follows is its own."""
        share = self.fixtures[key] = FixtureShare(key=key, name=name, scope=scope)
        self._owners.append(share.held)

    def end_setup(self, key: int) -> None:
        """It is up: what follows is again its caller's."""
        share = self.fixtures[key]
        # Not pop(): a fixture that was torn down in the middle may stand above it.
        self._owners = [owner for owner in self._owners if owner is not share.held]

    def begin_release(self, key: int) -> bool:
        """A fixture comes to its end: what follows is given back by it. Tell whether it was known."""
        share = self.fixtures.pop(key, None)
        if share is None:
            return False
        self.ended.append(share)
        released = [ended.held for ended in self.ended]
        self._owners = [owner for owner in self._owners if not any(owner is held for held in released)]
        self._owners.append(share.held)
        return True

    def end_releases(self) -> None:
        """What follows is nobody's release any more."""
        released = [ended.held for ended in self.ended]
        self._owners = [owner for owner in self._owners if not any(owner is held for held in released)]

    def push(self) -> Bytes:
        """Begin a stretch of time with an owner of its own, inside the present one."""
        owner: Bytes = {}
        self._owners.append(owner)
        return owner

    def pop(self, owner: Bytes, *, charged: bool) -> None:
        """End such a stretch; what was not charged to it falls to the owner around it."""
        self._owners = [other for other in self._owners if other is not owner]
        if not charged and self._owners:
            for account, size in owner.items():
                _add(self._owners[-1], account, size)

    def book_given_back(self, levels: Bytes, pending: Iterable[Bytes]) -> None:
        """Book what a cleanup freed to those who may have held it, in turn, and the rest to the drift.

        Where so much of the heap was freed that it was not theirs alone, it may have been theirs not at all: they keep
        the doubt, and a count of arrays decides.
        """
        shares = list(pending)
        for account, change in self._changes(levels).items():
            rest = change
            held_bytes = sum(max(0, share.get(HEAP, 0)) for share in shares) if account == HEAP else 0
            if held_bytes and change < -held_bytes - _OLDER_BYTES:
                self.drift(account, change + held_bytes)
                continue
            for share in shares:
                if rest < 0 < share.get(account, 0):
                    part = max(rest, -share[account])
                    share[account] += part
                    rest -= part
            if rest and shares and (rest > 0 or account == ARRAYS):
                _add(shares[0], account, rest)  # a count of arrays is no release: it may well have fallen before
            elif rest:
                self.drift(account, rest)
        self._take(levels)

    def pending(self, key: int | None = None) -> list[Bytes]:
        """List what ended fixtures still hold, in the order of their ends.

        Args:
            key: of one that comes first.
        """
        return [share.held for share in sorted(self.ended, key=lambda share: share.key != key)]

    def expect_returned(self, share: Bytes) -> None:
        """Take it that the arrays of a share have gone with its heap: the census need not look."""
        size = share.pop(ARRAYS, 0)
        if ARRAYS in self._last:
            self._last[ARRAYS] -= size

    def expect_gone(self, share: Bytes) -> None:
        """Take it that of the arrays of a share no more are left than of its heap: a count shows nobody whose went."""
        gone = share.get(ARRAYS, 0) - max(0, share[HEAP]) if HEAP in share else 0
        if gone > 0:
            share[ARRAYS] -= gone
            if ARRAYS in self._last:
                self._last[ARRAYS] -= gone

    # -- looking at the values of live fixtures -----------------------------------------------------------------

    def credit(self, reach_now: dict[int, Bytes], *, with_arrays: bool = True) -> Bytes:
        """Take in what live fixtures reach now; return by how much that grew since the last look.

        Args:
            reach_now: of each fixture.
            with_arrays: whether the arrays in host memory have been looked at too.
        """
        grown: Bytes = {}
        for key, now in reach_now.items():
            share = self.fixtures[key]
            for account in {*now, *share.reach}:
                change = now.get(account, 0) - _reached_before(share, account, now.get(account, 0))
                _add(grown, account, change)
                add_with_heap(share.held, account, change)
            share.reach, share.is_looked_at = dict(now), True
            share.has_arrays |= with_arrays
        self.unlooked = {}
        return grown

    def note_fall(self, account: Account, freed_bytes: int) -> None:
        """A test freed what it did not make: what earlier tests kept, or else what any live fixture held."""
        module = self.modules[self._module].kept if self._module else {}
        for kept in (module, self.session.kept):
            paid = min(freed_bytes, max(0, kept.get(account, 0)))
            _add(kept, account, -paid)
        for share in self.fixtures.values():
            _add(share.fallen, account, freed_bytes - paid)

    def fallen(self, threshold: int) -> list[Bytes]:
        """List what ended fixtures hold, of those that have given back more than they had."""
        return [share.held for share in self.ended if any(size < -threshold for size in share.held.values())]

    def note_falls(self, fallen: Iterable[Bytes], threshold: int) -> None:
        """Take what ended fixtures freed beyond their own for what earlier tests kept, or any live fixture held.

        Args:
            fallen: what they hold.
            threshold: how much more than that has to have gone.
        """
        for share in fallen:
            for account, size in share.items():
                if size < -threshold:
                    share[account] = 0
                    self.note_fall(account, -size)

    # -- what adds up -------------------------------------------------------------------------------------------

    def drift(self, account: Account, size_bytes: int, *, is_looked_at: bool = False) -> None:
        """Add what was kept below the threshold in this module, or take away what was given back of it.

        Args:
            account: whose bytes these are.
            size_bytes: negative for what was given back.
            is_looked_at: whether the values of live fixtures have been looked at meanwhile.
        """
        added = [self.session.kept] if is_looked_at else [self.session.kept, self.unlooked]
        if self._module:
            added.append(self.modules[self._module].kept)
        for share in added:
            share[account] = share.get(account, 0) + size_bytes

    def drift_all(self, levels: Bytes) -> None:
        """Take what little has changed since the last look as drift."""
        for account, change in self._changes(levels).items():
            self.drift(account, change)
        self._take(levels)

    def leave_to_session(self, drift: Drift, account: Account, largest: int) -> None:
        """Take out of a module's drift what exceeds its own growth: a count shows what modules before it kept too."""
        drift.kept[account] = min(drift.kept.get(account, 0), max(0, largest))

    def forget_drift(self, account: Account, drift: Drift) -> int:
        """Take an account out of a module's or the session's drift; return what it was."""
        size = drift.kept.pop(account, 0)
        if drift is not self.session:
            _add(self.session.kept, account, -size)
        return size

    def _changes(self, levels: Bytes) -> Bytes:
        changes: Bytes = {}
        for account, level in levels.items():
            # New in this run: it began at 0. One that could not be read for a while starts afresh.
            before = self._last.get(account, level if account in self._known else 0)
            if level != before:
                changes[account] = level - before
        return changes

    def _take(self, levels: Bytes) -> None:
        for account in self._last.keys() - levels.keys():
            if account.device != "cpu":
                del self._last[account]
        self._last.update(levels)
        self._known.update(levels)


def add_with_heap(share: Bytes, account: Account, change: int) -> None:
    """Add to what a fixture holds; arrays are in the heap too, which tells at its end whether they have gone."""
    _add(share, account, change)
    if account == ARRAYS:
        _add(share, HEAP, change)


def _reached_before(share: FixtureShare, account: Account, now_bytes: int) -> int:
    """Say what a fixture's value reached at the last look; at the first one, as much as its setup has brought up."""
    if share.has_arrays if account == ARRAYS else share.is_looked_at:
        return share.reach.get(account, 0)
    brought_bytes = share.held.get(account, 0)
    heap_bytes = share.held.get(HEAP, 0)
    if account == ARRAYS and heap_bytes > _HEAP_NOISE_BYTES:  # not counted where they are few, but in the heap
        brought_bytes = max(brought_bytes, heap_bytes)
    return min(now_bytes, max(0, brought_bytes))


def _add(share: Bytes, account: Account, change: int) -> None:
    share[account] = share.get(account, 0) + change
