# exits with -2
# stderr has ^KeyboardInterrupt$
import golibx


def main() -> None:
    def interrupts() -> None:
        raise KeyboardInterrupt

    golibx.go(interrupts)
    golibx.sleep(1000)


golibx.run(main)
