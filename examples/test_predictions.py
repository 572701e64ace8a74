"""A cache that is bounded and ends with its fixture, and a handle on memory inside a test. Nothing here leaks."""

import pytest
import torch
from curves import CurveModel, PredictionCache, make_points


@pytest.fixture
def cache(device: torch.device) -> PredictionCache:
    return PredictionCache(CurveModel(width=256).to(device))


def test_the_same_points_are_predicted_once(cache: PredictionCache, device: torch.device) -> None:
    x, _ = make_points(1_000, device)
    assert cache.predict(x) is cache.predict(x)
    assert cache.hits == 1


@pytest.mark.parametrize("count", [10_000, 20_000, 40_000])
def test_the_cache_is_bounded(cache: PredictionCache, device: torch.device, count: int) -> None:
    for extra in range(4):
        cache.predict(make_points(count + extra, device)[0])
    assert len(cache) == cache.limit


def test_repeated_predictions_keep_nothing(gpu_clean, device: torch.device) -> None:
    """`gpu_clean.no_leak` judges a stretch of a test by itself."""
    model = CurveModel(width=256).to(device)
    x, _ = make_points(40_000, device)
    with gpu_clean.no_leak(threshold="1MiB"), torch.no_grad():
        for _ in range(5):
            model(x)
