# exits with 4
# stdout has ^cancelled$
# stderr is empty
import sys

import golibx


def other() -> None:
    try:
        golibx.sleep(1000)
    except golibx.Cancelled:
        print("cancelled")
        raise


def main() -> None:
    golibx.go(other)
    golibx.gosched()
    sys.exit(4)


golibx.run(main)
