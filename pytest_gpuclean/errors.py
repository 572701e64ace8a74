"""What can go wrong by the user's doing, and the warning that a leak gives in `warn` mode."""

from __future__ import annotations


class InputError(ValueError):
    """An option, marker or argument that does not parse. Its text names the value and its source."""


class GpuCleanWarning(UserWarning):
    """A leak, told as a warning: one warning a leak."""
