"""What looks like a secret in a command line is not told; what only sounds like one is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.processes.command import LONGEST_COMMAND, command_line
from pytest_gpuclean.processes.families.interface import Command
from pytest_gpuclean.processes.secrets import without_secrets


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("serve --api-key 1234 --port 80", "serve --api-key *** --port 80"),
        ("serve --api-key=1234", "serve --api-key=***"),
        ("serve --api_key=a=b", "serve --api_key=***"),
        ("jupyter --NotebookApp.token=abc --ip 0", "jupyter --NotebookApp.token=*** --ip 0"),
        ("serve --password x --token y", "serve --password *** --token ***"),
        ("serve --token --verbose", "serve --token --verbose"),
        ("serve --password", "serve --password"),
        ("env WANDB_API_KEY=1 HF_TOKEN=2 python a.py", "env WANDB_API_KEY=*** HF_TOKEN=*** python a.py"),
        ("env AWS_SECRET_ACCESS_KEY=1 x", "env AWS_SECRET_ACCESS_KEY=*** x"),
        ("x postgres://me:pa55@host/db", "x postgres://me:***@host/db"),
        ("x http://host:80/a@b", "x http://host:80/a@b"),
        ("x hf_abcdefghijklmnopqrst", "x hf_***"),
        ("x --auth Bearer=sk-abcdefghijklmnop", "x --auth Bearer=sk-***"),
        ("train --tokenizer bert --max-tokens 5", "train --tokenizer bert --max-tokens 5"),
        ("train --key lr --keyboard=1 --author me", "train --key lr --keyboard=1 --author me"),
        ("python -c pass", "python -c pass"),
    ],
)
def test_secrets_are_hidden_by_their_names_and_by_their_shapes(argv, told):
    assert " ".join(without_secrets(argv.split())) == told
    assert command_line(Command(argv=tuple(argv.split()))) == told


@given(st.lists(st.text(max_size=30)))
def test_no_word_is_lost(argv):
    assert len(without_secrets(argv)) == len(argv)


def test_a_huge_command_line_is_cut_before_it_is_searched():
    huge = Command(argv=("python", "a" * 10**7, *["b"] * 10**5))
    assert len(command_line(huge)) == LONGEST_COMMAND
