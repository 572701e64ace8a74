"""Tests of unittest.TestCase are judged like any other."""

import os
import unittest

import pytest
import torch

FLAGGED = {
    "TrainerTest::test_fills_a_cache": "leaked 16.0 MiB on ",
    "TrainerTest::test_fills_a_cache_and_fails": "leaked 16.0 MiB on ",
    "AsyncTrainerTest::test_fills_a_cache": "leaked 16.0 MiB on ",
    "LazyTest::test_asks_for_it": "leaked 16.0 MiB on ",
    "LazyTearingDownTest::test_asks_for_it": (
        "fixture '_unittest_setUpClass_fixture_LazyTearingDownTest' (class scope) leaked 16.0 MiB on "
    ),
}
HELD = {
    "AsyncTrainerTest::test_fills_a_cache": "test_unittest_cases.CACHE[N]",
    "LazyTest::test_asks_for_it": "test_unittest_cases.LazyTest.model",
    "LazyTearingDownTest::test_asks_for_it": "test_unittest_cases.LazyTearingDownTest.model",
    "TrainerTest::test_fills_a_cache": "test_unittest_cases.CACHE[N]",
    "TrainerTest::test_fills_a_cache_and_fails": "test_unittest_cases.CACHE[N]",
}
FLAGGED_SOMEWHERE = {"(class scope) leaked 8.0 MiB on "}

DEVICE = "cpu" if os.environ.get("GPUCLEAN_ZOO_DEVICE", "cpu") == "cpu" else "simgpu:0"
CACHE = []


@pytest.fixture(scope="class")
def device_of_class(request, device):
    request.cls.device = device


@pytest.mark.usefixtures("device_of_class")
class TrainerTest(unittest.TestCase):
    def setUp(self):
        self.batch = torch.ones(2048, 2048, device=self.device)

    def test_uses_a_batch(self):
        self.assertGreater(self.batch.sum().item(), 0)

    def test_fills_a_cache(self):
        CACHE.append(self.batch)

    def test_fills_a_cache_and_fails(self):
        CACHE.append(self.batch)
        self.assertEqual(len(CACHE), 0)

    def test_uses_another_batch(self):
        self.assertEqual(self.batch.max().item(), 1)


@pytest.mark.usefixtures("device_of_class")
class AsyncTrainerTest(unittest.IsolatedAsyncioTestCase):
    async def test_fills_a_cache(self):
        CACHE.append(torch.ones(2048, 2048, device=self.device))

    async def test_fills_nothing(self):
        self.assertEqual(torch.ones(2048, 2048, device=self.device).max().item(), 1)


class SharedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        CACHE.append(torch.ones(2048, 1024, device=DEVICE))

    def test_something(self):
        self.assertTrue(CACHE)

    def test_something_else(self):
        self.assertTrue(CACHE)


class LazyTest(unittest.TestCase):
    """Nobody ends what its test sets on it."""

    def test_asks_for_it(self):
        type(self).model = torch.ones(2048, 2048, device=DEVICE)


class LazyTearingDownTest(unittest.TestCase):
    """What it tears down is something else."""

    @classmethod
    def tearDownClass(cls):
        cls.settings = {}

    def test_asks_for_it(self):
        type(self).model = torch.ones(2048, 2048, device=DEVICE)
