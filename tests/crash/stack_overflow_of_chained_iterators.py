# A thread, whose stack is eight times as large, has room for as many.
# exits with -6
# stderr has ^(golibx: fatal: goroutine 2 overflowed its stack of 1024 KiB; .*)$
# stderr has stack\.size = "8MiB" in golib\.toml, or GOLIB_STACK_SIZE=8MiB$
# stderr has in first_of_many
import itertools
from collections.abc import Iterator

import golibx


def first_of_many() -> None:
    it: Iterator[int] = iter([])
    for _ in range(40_000):
        it = itertools.chain(it)
    next(it, None)


def main() -> None:
    golibx.go(first_of_many).result()


golibx.run(main, config={"stack": {"size": "8MiB"}})
golibx.run(main)
