# exits with 2
# stderr has ^LookupError: while main computes$
import golibx


def fails() -> None:
    raise LookupError("while main computes")


def main() -> None:
    golibx.go(fails)
    while True:
        pass


golibx.run(main, config={"runtime": {"on_panic": "exit"}, "preempt": {"slice": "1ms"}})
