# A goroutine comes back from its blocking call while the interpreter ends.
# exits with 0
# stdout has ^ends$
import atexit
import os
import time

import golibx

r, w = os.pipe()


def blocks() -> None:
    os.read(r, 1)
    golibx.Chan[int]().recv()


def main() -> None:
    for _ in range(5):
        golibx.go(blocks)
    golibx.sleep(0.01)


golibx.run(main, config={"runtime": {"shutdown_timeout": "1ms"}})
atexit.register(time.sleep, 0.02)
os.write(w, b"xxxxx")
print("ends")
