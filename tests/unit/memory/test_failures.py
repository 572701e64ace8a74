"""What an error says about a device: the texts are what frameworks really write."""

import multiprocessing
import sys

import pytest

from pytest_gpuclean.memory.failures import classify, says_lost
from pytest_gpuclean.units import GiB, MiB


def kind_of(name, *bases):
    """Make an exception type that is called as a framework's is."""
    module, _, short = name.rpartition(".")
    return type(short, bases or (Exception,), {"__module__": module})


TORCH_OOM = kind_of("torch.OutOfMemoryError", RuntimeError)
TORCH_OLDER_OOM = kind_of("torch.cuda.OutOfMemoryError", RuntimeError)
ACCELERATOR = kind_of("torch.AcceleratorError", RuntimeError)
DISTRIBUTED = kind_of("torch.distributed.DistBackendError", RuntimeError)
TF_OP = kind_of("tensorflow.python.framework.errors_impl.OpError")
TF_EXHAUSTED = kind_of("tensorflow.python.framework.errors_impl.ResourceExhaustedError", TF_OP)
TF_INTERNAL = kind_of("tensorflow.python.framework.errors_impl.InternalError", TF_OP)
XLA = kind_of("jaxlib.xla_extension.XlaRuntimeError", RuntimeError)
JAX = kind_of("jax.errors.JaxRuntimeError", RuntimeError)
CUPY_OOM = kind_of("cupy.cuda.memory.OutOfMemoryError", MemoryError)
CUPY_RUNTIME = kind_of("cupy_backends.cuda.api.runtime.CUDARuntimeError", RuntimeError)
NUMBA = kind_of("numba.cuda.cudadrv.driver.CudaAPIError")
PYCUDA = kind_of("pycuda._driver.MemoryError")
ARRAY_MEMORY = kind_of("numpy._core._exceptions._ArrayMemoryError", MemoryError)
SPAWNED = kind_of("torch.multiprocessing.spawn.ProcessRaisedException")
TRITON = kind_of("triton.runtime.errors.OutOfResources")
NVML_LOST = kind_of("pynvml.NVMLError_GpuIsLost")
GRPC = kind_of("google.api_core.exceptions.ResourceExhausted")

CUDA_NOTE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


def coded(text, code):
    error = ACCELERATOR(text)
    error.error_code = code
    return error


