# exits with 0
# stdout has ^MemoryError no memory for the goroutine's stack$
# stdout has ^main goes on$
import resource

import golibx


def main() -> None:
    ch: golibx.Chan[int] = golibx.Chan()
    goroutines = [golibx.go(ch.recv_ok) for _ in range(64)]
    golibx.gosched()
    ch.close()
    errors = set()
    for g in goroutines:
        g.join()
        if g.exception is not None:
            errors.add(f"{type(g.exception).__name__} {g.exception}")
    print(*errors)
    print("main goes on")


resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
golibx.run(main, config={"stack": {"size": "512MiB"}})
