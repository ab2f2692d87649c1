# Not even the goroutine that ends those that were refused gets a stack: they end all the same.
# exits with 0
# stdout has ^MemoryError no memory for the goroutine's stack$
# stdout has ^10 arguments were freed, on goroutine None$
import resource

import golibx
from golibx import Chan, go, gosched

freed = []


class Argument:
    def __del__(self) -> None:
        me = golibx.current()
        freed.append(None if me is None else me.id)


def main() -> None:
    gate: Chan[int] = Chan()
    fill = [go(gate.recv_ok) for _ in range(64)]
    gosched()
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    # Less than the mebibyte of a stack.
    resource.setrlimit(resource.RLIMIT_AS, (size + (512 << 10), before[1]))
    goroutines = [go(lambda _: None, Argument()) for _ in range(10)]
    gosched()
    resource.setrlimit(resource.RLIMIT_AS, before)
    print(*{f"{type(g.exception).__name__} {g.exception}" for g in goroutines})
    print(len(freed), "arguments were freed, on goroutine", *set(freed))
    gate.close()
    for each in fill:
        each.join()


golibx.run(main)
