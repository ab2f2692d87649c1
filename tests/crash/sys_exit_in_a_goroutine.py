# exits with 3
# stdout has ^finally$
# stderr is empty
import sys

import golibx


def main() -> None:
    golibx.go(sys.exit, 3)
    try:
        golibx.sleep(1000)
    finally:
        print("finally")


golibx.run(main)
