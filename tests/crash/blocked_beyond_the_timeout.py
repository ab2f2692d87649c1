# exits with 0
# stdout has ^after the run$
# stderr has ^golibx: 2 goroutines did not end within 50ms after cancellation$
import os

import golibx


def main() -> None:
    for _ in range(2):
        golibx.go(os.read, os.pipe()[0], 1)
    golibx.sleep(0.02)


golibx.run(main, config={"runtime": {"shutdown_timeout": "50ms"}})
print("after the run")
print(golibx.run(lambda: golibx.go(lambda: 5).result()))
