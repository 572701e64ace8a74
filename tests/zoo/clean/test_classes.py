"""Models on classes and modules, that tests train and a teardown drops; and what plain instances hold."""

import os
import unittest

import pytest
import torch
from torch import nn

DEVICE = "cpu" if os.environ.get("GPUCLEAN_ZOO_DEVICE", "cpu") == "cpu" else "simgpu:0"


def make_model():
    return nn.Linear(2048, 1024).to(DEVICE)


def train(model):
    model(torch.ones(8, 2048, device=DEVICE)).sum().backward()
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.step()
    return optimizer


def setup_module(module):
    module.MODEL = make_model()


def teardown_module(module):
    del module.MODEL


def test_trains_the_model_of_the_module():
    train(MODEL)  # noqa: F821


def test_keeps_its_optimizer_on_it():
    MODEL.optimizer = train(MODEL)  # noqa: F821


class OwnedByTheBase(unittest.TestCase):
    __test__ = False
    model = None

    @classmethod
    def setUpClass(cls):
        OwnedByTheBase.model = make_model()

    @classmethod
    def tearDownClass(cls):
        OwnedByTheBase.model = None


class BaseOfOthersTest(OwnedByTheBase):
    __test__ = True

    def test_makes_another_for_the_base(self):
        OwnedByTheBase.another = make_model()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        OwnedByTheBase.another = None

    def test_trains(self):
        self.model.optimizer = train(self.model)

    def test_trains_again(self):
        self.model.optimizer = train(self.model)


class SharedModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = make_model()

    @classmethod
    def tearDownClass(cls):
        del cls.model

    def test_predicts(self):
        self.assertEqual(self.model(torch.ones(8, 2048, device=DEVICE)).shape, (8, 1024))

    def test_trains(self):
        train(self.model)

    def test_trains_and_fails(self):
        train(self.model)
        self.assertIsNone(self.model.weight.grad)

    def test_trains_again(self):
        self.model.optimizer = train(self.model)


class LazyModelTest(unittest.TestCase):
    model = None

    @classmethod
    def get_model(cls):
        if cls.model is None:
            cls.model = make_model()
        return cls.model

    @classmethod
    def tearDownClass(cls):
        cls.model = None

    def test_is_the_first_to_ask_for_it(self):
        self.assertEqual(self.get_model()(torch.ones(8, 2048, device=DEVICE)).shape, (8, 1024))

    def test_trains_it(self):
        train(self.get_model())

    def test_asks_for_it_and_fails(self):
        self.assertIsNotNone(self.get_model())
        self.fail("whatever it is")


class LazyModelWithCleanupTest(unittest.TestCase):
    model = None

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(setattr, cls, "model", None)

    def test_is_the_first_to_ask_for_it(self):
        type(self).model = make_model()

    def test_uses_it(self):
        self.assertIsNot(self.model, 0)


class OwnModelTest(unittest.TestCase):
    def setUp(self):
        self.model = make_model()

    def test_trains(self):
        self.optimizer = train(self.model)

    def test_fails(self):
        outputs = self.model(torch.ones(2048, 2048, device=DEVICE))
        self.assertEqual(outputs.shape, (1, 1))

    @unittest.expectedFailure
    def test_is_expected_to_fail(self):
        outputs = self.model(torch.ones(2048, 2048, device=DEVICE))
        self.assertEqual(outputs.shape, (1, 1))

    def test_skips(self):
        outputs = self.model(torch.ones(2048, 2048, device=DEVICE))
        self.skipTest(f"not with {outputs.shape}")

    def test_has_subtests(self):
        for size in (1024, 2048):
            with self.subTest(size=size):
                self.assertEqual(self.model(torch.ones(size, 2048, device=DEVICE)).shape, (size, 1024))

    def test_adds_a_cleanup(self):
        self.addCleanup(self.model.zero_grad)
        train(self.model)


class OwnModelAsyncTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.model = make_model()

    async def test_trains(self):
        train(self.model)

    async def test_fails(self):
        outputs = self.model(torch.ones(2048, 2048, device=DEVICE))
        self.assertEqual(outputs.shape, (1, 1))


class TestSetupClass:
    @classmethod
    def setup_class(cls):
        cls.model = make_model()

    @classmethod
    def teardown_class(cls):
        del cls.model

    def test_trains(self):
        train(self.model)

    def test_keeps_its_optimizer(self):
        type(self).model.optimizer = train(self.model)


class TestLazyModel:
    @classmethod
    def teardown_class(cls):
        del cls.model

    @pytest.mark.parametrize("step", range(3))
    def test_asks_for_it(self, step):
        cls = type(self)
        if not hasattr(cls, "model"):
            cls.model = make_model()
        train(cls.model)


class TestInstances:
    def setup_method(self):
        self.batch = torch.ones(2048, 2048, device=DEVICE)

    def test_keeps_a_tensor_on_itself(self):
        self.output = self.batch * 2
        assert self.output.max() == 2

    @pytest.mark.parametrize("scale", [1, 2])
    def test_keeps_one_for_each_parameter(self, scale):
        self.output = self.batch * scale
        assert self.output.max() == scale

    def test_fails(self):
        self.output = self.batch * 2
        assert self.output.max() == 1


class TestAutouseFixture:
    @pytest.fixture(scope="class", autouse=True)
    def model_of_class(self, request):
        request.cls.model = make_model()
        yield
        del request.cls.model

    def test_trains(self):
        train(self.model)

    def test_keeps_an_optimizer(self):
        self.model.optimizer = train(self.model)

    def test_predicts(self):
        assert self.model(torch.ones(8, 2048, device=DEVICE)).shape == (8, 1024)


class Base:
    @pytest.fixture(scope="class", autouse=True)
    def prepare(self, request):
        cls = request.cls
        cls.model, cls.cache = make_model(), {}
        yield
        cls.model = cls.cache = None

    def test_trains(self):
        train(self.model)

    def test_fills_the_cache(self):
        self.cache["x"] = torch.ones(2048, 2048, device=DEVICE)


class TestDerived(Base):
    pass


class TestDerivedToo(Base):
    def test_replaces_the_cache(self):
        type(self).cache = {"y": torch.ones(2048, 2048, device=DEVICE)}
