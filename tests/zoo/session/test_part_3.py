"""A part of a run whose modules each keep less than the threshold."""

import torch

FLAGGED_IN_THE_END = {"the whole run leaked "}

KEPT = []


def test_keeps_a_little(device):
    KEPT.append(torch.full((350 * 512,), 1.0, device=device))
