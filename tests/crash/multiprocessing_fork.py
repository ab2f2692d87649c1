# exits with 0
# stdout has ^\[0, 1, 4, 9, 16\] 7$
# stderr is empty
import multiprocessing

import golibx


def square(n: int) -> int:
    return golibx.run(lambda: golibx.go(lambda: n * n).result())


def main() -> None:
    ch: golibx.Chan[int] = golibx.Chan()
    golibx.go(lambda: (golibx.sleep(0.01), ch.send(7)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(square, range(5)), ch.recv())


if __name__ == "__main__":
    golibx.run(main)
