"""Ten goroutines wait and compute at the same time: golibx run examples/hello.py"""

from golibx import Chan, go, sleep


def square(number: int, results: Chan[int]) -> None:
    sleep(0.1)
    results.send(number * number)


results: Chan[int] = Chan()
for number in range(10):
    go(square, number, results)
print(sum(results.recv() for _ in range(10)))
