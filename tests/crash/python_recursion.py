# exits with 0
# stdout has ^RecursionError RecursionError done$
# stderr is empty
import golibx


def endless() -> None:
    endless()


def main() -> str:
    found = []
    for f in (endless, lambda: golibx.go(endless).result()):
        try:
            f()
        except RecursionError as exc:
            found.append(type(exc).__name__)
    return " ".join([*found, "done"])


print(golibx.run(main))
