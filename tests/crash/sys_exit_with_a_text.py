# exits with 1
# stderr has \Agoodbye\Z
import sys

import golibx


def main() -> None:
    golibx.go(sys.exit, "goodbye")
    golibx.sleep(1000)


golibx.run(main)
