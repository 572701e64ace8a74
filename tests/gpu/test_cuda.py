"""The gate on a real device."""

import gc
import textwrap

import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

HEADER = """
import pytest
import torch

MiB = 1024 * 1024
KEPT = []


def block(size_bytes):
    return torch.empty(size_bytes, dtype=torch.uint8, device="cuda:0")

"""


@pytest.fixture(scope="module")
def device():
    """A CUDA or ROCm device that torch can use; asking initialises it, so not while tests are collected."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA or ROCm device")
    free, _ = torch.cuda.mem_get_info(0)
    if free < 2 * 2**30:
        pytest.skip(f"cuda:0 has {free / 2**30:.1f} GiB free, of the 2 GiB that these tests use")
    return torch.device("cuda:0")


@pytest.fixture
def run(pytester, monkeypatch):
    """Run an inner suite on the device, in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p gpuclean -p no:cacheprovider")

    def run_suite(text, *arguments):
        pytester.makepyfile(test_it=HEADER + textwrap.dedent(text))
        return pytester.runpytest_subprocess("--gpu-leak=fail", *arguments, timeout=300)

    gc.collect()
    torch.cuda.empty_cache()
    return run_suite


def test_a_kept_tensor_is_a_leak_of_what_was_asked_for(run):
    result = run("""
        def test_leaks():
            KEPT.append(block(64 * MiB + 1000))

        def test_next():
            pass
    """)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: leaked 64.0 MiB on cuda:0 (threshold 1.0 MiB)"])


def test_tensors_that_are_given_back_are_none(run):
    run("""
        def test_local():
            tensor = block(64 * MiB)

        @pytest.fixture
        def tensor():
            return block(64 * MiB)

        def test_fixture(tensor):
            pass

        def test_cycle():
            node = [block(64 * MiB)]
            node.append(node)

        class TestIt:
            def test_attribute(self):
                self.tensor = block(64 * MiB)
    """).assert_outcomes(passed=4)


def test_workspaces_of_cublas_are_no_leak(run):
    """8 MiB after the first matrix product, 32 MiB on Hopper."""
    run("""
        def test_matmul():
            left = torch.randn(512, 512, device="cuda:0")
            (left @ left).sum().item()
    """).assert_outcomes(passed=1)


def test_plans_of_cufft_are_no_leak(run):
    run("""
        def test_fft():
            torch.fft.fft2(torch.randn(8, 512, 512, device="cuda:0")).abs().sum().item()
    """).assert_outcomes(passed=1)


def test_autocast_keeps_nothing(run):
    run("""
        def test_autocast():
            model = torch.nn.Linear(1024, 1024).cuda()
            with torch.autocast("cuda"):
                model(torch.randn(64, 1024, device="cuda:0")).sum().backward()
    """).assert_outcomes(passed=1)


def test_gradients_and_optimizer_state_belong_to_the_modules_model(run):
    run("""
        @pytest.fixture(scope="module")
        def trained():
            model = torch.nn.Linear(2048, 2048).cuda()
            yield model, torch.optim.Adam(model.parameters())

        def test_first_step(trained):
            model, optimizer = trained
            model(torch.randn(8, 2048, device="cuda:0")).sum().backward()
            optimizer.step()

        def test_second_step(trained):
            model, optimizer = trained
            optimizer.zero_grad()
            model(torch.randn(8, 2048, device="cuda:0")).sum().backward()
            optimizer.step()
    """).assert_outcomes(passed=2)


def test_a_model_that_a_module_fixture_keeps_is_the_fixtures_leak(run):
    result = run("""
        @pytest.fixture(scope="module")
        def model():
            KEPT.append(torch.nn.Linear(4096, 4096).cuda())
            yield KEPT[0]

        def test_it(model):
            pass
    """)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: fixture 'model' (module scope) leaked 64.0 MiB on cuda:0*"])


def test_the_locals_of_a_failed_test_are_free_before_the_next_one(run):
    result = run("""
        def test_fails():
            tensor = block(256 * MiB)
            assert tensor is None

        def test_next():
            assert torch.cuda.memory_allocated(0) == 0
    """)
    result.assert_outcomes(failed=1, passed=1)


