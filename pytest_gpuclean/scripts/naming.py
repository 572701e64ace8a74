"""What `host_wide=` may say: the same names as `--gpu-host-wide`, or True where a function is about one of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.processes.selectors import Selector, parse_selectors

HostWide = bool | str | Iterable[str] | None


def read_host_wide(
    value: HostWide, source: str, *, true_means: str = "", only: Collection[str] = ()
) -> tuple[Selector, ...]:
    """Read what the user has named beyond the script's own.

    Args:
        value: a text with commas, several of them, or True; nothing where it is None, False or empty.
        source: the function, named in the error.
        true_means: what True stands for; it is refused where it stands for nothing.
        only: the kinds that may be named; all by default.

    Raises:
        InputError: where it is anything else.
    """
    source = f"{source}: host_wide"
    if value is None or value is False:
        return ()
    if value is True:
        if not true_means:
            raise InputError(f"{source}: True does not say what; write names, such as 'ros2,port:6006'")
        value = true_means
    if not isinstance(value, str) and isinstance(value, Iterable):
        value = list(value)
        if not value:
            return ()
    selectors = parse_selectors(value, source)
    wrong = [str(selector) for selector in selectors if only and selector.kind not in only]
    if wrong:
        raise InputError(f"{source}: {', '.join(wrong)} is not its business; it takes {' or '.join(only)}")
    return selectors
