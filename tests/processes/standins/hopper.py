"""Hops from number to number: it forks, the parent ends, and so on; for 2 seconds or 2,000 times at most."""

import os
import signal
import sys
import time

deadline = time.monotonic() + 2
if "ignore" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for hop in range(2000):
    if os.fork():
        os._exit(0)
    if "setsid" in sys.argv:
        os.setsid()
    if hop == 5:
        with open(sys.argv[1], "w") as file:
            file.write("hopping")
    if time.monotonic() > deadline:
        break
    time.sleep(0.001)
with open(sys.argv[1], "w") as file:
    file.write("reached the end")
