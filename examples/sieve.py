"""The concurrent prime sieve: a goroutine for each prime, in a row.

golibx run examples/sieve.py [HOW_MANY]
"""

import sys

from golibx import Chan, go


def generate(numbers: Chan[int]) -> None:
    number = 2
    while True:
        numbers.send(number)
        number += 1


def sift(numbers: Chan[int], rest: Chan[int], prime: int) -> None:
    for number in numbers:
        if number % prime:
            rest.send(number)


def main(how_many: int) -> None:
    numbers: Chan[int] = Chan()
    go(generate, numbers)
    for _ in range(how_many):
        prime = numbers.recv()
        print(prime)
        rest: Chan[int] = Chan()
        go(sift, numbers, rest, prime)
        numbers = rest


main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
