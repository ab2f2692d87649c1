# exits with 0
# stdout has ^main goes on$
# stderr has ^goroutine 2 \[fails\] started at .*goroutine_raises\.py:\d+ panicked:$
# stderr has ^LookupError: nobody collects it$
import golibx


def fails() -> None:
    raise LookupError("nobody collects it")


def main() -> None:
    golibx.go(fails)
    golibx.sleep(0.01)
    print("main goes on")


golibx.run(main)
