"""The process heap's free pages."""

from __future__ import annotations

from pytest_gpuclean.cleanup.interface import Occasion, Skip


class HeapTrimCleaner:
    """Gives free pages of the heap back to the system (malloc_trim and its like)."""

    name = "heap trim"

    def clean(self, occasion: Occasion) -> str | Skip:
        """Trim at the end of a module or by hand."""
        if not (occasion.comprehensive and occasion.boundary):
            return Skip("kept until the module ends")
        try:
            from psutil import heap_trim
        except ImportError:
            return Skip("psutil.heap_trim() needs psutil 7.2 on glibc, macOS or Windows")
        heap_trim()
        return "free pages given back to the system"
