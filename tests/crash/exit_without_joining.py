# exits with 0
# stdout has ^done$
# stderr is empty
import golibx

handles = []


def main() -> None:
    ch: golibx.Chan[int] = golibx.Chan()
    for _ in range(1000):
        handles.append(golibx.go(ch.recv))
    golibx.gosched()


golibx.run(main)
print("done")
