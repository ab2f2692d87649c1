# exits with 1
# stderr has ^Traceback \(most recent call last\):$
# stderr has ^ZeroDivisionError: division by zero$
# stderr has in main$
import golibx


def main() -> float:
    return 1 / 0


golibx.run(main)
