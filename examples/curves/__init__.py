"""A tiny model package to be tested: it learns a curve from noisy points."""

from curves.model import CurveModel, make_points
from curves.predictions import PredictionCache
from curves.training import History, evaluate, train

__all__ = ["CurveModel", "History", "PredictionCache", "evaluate", "make_points", "train"]
