"""`run.py serve` that collects its garbage when it is told to (SIGUSR1), and says on standard output that it did."""

import ctypes
import gc
import signal
import sys

from wsserver.app import main


def collect(_number: int, _frame: object) -> None:
    gc.collect()
    # What the C library keeps for later is no leak either.
    ctypes.CDLL(None).malloc_trim(0)
    print("collected", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, collect)
    sys.exit(main())
