# exits with 2
# stdout has ^finally$
# stderr has ^LookupError: nobody collects it$
import golibx


def fails() -> None:
    raise LookupError("nobody collects it")


def main() -> None:
    golibx.go(fails)
    try:
        golibx.Chan[int]().recv()
    finally:
        print("finally")


golibx.run(main, config={"runtime": {"on_panic": "exit"}})
