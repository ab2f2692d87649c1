# exits with 0
# stdout has ^ends$
import sys

import golibx

sys.stderr = None  # as under pythonw


def main() -> None:
    golibx.go(lambda: 1 / 0)
    golibx.sleep(0.001)
    print("ends")


golibx.run(main)
