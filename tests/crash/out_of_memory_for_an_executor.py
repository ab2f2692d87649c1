# A call for which an executor cannot have a goroutine fails; later ones are made again.
# exits with 0
# stdout has ^MemoryError no memory for the goroutine's stack$
# stdout has ^7$
import resource

import golibx
from golibx import Chan, GoroutinePoolExecutor, go, gosched


def main() -> None:
    gate: Chan[int] = Chan()
    fill = [go(gate.recv_ok) for _ in range(64)]
    gosched()
    with GoroutinePoolExecutor(max_workers=2) as executor:
        try:
            executor.submit(int, "7").result(60)
        except MemoryError as exc:
            print("MemoryError", exc)
        gate.close()
        for each in fill:
            each.join()
        print(executor.submit(int, "7").result(60))


# The first 64 stacks are made at once, and there is no memory for the next.
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
golibx.run(main, config={"stack": {"size": "64MiB"}})