FULL = [
    (
        TORCH_OOM(
            "CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of 23.65 GiB of which "
            "11.06 MiB is free. Including non-PyTorch memory, this process has 23.60 GiB memory in use."
        ),
        "cuda:0",
        22 * MiB,
    ),
    (
        TORCH_OLDER_OOM(
            "CUDA out of memory. Tried to allocate 55.57 GiB. GPU 1 has a total capacty of 12.00 GiB of which 9.02 GiB"
        ),
        "cuda:1",
        int(55.57 * GiB),
    ),
    (
        RuntimeError(
            "CUDA out of memory. Tried to allocate 12.50 MiB (GPU 0; 10.92 GiB total capacity; 8.57 MiB already "
            "allocated; 9.28 GiB free; 4.68 MiB cached)"
        ),
        "cuda:0",
        int(12.5 * MiB),
    ),
    (TORCH_OOM("HIP out of memory. Tried to allocate 3.31 GiB. GPU 0 has a total"), "cuda:0", int(3.31 * GiB)),
    (TORCH_OOM("XPU out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity"), "xpu:0", 20 * MiB),
    (TORCH_OOM("simgpu out of memory. Tried to allocate 512.00 MiB. GPU 1 has a total"), "simgpu:1", 512 * MiB),
    (
        RuntimeError(
            "MPS backend out of memory (MPS allocated: 15.05 GB, other allocations: 11.91 GB, max allowed: 27.20 GB). "
            "Tried to allocate 1.16 GB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable"
        ),
        "mps",
        1_160_000_000,
    ),
    (RuntimeError(f"CUDA error: out of memory{CUDA_NOTE}"), "cuda", None),
    (coded(f"CUDA error: out of memory{CUDA_NOTE}", 2), "cuda", None),
    (coded("something in another language", 2), "", None),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "cuda", None),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "cuda", None),
    (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), "cuda", None),
    (RuntimeError("HIP error: out of memory"), "cuda", None),
    (RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"), "", None),
    (
        DISTRIBUTED(
            "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:275, unhandled cuda error, NCCL version 2.20\n"
            "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
        ),
        "cuda",
        None,
    ),
    (
        TF_EXHAUSTED(
            "{{function_node __wrapped__Fill_device_/job:localhost/replica:0/task:0/device:GPU:1}} OOM when allocating "
            "tensor with shape[128,128] and type float on /job:localhost/replica:0/task:0/device:GPU:1 by allocator "
            "GPU_1_bfc [Op:Fill]"
        ),
        "cuda:1",
        None,
    ),
    (TF_INTERNAL("CUDA runtime implicit initialization on GPU:0 failed. Status: out of memory"), "cuda", None),
    (XLA("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7406166528 bytes."), "", 7406166528),
    (JAX("RESOURCE_EXHAUSTED: Out of memory allocating 20029400304 bytes."), "", 20029400304),
    (
        XLA("RESOURCE_EXHAUSTED: Failed to allocate request for 2.00GiB (2147483648B) on device ordinal 1"),
        "cuda:1",
        2 * GiB,
    ),
    (RuntimeError("Resource exhausted: Out of memory while trying to allocate 24 bytes."), "", 24),
    (CUPY_OOM("Out of memory allocating 25,600,000 bytes (allocated so far: 3,635,267,072 bytes)."), "", 25_600_000),
    (CUPY_RUNTIME("cudaErrorMemoryAllocation: out of memory"), "cuda", None),
    (NUMBA("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"), "cuda", None),
    (PYCUDA("cuMemAlloc failed: out of memory"), "", None),
    (MemoryError("std::bad_alloc: out_of_memory: CUDA error at: rmm/mr/device/cuda_memory_resource.hpp"), "cuda", None),
    (
        ValueError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing"
        ),
        "",
        None,
    ),
    (
        ValueError(
            "Free memory on device cuda:0 (10.2/79.1 GiB) on startup is less than desired GPU memory utilization"
        ),
        "cuda:0",
        None,
    ),
]
HOST = [
    (
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
        ),
        4503599627370496,
    ),
    (ARRAY_MEMORY("Unable to allocate 8.00 PiB for an array with shape (1125899906842624,)"), 8 * 1024**2 * GiB),
    (TF_EXHAUSTED("OOM when allocating tensor with shape[4] and type float on /job:localhost/device:CPU:0 by"), None),
    (MemoryError(), None),
]
LOST = [
    (RuntimeError(f"CUDA error: device-side assert triggered{CUDA_NOTE}"), "cuda"),
    (coded(f"CUDA error: an illegal memory access was encountered{CUDA_NOTE}", 700), "cuda"),
    (coded("simgpu error: device 0 is lost", 719), "simgpu:0"),
    (RuntimeError("CUDA error: misaligned address"), "cuda"),
    (RuntimeError("CUDA error: unspecified launch failure"), "cuda"),
    (RuntimeError("CUDA error: the launch timed out and was terminated"), "cuda"),
    (RuntimeError("CUDA error: hardware stack error"), "cuda"),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "cuda"),
    (RuntimeError("transform: failed to synchronize: cudaErrorAssert: device-side assert triggered"), "cuda"),
    (CUPY_RUNTIME("cudaErrorIllegalAddress: an illegal memory access was encountered"), "cuda"),
    (XLA("INTERNAL: CUDA error: : CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"), "cuda"),
    (NUMBA("[700] Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS"), "cuda"),
    (RuntimeError("HIP error: unspecified launch failure"), "cuda"),
    (RuntimeError("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)"), ""),
    (NVML_LOST("GPU is lost"), ""),
    (
        DISTRIBUTED("NCCL error: unhandled cuda error\nCuda failure 'an illegal memory access was encountered'"),
        "cuda",
    ),
]
NONE = [
    AssertionError("expected 'CUDA out of memory' in the log"),
    AssertionError("assert 'CUDA error: device-side assert triggered' == ''"),
    RuntimeError("the model is out of memory slots"),
    RuntimeError("Trying to backward through the graph a second time"),
    ValueError("out of range"),
    kind_of("my_test.OutOfMemoryError")("CUDA out of memory"),
    kind_of("my_test.MyError", RuntimeError)("CUDA out of memory"),
    TRITON("out of resource: shared memory, Required: 114696, Hardware limit: 101376."),
    XLA("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem while allocating on stack for %custom-call"),
    TF_EXHAUSTED("Received message larger than max (5000000 vs. 4194304)"),
    kind_of("torch._inductor.runtime.OutOfMemoryError", RuntimeError)("out of resource: triton_mm Required: 264192"),
    GRPC("429 RESOURCE_EXHAUSTED: Out of memory"),
    RuntimeError("CUDA error: invalid device ordinal"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device" + CUDA_NOTE),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(...)`"),
    DISTRIBUTED("NCCL error: ncclRemoteError: A call failed possibly due to a network error"),
    coded("simgpu error: invalid device ordinal", 101),
    None,
]


def named(value):
    return f"{type(value).__name__} {value}"[:60].partition("\n")[0] if isinstance(value, BaseException) else None


@pytest.mark.parametrize(("error", "device", "asked"), FULL, ids=named)
def test_a_full_device_is_known_by_type_code_or_text(error, device, asked):
    found = classify(error)
    assert (found.kind, found.device, found.asked_bytes) == ("out_of_memory", device, asked)
    assert not found.is_doubtful
    assert not found.is_forwarded


@pytest.mark.parametrize(("error", "asked"), HOST, ids=named)
def test_full_host_memory_is_told_from_a_full_device(error, asked):
    found = classify(error)
    assert (found.kind, found.device, found.asked_bytes) == ("out_of_memory", "cpu", asked)


