import os
import subprocess
import sys
from pathlib import Path

USER = """
import os, sys, time
with open(os.environ["GPUCLEAN_SIMGPU_USE"] + f"/use.{os.getpid()}", "a") as file:
    print(*sys.argv[1:], file=file)
print("up", flush=True)
time.sleep(20)
"""


def use_card(card, size_bytes):
    """Start a process that uses a card, as the stand-in for the driver tells it."""
    command = [sys.executable, "-S", "-c", USER, str(card), str(size_bytes)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    with Path("pids").open("a") as file:
        file.write(f"{process.pid}\n")
    return process


def pytest_unconfigure():
    for file in Path(os.environ["GPUCLEAN_SIMGPU_USE"]).glob("use.*"):
        file.unlink()
