"""Stands in for ros2cli: its daemon listens, belongs to init, and keeps its caller's session."""

import os
import signal
import socket


def main():
    if os.fork():
        os._exit(0)
    signal.alarm(100)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        print("ready", os.getpid(), server.getsockname()[1], flush=True)
        os.close(1)
        while True:
            signal.pause()
