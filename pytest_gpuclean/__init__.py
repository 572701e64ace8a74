"""Give GPU memory back between tests, and fail the tests that leak it."""

# Every run of pytest imports this package, also where it is off: the public names are resolved on first use, and their
# types stand in `__init__.pyi`.

if type(__loader__).__module__ == "_pytest.assertion.rewrite":  # pytest is about to import the plugin
    import sys

    finders = sys.meta_path[:]
    sys.meta_path[:] = [finder for finder in finders if type(finder) is not type(__loader__)]
    try:
        from pytest_gpuclean import plugin  # noqa: F401  # as Python imports it: `plainly.py` says why
    finally:
        sys.meta_path[:] = finders
        del sys, finders


def __getattr__(name: str) -> object:
    from pytest_gpuclean.public import look_up

    value = globals()[name] = look_up(name)
    return value


def __dir__() -> list[str]:
    from pytest_gpuclean.public import HOMES

    return sorted({*globals(), "__all__", *HOMES})
