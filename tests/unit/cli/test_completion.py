"""What shtab makes of the command's parser, asked in a real shell."""

import shutil
import subprocess
import sys

import pytest

from pytest_gpuclean.cli import COMMANDS

BASH = shutil.which("bash")
ASK = """
source "$1"
function=$(complete -p gpuclean) && function=${function##*-F } && function=${function% gpuclean}
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2)) COMPREPLY=()
"$function"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    pytest.importorskip("shtab")
    if BASH is None:
        pytest.skip("there is no bash")
    # As the reference has it.
    asked = [sys.executable, "-m", "shtab", "--shell=bash", "pytest_gpuclean.cli.parser"]
    script = tmp_path_factory.mktemp("shell") / "gpuclean"
    script.write_text(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)

    def ask(*words):
        """Complete the last of some words; `gpuclean` goes before them."""
        asked = [BASH, "-c", ASK, "-", str(script), "gpuclean", *words]
        return set(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split())

    return ask


def test_a_shell_completes_commands_levels_and_options(complete):
    assert complete("") == {command.name for command in COMMANDS}
    assert complete("cl") == {"clean"}
    assert complete("clean", "") >= {"quick", "comprehensive"}
    assert complete("clean", "--h") == {"--host-wide", "--help"}
    assert complete("report", "m") == {"merge"}
