"""What the neighbours' tests are given."""

import pytest
from plugin.conftest import Suite, own_temporary_folder

pytest.register_assert_rewrite("neighbours.street")

from .street import Street  # noqa: E402 - to be rewritten

__all__ = ["own_temporary_folder", "street"]


@pytest.fixture
def street(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    own_temporary_folder: None,  # noqa: F811
) -> Street:
    """An inner suite on the fake device, run beside a neighbour and without this plugin."""
    return Street(Suite(pytester, monkeypatch, pytestconfig), monkeypatch)
