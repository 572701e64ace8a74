"""Tests that are coroutines: pytest-asyncio, anyio (asyncio and trio), and unittest's IsolatedAsyncioTestCase."""

import pytest

from .street import in_full

ASYNC = """
    import asyncio
    import contextlib

    {header}

    @pytest.fixture
    async def buffer():
        made = allocate(4 * MiB)
        yield made

    @{fixture}
    async def model():
        made = allocate(8 * MiB)
        yield made
        await {sleep}(0)

    {mark}
    async def test_frees(buffer, model):
        await {sleep}(0)

    {mark}
    async def test_fails(model):
        local = allocate(16 * MiB)
        await {sleep}(0)
        assert local.size_bytes == 0

    {mark}
    async def test_leaks(model):
        await {sleep}(0)
        KEPT.append(allocate(4 * MiB))

    {mark}
    async def test_garbage():
        node = [allocate(2 * MiB)]
        node.append(node)
        await {sleep}(0)

    @pytest.mark.xfail
    {mark}
    async def test_xfails():
        local = allocate(16 * MiB)
        await {sleep}(0)
        raise ValueError(local.size_bytes)

    def test_is_no_coroutine(model):
        pass
"""


def pytest_asyncio_suite(loop):
    return ASYNC.format(
        header="import pytest_asyncio",
        mark=f"@pytest.mark.asyncio(loop_scope='{loop}')",
        fixture="pytest_asyncio.fixture(scope='module', loop_scope='module')",
        sleep="asyncio.sleep",
    )


@pytest.mark.parametrize("loop", ["function", "module"])
def test_pytest_asyncio(street, loop):
    pytest.importorskip("pytest_asyncio")
    street.ini("asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function")
    street.write(pytest_asyncio_suite(loop))
    beside, alone = street.both("-p", "asyncio")
    assert beside.order == alone.order
    assert beside.leaky == {"test_it.py::test_leaks": 1}


def test_what_is_left_to_a_loop_ends_with_the_loop(street):
    pytest.importorskip("pytest_asyncio")
    street.ini("asyncio_default_fixture_loop_scope = function")
    street.write("""
        import asyncio

        async def wait():
            local = allocate(4 * MiB)
            await asyncio.sleep(3600)

        async def generate():
            local = allocate(4 * MiB)
            yield 1
            yield 2

        async def forget_a_task():
            asyncio.ensure_future(wait())
            await asyncio.sleep(0)

        async def leave_a_generator():
            async for number in generate():
                break

        @pytest.mark.asyncio
        async def test_task():
            await forget_a_task()

        @pytest.mark.asyncio
        async def test_generator():
            await leave_a_generator()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_task_leaks_in_a_loop_that_goes_on():
            await forget_a_task()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_generator_leaks_in_a_loop_that_goes_on():
            await leave_a_generator()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_last():
            pass
    """)
    street.both("-p", "asyncio")


@in_full
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("scope", ["function", "module"])
def test_anyio(street, backend, scope):
    pytest.importorskip("anyio")
    pytest.importorskip(backend)
    header = f"""import anyio

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "{backend}"
    """
    street.write(
        ASYNC.format(header=header, mark="", fixture=f"pytest.fixture(scope='{scope}')", sleep="anyio.sleep").replace(
            "    \n    async def", "    async def"
        )
    )
    beside, alone = street.both("-p", "anyio", apart=True)
    assert beside.order == alone.order
    assert beside.leaky == {"test_it.py::test_leaks": 1}


@in_full
def test_pytest_asyncio_and_anyio_together_with_workers(street):
    pytest.importorskip("pytest_asyncio")
    pytest.importorskip("anyio")
    pytest.importorskip("xdist")
    street.ini("asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function")
    street.write(pytest_asyncio_suite("module"))
    street.write(pytest_asyncio_suite("function"), "test_other")
    beside, _ = street.both("-p", "asyncio", "-p", "anyio", "-p", "xdist", "-n2", apart=True)
    assert len(beside.leaky) == 2


@in_full
def test_isolated_asyncio_test_case(street):
    street.write("""
        import asyncio
        import unittest

        class TestIt(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.buffer = allocate(4 * MiB)

            async def test_frees(self):
                await asyncio.sleep(0)

            async def test_fails(self):
                local = allocate(16 * MiB)
                await asyncio.sleep(0)
                self.fail("own reason")

            async def test_leaks(self):
                await asyncio.sleep(0)
                KEPT.append(allocate(4 * MiB))

            async def test_task_ends_with_its_loop(self):
                async def wait():
                    local = allocate(4 * MiB)
                    await asyncio.sleep(3600)

                asyncio.ensure_future(wait())
                await asyncio.sleep(0)

            @unittest.expectedFailure
            async def test_expected(self):
                local = allocate(16 * MiB)
                await asyncio.sleep(0)
                self.fail("known")

            async def test_skips(self):
                raise unittest.SkipTest("later")
    """)
    beside, alone = street.both(apart=True)  # in this process, pytester keeps what a test has raised
    assert beside.order == alone.order
    assert beside.leaky == {"test_it.py::TestIt::test_leaks": 1}


@in_full
def test_tensors_of_a_simulated_accelerator_in_coroutines(street, simgpu, no_garbage):
    pytest.importorskip("pytest_asyncio")
    street.ini("asyncio_default_fixture_loop_scope = function")
    street.write(
        """
        import asyncio
        import pytest
        import torch

        KEPT = []

        def tensor():
            return torch.zeros(1024, 1024, device="simgpu")

        @pytest.mark.asyncio
        async def test_fails():
            local = tensor()
            await asyncio.sleep(0)
            raise ValueError("own reason")

        @pytest.mark.asyncio
        async def test_leaks():
            KEPT.append(tensor())
            await asyncio.sleep(0)

        @pytest.mark.asyncio
        async def test_frees():
            results = await asyncio.gather(*[asyncio.to_thread(tensor) for _ in range(3)])
            node = [results]
            node.append(node)
    """,
        header="",
    )
    beside, _ = street.both("-p", "asyncio")
    assert beside.leaky == {"test_it.py::test_leaks": 1}
    assert "held by test_it.KEPT" in beside.text
    beside.result.stdout.fnmatch_lines(["given back: 1?.0 MiB*"])
