"""Whose suites are run, and how much of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A library's source distribution, which has its tests in it.

    Its tests and its conftest files are code of strangers. The hash says which ones were looked through before they
    were run here (docs/peers.md says how); whoever raises a version looks again.
    """

    name: str
    version: str
    sha256: str
    tests: tuple[str, ...]
    """Paths in the source distribution, and other arguments for pytest."""
    plugins: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """What the source distribution unpacks to."""
        return f"{self.name}-{self.version}"


SUITES = (
    Suite(
        name="opt_einsum",
        version="3.4.0",
        sha256="96ca72f1b886d148241348783498194c577fa30a8faac108586b14f1ba4473ac",
        tests=(
            "opt_einsum/tests/test_backends.py",
            "opt_einsum/tests/test_blas.py",
            "opt_einsum/tests/test_edge_cases.py",
            "opt_einsum/tests/test_input.py",
            "opt_einsum/tests/test_parser.py",
            "opt_einsum/tests/test_paths.py",
            "opt_einsum/tests/test_sharing.py",
        ),
    ),
    Suite(
        name="einops",
        version="0.8.2",
        sha256="609da665570e5e265e27283aab09e7f279ade90c4f01bcfca111f3d3e13f2827",
        # What compiles with torch takes most of a minute, and a compiler cache makes each run unlike the one before.
        tests=("einops/tests", "-k", "not torch_compile"),
        environment={"EINOPS_TEST_BACKENDS": "numpy,torch"},
    ),
    Suite(
        name="linear_operator",
        version="0.6.1",
        sha256="3fba49a8080d16f822a5d870f462279cd6afbcf4ed670f4511b38fad96f61831",
        tests=("test/functions", "test/utils", "-k", "not many_vectors"),
    ),
    Suite(
        name="tensorly",
        version="0.10.0",
        sha256="56a2c55062b285f4c39c6dc603e4883e02d9d5d2c318fd36f5610967a4425e9c",
        tests=(
            "tensorly/metrics",
            "tensorly/random",
            "tensorly/solvers",
            "tensorly/tenalg",
            "tensorly/tests",
        ),
        environment={"TENSORLY_BACKEND": "pytorch"},
    ),
    Suite(
        name="skorch",
        version="1.4.0",
        sha256="f7a5d3c13a3aecf0a0fe689ff25188be1145a95268f8fe81f01aaa9fbd7cead1",
        # Its distributed history listens on one fixed port, which two workers cannot both do, whatever runs beside.
        tests=(
            "skorch/tests/callbacks/test_lr_scheduler.py",
            "skorch/tests/callbacks/test_regularization.py",
            "skorch/tests/test_history.py",
            "skorch/tests/test_regressor.py",
            "skorch/tests/test_setter.py",
            "skorch/tests/test_toy.py",
            "skorch/tests/test_utils.py",
            "-k",
            "not distributed",
        ),
        plugins=("flaky",),
    ),
)
"""All of them are pure Python and have their package at the top: they run from where they are unpacked."""
