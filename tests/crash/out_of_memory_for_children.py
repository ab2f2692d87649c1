# Goroutines that never began leave their WaitGroup, and their place in a scope, as others do.
# exits with 0
# stdout has ^True 0$
# stdout has ^there is a place$
# stdout has ^\{"no memory for the goroutine's stack"\}$
import resource

import golibx
from golibx import Chan, WaitGroup, go, gosched, scope


def main() -> None:
    gate: Chan[int] = Chan()
    group = WaitGroup()
    group.add()
    waiting = go(group.wait)
    gosched()  # so that it has a stack, before there is no memory for more
    for _ in range(100):
        group.go(gate.recv_ok)
    gosched()
    gate.close()
    group.done()
    print(group.wait(10), group.count)
    waiting.result()

    gate = Chan()
    try:
        with scope(limit=100) as s:
            for _ in range(100):
                s.go(gate.recv_ok)
            gosched()
            s.go(int)  # those that began keep theirs
            print("there is a place")
            gate.close()
    except* MemoryError as group_:
        print({str(error) for error in group_.exceptions})


# The first 64 stacks are made at once, and there is no memory for the next.
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
golibx.run(main, config={"stack": {"size": "64MiB"}})
