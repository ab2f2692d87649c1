# To need more threads than allowed is fatal, as in Go, or the goroutines take turns; never a hang.
# exits with 0
# stdout has ^done$
import time

import golibx


def main() -> None:
    goroutines = [golibx.go(time.sleep, 0.01) for _ in range(30)]
    for g in goroutines:
        g.join()
    print("done")


golibx.run(main, config={"runtime": {"max_threads": 4}})
