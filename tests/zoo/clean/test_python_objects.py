"""A data set of plain objects: a large heap that is no tensor."""

import pytest
import torch


@pytest.fixture(scope="module")
def documents():
    return [{"id": number, "text": f"document {number}", "tags": [str(number)]} for number in range(60_000)]


def test_counts_the_documents(documents):
    assert len(documents) in (30_000, 60_000)  # in any order


def test_changes_the_documents(documents):
    for document in documents:
        document["length"] = f"{len(document['text'])} letters"


def test_makes_tensors_of_documents(documents, device):
    lengths = torch.tensor([[len(document["text"]) for document in documents]] * 32, device=device)
    assert lengths.max() > 0


def test_drops_half_of_the_documents(documents):
    del documents[::2]


def test_parses_its_own(device):
    assert len([{"id": number} for number in range(60_000)]) == 60_000
