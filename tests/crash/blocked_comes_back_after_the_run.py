# exits with 0
# stdout has ^second run: 5$
# stderr has did not end within
import os
import time

import golibx

r, w = os.pipe()
log = []


def blocks() -> None:
    log.append(os.read(r, 1))
    golibx.gosched()
    log.append(b"must not be here")


def main() -> None:
    golibx.go(blocks)
    while golibx.stats()["threads_blocked"] == 0:
        golibx.gosched()


golibx.run(main, config={"runtime": {"shutdown_timeout": "1ms"}})
os.write(w, b"x")


def second() -> int:
    golibx.sleep(0.01)
    time.sleep(0.01)
    return golibx.go(lambda: 5).result()


print("second run:", golibx.run(second))
assert log in ([], [b"x"]), log  # whether it goes on or not, it parks no more
