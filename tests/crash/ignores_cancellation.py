# exits with 0
# stdout has ^after the run$
# stderr has ^golibx: 1 goroutine did not end within 50ms after cancellation$
import golibx


def stubborn() -> None:
    while True:
        try:
            golibx.sleep(1000)
        except golibx.Cancelled:
            pass


def main() -> None:
    golibx.go(stubborn)
    golibx.gosched()


golibx.run(main, config={"runtime": {"shutdown_timeout": "50ms"}})
print("after the run")
