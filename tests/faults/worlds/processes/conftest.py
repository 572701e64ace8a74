import subprocess

import pytest


def start(*command):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if command[-1] != "1":  # it is to go on, and ends by itself
        with open("pids", "a") as file:
            file.write(f"{process.pid}\n")
    return process


class Sleeper:
    name = "sleeper"
    left_alone = ""
    spares_children = False


@pytest.fixture(scope="module")
def server():
    process = start("sleep", "21")
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def forgetful():
    return start("sleep", "22")
