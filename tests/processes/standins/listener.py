"""Listens on a port of the loopback: `listener.py PORT [fork|reuse]`; says which, and as which processes."""

import os
import signal
import socket
import sys

signal.alarm(100)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if "reuse" in sys.argv:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
others = []
if "fork" in sys.argv:
    others.append(os.fork())
    if others[-1] == 0:
        signal.alarm(100)
        while True:
            signal.pause()
print("ready", server.getsockname()[1], *others, flush=True)
while True:
    signal.pause()