@pytest.mark.parametrize(("error", "device"), LOST, ids=named)
def test_errors_that_stick_are_known(error, device):
    found = classify(error)
    assert (found.kind, found.device) == ("device_lost", device)


@pytest.mark.parametrize("error", NONE, ids=named)
def test_what_is_neither_is_none(error):
    assert classify(error) is None


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    ],
)
def test_what_is_mostly_a_lack_of_memory_is_doubtful(text):
    found = classify(RuntimeError(text))
    assert (found.kind, found.is_doubtful) == ("out_of_memory", True)


def raised(function):
    with pytest.raises(BaseException) as info:
        function()
    return info.value


OOM = TORCH_OOM("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB")


def test_the_cause_and_a_suppressed_context_count():
    def with_cause():
        try:
            raise OOM
        except RuntimeError as error:
            raise ValueError("the batch does not fit") from error

    def suppressed():
        try:
            raise OOM
        except RuntimeError:
            raise KeyError("batch") from None

    assert classify(raised(with_cause)).asked_bytes == 2 * GiB
    assert classify(raised(suppressed)).asked_bytes == 2 * GiB


def test_an_assertion_about_an_error_that_was_caught_is_no_failure_of_a_device():
    def checks():
        try:
            raise OOM
        except RuntimeError as error:
            assert "GPU 7" in str(error)  # noqa: PT017

    def matches():
        with pytest.raises(RuntimeError, match="GPU 7"):
            raise OOM

    def causes():
        try:
            raise OOM
        except RuntimeError as error:
            raise AssertionError("training failed") from error

    assert classify(raised(checks)) is None
    assert classify(raised(matches)) is None
    assert classify(raised(causes)).kind == "out_of_memory"


def test_a_failure_by_pytest_fail_counts_by_what_it_handled():
    def fails():
        try:
            raise OOM
        except RuntimeError:
            pytest.fail("training failed")

    assert classify(raised(fails)).kind == "out_of_memory"


def test_the_members_of_a_group_count():
    group = type("ExceptionGroup", (Exception,), {"exceptions": (ValueError("other"), OOM)})("two")
    assert classify(group).device == "cuda:0"
    if sys.version_info >= (3, 11):
        assert classify(ExceptionGroup("outer", [ExceptionGroup("inner", [OOM])])).device == "cuda:0"  # noqa: F821


def test_a_chain_that_runs_in_a_circle_ends():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert classify(first) is None


def test_a_chain_without_end_is_read_up_to_a_bound():
    error = OOM
    for _ in range(100_000):
        outer = ValueError("outer")
        outer.__cause__, error = error, outer
    assert classify(error) is None


def test_a_lost_device_weighs_more_than_a_full_one():
    lost = RuntimeError("CUDA error: device-side assert triggered")
    lost.__context__ = OOM
    full = TORCH_OOM("CUDA out of memory.")
    full.__context__ = lost
    assert classify(lost).kind == "device_lost"
    assert classify(full).kind == "device_lost"


def test_a_sure_one_weighs_more_than_a_doubtful_one():
    doubtful = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
    doubtful.__context__ = OOM
    assert classify(doubtful).asked_bytes == 2 * GiB


def test_an_error_whose_text_cannot_be_read_is_none():
    class Hostile(RuntimeError):
        __module__ = "torch"

        def __str__(self):
            raise ValueError("no text")

    assert classify(Hostile()) is None


def run_out_of_memory(_):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 4.00 GiB total capacity)")


def test_an_error_of_a_child_process_is_told_as_such():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        error = raised(lambda: pool.map(run_out_of_memory, [0]))
    found = classify(error)
    assert (found.kind, found.is_forwarded) == ("out_of_memory", True)


@pytest.mark.parametrize(
    ("error", "is_forwarded"),
    [
        (
            SPAWNED(
                "\n\n-- Process 0 terminated with the following error:\nTraceback (most recent call last):\n"
                '  File "x.py", line 3, in main\n    model(batch)\n'
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total\n"
            ),
            True,
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "x.py", line 3\nRuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 3; 4.00 GiB\n'
            ),
            True,
        ),
        (
            TORCH_OOM(
                "Caught OutOfMemoryError in replica 0 on device 3.\nOriginal Traceback (most recent call last):\n"
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity\n"
            ),
            False,
        ),
    ],
)
def test_a_traceback_that_was_sent_as_a_text_is_read(error, is_forwarded):
    found = classify(error)
    assert (found.kind, found.device, found.asked_bytes) == ("out_of_memory", "cuda:3", 2 * GiB)
    assert found.is_forwarded is is_forwarded


def test_a_doctest_s_error_is_the_one_inside():
    import doctest

    test = doctest.DocTestParser().get_doctest(">>> fails()", {"fails": lambda: run_out_of_memory(0)}, "it", "", 0)
    error = raised(lambda: doctest.DebugRunner(verbose=False).run(test))
    assert classify(error).kind == "out_of_memory"


def test_a_message_of_a_failed_step_is_known():
    assert says_lost("AcceleratorError: CUDA error: device-side assert triggered")
    assert not says_lost("OutOfMemoryError: CUDA out of memory")
