# exits with 3
# stdout has ^finally$
# stderr is empty
import sys

import golibx


def main() -> None:
    handle = golibx.go(sys.exit, 3)
    try:
        golibx.sleep(1000)
    finally:
        print("finally")
        del handle


golibx.run(main)
