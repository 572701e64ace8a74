"""A batch that came from a worker is in shared memory, and kept all the same."""

import torch
from torch.utils.data import DataLoader, Dataset

FLAGGED = {"test_keeps_a_batch_from_a_worker": "leaked 8.0 MiB on cpu"}

BATCHES = []


class Images(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((1024, 1024), float(index))


def test_keeps_a_batch_from_a_worker():
    for index, batch in enumerate(DataLoader(Images(), batch_size=2, num_workers=1)):
        if index == 0:
            BATCHES.append(batch)


def test_uses_batches_from_a_worker():
    assert sum(batch.mean().item() for batch in DataLoader(Images(), batch_size=2, num_workers=1)) == 3
