"""An experiment script and a training app as they stand in the field. Of pytest-gpuclean they have their import alone.

    python examples/experiment_loop.py [--runs 100] [--bag 'ros2 bag play FOLDER'] [--board 'tensorboard --logdir runs']

Without `--bag` a stand-in is played, `play_bag.py`.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from pytest_gpuclean import cleanup_between_runs, cleanup_training_resources, get_memory_usage, quick_cleanup

STAND_IN = [sys.executable, str(Path(__file__).with_name("play_bag.py"))]


def measure(bag: list[str], seed: int) -> float:
    """Measure a model beside a recording that is played. Nobody stops that when the measuring is over."""
    subprocess.Popen(bag, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    return model(torch.randn(512, 64)).square().mean().item()


def run_experiments(total_runs: int, bag: list[str]) -> list[float]:
    results = []
    for i in range(total_runs):
        print(f"Run {i + 1}/{total_runs}")
        results.append(measure(bag, seed=i))
        # Nothing is slept here: it goes on as soon as everything is back.
        cleanup_between_runs(run_index=i, total_runs=total_runs, comprehensive=True, wait_time=None, verbose=True)
    quick_cleanup(wait_time=5, verbose=True)
    get_memory_usage()
    return results


class TrainingApp:
    """Trains when it is asked to, with a TensorBoard beside it."""

    def __init__(self, board: list[str]) -> None:
        self.board = board

    def train(self, steps: int) -> float:
        try:
            return self._train(steps)
        finally:
            cleanup_training_resources()

    def _train(self, steps: int) -> float:
        if self.board:
            subprocess.Popen(self.board, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        model = nn.Linear(64, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        x = torch.randn(512, 64)
        y = x.sum(1, keepdim=True)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--bag", type=shlex.split, default=STAND_IN, help="what plays a recording")
    parser.add_argument("--board", type=shlex.split, default=[], help="what shows the training")
    options = parser.parse_args()
    print("mean of the results:", sum(run_experiments(options.runs, options.bag)) / options.runs)
    print("loss:", TrainingApp(options.board).train(steps=20))


if __name__ == "__main__":
    main()
