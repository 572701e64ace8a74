"""The text of a leak: what it is made of, who holds it, what to do; about a dozen lines unless all is asked for."""

from pytest_gpuclean.model.leaks import Content, Explanation, Holder, Leak
from pytest_gpuclean.reports.terminal import leak_text
from pytest_gpuclean.units import MiB


def content(name="Tensor", shape=(1024, 1024), count=16, held_bytes=64 * MiB, made_at=""):
    return Content(
        type_name=name,
        dtype="float32",
        shape=shape,
        device="cuda:0",
        count=count,
        held_bytes=held_bytes,
        made_at=made_at,
    )


def holder(chain='test_cache.CACHE["layer1"]', held_bytes=64 * MiB, count=16, cause="module-global", detail=""):
    return Holder(kind="module global", chain=chain, cause=cause, held_bytes=held_bytes, count=count, detail=detail)


def text(explanation, *, whole=False):
    leak = Leak(
        kind="test",
        name="test_cache.py::test_a",
        device="cuda:0",
        source="torch",
        leaked_bytes=64 * MiB,
        threshold_bytes=MiB,
        explanation=explanation,
    )
    return leak_text(leak, whole=whole).splitlines()


def test_one_holder_of_all():
    lines = text(Explanation(contents=(content(),), holders=(holder(),), explained_bytes=64 * MiB))
    assert lines == [
        "gpuclean: leaked 64.0 MiB on cuda:0 (threshold 1.0 MiB)",
        "  16 x Tensor float32 [1024, 1024] (64.0 MiB), still alive",
        '  held by test_cache.CACHE["layer1"] (module global)',
        "  empty it in a fixture's teardown, or make it the value of a fixture (docs/leaks.md#module-global)",
        '  clear it in a fixture, or allow it: @pytest.mark.gpu_leak(allow="why", until="YYYY-MM-DD")',
    ]


def test_a_single_tensor_and_where_it_was_made():
    made = content(count=1, held_bytes=4 * MiB, made_at="test_cache.py:7 in test_a")
    lines = text(Explanation(contents=(made,), explained_bytes=4 * MiB))
    assert lines[1] == "  Tensor float32 [1024, 1024] (4.0 MiB), made at test_cache.py:7 in test_a, still alive"


def test_a_bare_storage_has_no_shape():
    storage = Content(type_name="UntypedStorage", dtype="", shape=(), device="cpu", count=1, held_bytes=4 * MiB)
    assert text(Explanation(contents=(storage,)))[1] == "  UntypedStorage (4.0 MiB), still alive"


def test_several_holders_say_what_each_holds():
    found = Explanation(
        contents=(content(),),
        holders=(holder(held_bytes=48 * MiB, count=12), holder("gc.garbage[0]", held_bytes=16 * MiB, count=4)),
        explained_bytes=64 * MiB,
    )
    assert text(found)[2:4] == [
        '  held by test_cache.CACHE["layer1"] (module global, 48.0 MiB in 12)',
        "  held by gc.garbage[0] (module global, 16.0 MiB in 4)",
    ]


def many():
    return Explanation(
        contents=tuple(content(shape=(n,)) for n in range(9)),
        holders=tuple(holder(f"test_cache.C{n}", cause=f"cause-{n}", detail=f"detail {n}") for n in range(9)),
        explained_bytes=64 * MiB,
        unexplained="no tensor accounts for 9.0 MiB of it",
        cut="3 of 12 followed",
        left=tuple(f"thread {n}" for n in range(9)),
    )


def test_about_a_dozen_lines_and_what_is_cut_is_said():
    lines = text(many())
    assert len(lines) <= 18
    assert "  and 7 more sorts (all: -vv)" in lines
    assert "  and 6 more holders (all: -vv)" in lines
    assert "  and 7 more things left (all: -vv)" in lines
    assert "  3 of 12 followed" in lines
    assert "  no tensor accounts for 9.0 MiB of it" in lines


def test_all_of_it_where_that_is_asked_for():
    lines = text(many(), whole=True)
    assert sum(line.startswith("  held by ") for line in lines) == 9
    assert sum(line.startswith("  left too: ") for line in lines) == 9
    assert sum("docs/leaks.md#cause-" in line for line in lines) == 9
    assert not any("-vv" in line for line in lines)


def test_what_nobody_explains_says_where_it_is():
    lines = text(Explanation(unexplained="no tensor or array that Python can see accounts for it: a graph"))
    assert lines[1] == "  still allocated in torch after garbage collection and clearing its caches"
    assert lines[2] == "  no tensor or array that Python can see accounts for it: a graph"
