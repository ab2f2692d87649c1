# exits with 0
# stdout has ^after the run$
# stdout has ^finally$
# stderr is empty
import golibx


def hog() -> None:
    try:
        while True:
            pass
    finally:
        print("finally")


def main() -> None:
    golibx.go(hog)
    golibx.gosched()


golibx.run(main, config={"runtime": {"shutdown_timeout": "5s"}, "preempt": {"slice": "1ms"}})
print("after the run")
