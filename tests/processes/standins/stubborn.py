"""Ignores or catches the signals that it is given, and counts what it caught: `stubborn.py [ignore|catch] INT TERM`."""

import signal
import sys

signal.alarm(100)
for name in sys.argv[2:]:
    signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN if sys.argv[1] == "ignore" else lambda *_: None)
print("ready", flush=True)
while True:
    signal.pause()
