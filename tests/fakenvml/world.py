"""What the stand-in for NVIDIA's driver says: a file that may change at any moment."""

from dataclasses import dataclass, field
from pathlib import Path

from .build import build

WORLD_VARIABLE = "GPUCLEAN_FAKENVML_WORLD"
FOLDER_VARIABLE = "GPUCLEAN_SIMGPU_USE"
"""Where the simulated accelerator publishes what each process uses of it."""
GiB = 1024**3


@dataclass
class World:
    """The cards and their users; every change is there at the driver's next call.

    `with_card()` and the others add to it, `write()` tells the driver.
    """

    folder: Path
    lines: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "nvml-world.txt"

    @property
    def use_folder(self) -> Path:
        return self.folder / "nvml-use"

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment, from its start, to see this world."""
        self.use_folder.mkdir(exist_ok=True)
        return {
            "LD_LIBRARY_PATH": str(build()),
            WORLD_VARIABLE: str(self.file),
            FOLDER_VARIABLE: str(self.use_folder),
        }

    def card(
        self,
        uuid: str = "GPU-00000000-0000-0000-0000-000000000000",
        *,
        name: str = "Fake H100",
        total: int = 80 * GiB,
        used: int = 0,
        mig: str = "unsupported",
    ) -> "World":
        """Add a card; `used` is what nobody who is listed has."""
        return self.add(f"device {uuid} {total} {used} {mig} {name}")

    def instance(
        self, card: int, slot: int, uuid: str, *, total: int = 10 * GiB, used: int = 0, ids: tuple[int, int] = (1, 0)
    ) -> "World":
        """Add a MIG instance of a card."""
        return self.add(f"instance {card} {slot} {uuid} {total} {used} {ids[0]} {ids[1]}")

    def process(self, pid: int, size: int | None, *, card: int | str = 0, kind: str = "compute") -> "World":
        """Let a process use a card (`0`) or an instance (`"0.1"`); None: the driver does not say how much."""
        return self.add(f"process {card} {kind} {pid} {'unknown' if size is None else size}")

    def published(self) -> "World":
        """Let every process that uses the simulated accelerator use the cards of the same numbers."""
        return self.add(f"folder {self.use_folder}")

    def error(self, function: str, code: int) -> "World":
        """Let a function fail."""
        return self.add(f"error {'nvmlInitWithFlags' if function == 'nvmlInit' else function} {code}")

    def delay(self, function: str, seconds: float) -> "World":
        """Let a function take its time."""
        return self.add(f"delay {'nvmlInitWithFlags' if function == 'nvmlInit' else function} {seconds * 1000:.0f}")

    def add(self, line: str) -> "World":
        self.lines.append(line)
        return self

    def clear(self) -> "World":
        """Begin anew; the driver is told by `write`."""
        self.lines.clear()
        return self

    def write(self) -> "World":
        """Tell the driver, all at once."""
        unfinished = self.file.with_suffix(".new")
        unfinished.write_text("\n".join([*self.lines, ""]), encoding="utf-8")
        unfinished.replace(self.file)
        return self
