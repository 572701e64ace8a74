"""TensorFlow, JAX and CuPy: what they keep beside live tensors."""

from __future__ import annotations

from functools import partial
from inspect import signature

from pytest_gpuclean.cleanup.interface import Occasion, Skip
from pytest_gpuclean.cleanup.lookup import call, find, loaded_module

_KERAS_HOMES = ("keras.src.backend.common.global_state", "keras.src.backend", "keras.backend", "tf_keras.src.backend")
"""Where `clear_session` lives in Keras 3, 2.13 and older, and in the separate Keras 2."""


class TensorFlowCleaner:
    """Keras' global state. TensorFlow's device pool stays with the process whatever is called."""

    name = "tensorflow"

    def clean(self, occasion: Occasion) -> str | Skip:
        """Clear the session at the end of a module, by hand, or where a leak is still suspected."""
        if loaded_module("tensorflow") is None:
            return Skip("TensorFlow is not loaded")
        if not occasion.thorough:
            return Skip("kept until the module ends: it costs 70 ms")
        # clear_session() initialises the runtime, and the user's own device configuration would then fail.
        context = loaded_module("tensorflow.python.eager.context")
        live = context.context_safe() if context else None
        if getattr(live, "_initialized", False) is not True:
            return Skip("TensorFlow's runtime is not initialised")
        # tensorflow.keras is loaded lazily; asking for it would import Keras.
        homes = map(loaded_module, _KERAS_HOMES)
        clear = next((find(home, "clear_session") for home in homes if home and find(home, "clear_session")), None)
        if clear is not None and "free_memory" in signature(clear).parameters:
            clear = partial(clear, free_memory=False)  # Keras 3 would collect by itself: that is the next step's
        return ", ".join(call("Keras session", clear)) or Skip("Keras is not loaded")


class JaxCleaner:
    """Compiled functions and the arrays that they closed over."""

    name = "jax"

    def clean(self, occasion: Occasion) -> str | Skip:
        """Clear the caches at the end of a module, by hand, or where a leak is still suspected."""
        jax = loaded_module("jax")
        bridge = loaded_module("jax._src.xla_bridge")
        if jax is None or bridge is None or bridge.backends_are_initialized() is not True:
            return Skip("JAX is not in use")
        if not occasion.thorough:
            return Skip("kept until the module ends: tests would compile anew")
        return ", ".join(call("compiled functions", find(jax, "clear_caches"))) or Skip("no clear_caches in this JAX")


class CupyCleaner:
    """The default memory pool, the pinned pool and the FFT plan cache."""

    name = "cupy"
    calls_driver = True

    def clean(self, occasion: Occasion) -> str | Skip:
        """Give free blocks back where CuPy has allocated some."""
        cupy = loaded_module("cupy")
        if cupy is None:
            return Skip("CuPy is not loaded")
        if not (occasion.moved or occasion.thorough or (occasion.comprehensive and occasion.allocated)):
            return Skip("no memory moved")
        if not cupy.get_default_memory_pool().total_bytes():
            return Skip("CuPy holds nothing")
        done = []
        if occasion.thorough:
            done += call("FFT plans", find(cupy, "fft", "config", "clear_plan_cache"))
        done += call("pool", cupy.get_default_memory_pool().free_all_blocks)
        done += call("pinned pool", cupy.get_default_pinned_memory_pool().free_all_blocks)
        return ", ".join(done)
