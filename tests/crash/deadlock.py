# exits with 1
# stderr has ^golibx\.errors\.Deadlock: all goroutines are asleep - deadlock! \(2 goroutines\)$
# stderr has ^goroutine 1 \[chan receive\]
# stderr has ^goroutine 2 \[chan send\] other:$
# stderr has ^    other at .*deadlock\.py:\d+$
import golibx


def other() -> None:
    golibx.Chan[int]().send(1)


def main() -> None:
    golibx.go(other)
    golibx.Chan[int]().recv()


golibx.run(main)
