# Pure Python calls take no C stack: only the limit ends them.
# exits with 0
# stdout has ^100000$
# stderr is empty
import sys

import golibx

sys.setrecursionlimit(200_000)


def deep(n: int) -> int:
    return n if n == 0 else 1 + deep(n - 1)


print(golibx.run(lambda: golibx.go(deep, 100_000).result()))