def test_a_test_that_ran_out_of_memory_leaves_nothing_behind(run):
    result = run("""
        def test_out_of_memory():
            total = torch.cuda.mem_get_info(0)[1]
            kept = [block(256 * MiB)]
            block(2 * total)

        def test_next():
            assert torch.cuda.memory_allocated(0) == 0
    """)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.no_fnmatch_line("*gpuclean: leaked*")


def test_a_kept_loss_is_a_leak_of_its_graph(run):
    result = run("""
        def test_leaks():
            weights = torch.randn(4 * MiB, device="cuda:0", requires_grad=True)
            KEPT.append(weights.exp().sum())
    """)
    result.assert_outcomes(passed=1, errors=1)


def test_the_peak_is_the_allocators(run):
    result = run(
        """
        def test_above():
            block(512 * MiB)

        def test_below():
            block(64 * MiB)

        def test_handle(gpu_clean):
            block(32 * MiB)
            assert 32 * MiB <= gpu_clean.peak < 64 * MiB
    """,
        "--gpu-peak-limit=256MiB",
    )
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: peak 512.0 MiB on cuda:0 (limit 256.0 MiB)"])


def test_cleaning_gives_the_cache_back_to_the_driver(run):
    run(
        """
        def test_fills_the_cache():
            block(512 * MiB)

        def test_next():
            assert torch.cuda.memory_reserved(0) == 0
    """,
        "--gpu-clean=comprehensive",
    ).assert_outcomes(passed=2)


def test_a_run_that_does_not_use_the_device_does_not_initialise_it(run):
    run(
        """
        def test_it():
            pass

        def test_after():
            assert not torch.cuda.is_initialized()
    """,
        "--gpu-clean=comprehensive",
    ).assert_outcomes(passed=2)


def test_a_stream_that_is_still_at_work_is_waited_for(run):
    run(
        """
        def test_it():
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                tensor = torch.randn(4096, 4096, device="cuda:0")
                for _ in range(20):
                    tensor = tensor @ tensor
            tensor.record_stream(stream)
    """,
        "--gpu-clean=quick",
    ).assert_outcomes(passed=1)


# -- memory that runs out, and errors that stick ----------------------------------------------------------------------


def test_a_real_lack_of_memory_is_told_and_run_again(run):
    result = run(
        """
        RUNS = []

        def test_it():
            RUNS.append(1)
            mine = block(64 * MiB)
            if len(RUNS) == 1:
                block(torch.cuda.mem_get_info(0)[1] * 2)
        """,
        "--gpu-oom-retry=1",
        "-rA",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["gpuclean: ran out of memory on cuda:0: asked for *", "OOM *running out of memory: passed"]
    )


def test_a_real_device_side_assert_is_told_with_its_consequences(run):
    result = run("""
        def test_breaks():
            table = torch.zeros(4, device="cuda:0")
            table[torch.tensor([100], device="cuda:0")].sum().item()

        def test_meets_it():
            block(MiB).sum().item()

        def test_needs_none():
            pass
    """)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["LOST cuda:0 since test_it.py::test_breaks: *device-side assert*", "  1 failure is a consequence of it"]
    )


def test_a_real_device_side_assert_that_no_test_waits_for_is_found(run):
    result = run(
        """
        def test_breaks():
            table = torch.zeros(4, device="cuda:0")
            KEPT.append(table[torch.tensor([100], device="cuda:0")])

        def test_meets_it():
            block(MiB).sum().item()
        """,
        "--gpu-clean=comprehensive",
    )
    result.stdout.fnmatch_lines(["LOST cuda:0 since test_it.py::test_breaks: *"])


def test_a_real_lost_device_goes_with_its_worker(run):
    pytest.importorskip("xdist")
    result = run(
        """
        @pytest.mark.parametrize("number", range(8))
        def test_it(number):
            table = torch.zeros(4, device="cuda:0")
            table[torch.tensor([100 if number == 2 else 1], device="cuda:0")].sum().item()
        """,
        "--gpu-on-lost=replace",
        *("-p", "xdist", "-n1"),
    )
    result.assert_outcomes(passed=7, failed=1)
