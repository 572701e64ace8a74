"""A class fixture that never frees is an error of the last test of the class."""

import pytest
import torch

FLAGGED_SOMEWHERE = {
    "fixture 'engine' (class scope) leaked 16.0 MiB on ",
    "fixture 'on_the_class' (class scope) leaked 8.0 MiB on ",
}

ENGINES = []


class TestEngine:
    @pytest.fixture(scope="class")
    def engine(self, device):
        ENGINES.append(torch.ones(2048, 2048, device=device))
        yield ENGINES[-1]

    def test_runs(self, engine):
        assert engine.sum() > 0

    def test_runs_again(self, engine):
        assert engine.max() == 1


class TestAfterwards:
    def test_uses_memory(self, device):
        assert torch.ones(2048, 2048, device=device).sum() > 0


@pytest.fixture(scope="class")
def on_the_class(request, device):
    ENGINES.append(torch.ones(2048, 1024, device=device))
    request.cls.model = ENGINES[-1]


@pytest.mark.usefixtures("on_the_class")
class TestModel:
    def test_has_a_model(self):
        assert self.model.sum() > 0

    def test_has_it_still(self):
        assert self.model.max() == 1
