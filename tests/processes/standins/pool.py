"""A script with a multiprocessing pool: on SIGINT it ends its workers, and says so."""

import multiprocessing
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.alarm(100)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(abs, range(8))
        try:
            print("ready", *(worker.pid for worker in pool._pool), flush=True)
            signal.pause()
        except KeyboardInterrupt:
            pool.terminate()
            pool.join()
            Path(sys.argv[2]).write_text("in good order")
