# A child for which there is no memory is the scope's first error: nobody has to join it for that.
# exits with 0
# stdout has ^a child was cancelled$
# stdout has ^the block was cancelled$
# stdout has ^1 error in a scope: \["no memory for the goroutine's stack"\]$
# stdout has ^\['goroutine 66 \[Chan.recv_ok\] started at .*:33'\]$
import resource

import golibx
from golibx import Cancelled, Chan, go, gosched, scope

log: list[str] = []


def child(never: Chan[int]) -> None:
    try:
        never.recv()
    except Cancelled:
        log.append("a child was cancelled")
        raise


def main() -> None:
    never: Chan[int] = Chan()
    gate: Chan[int] = Chan()
    for _ in range(63):
        go(gate.recv_ok)
    gosched()
    try:
        with scope() as s:
            s.go(child, never)
            gosched()
            s.go(gate.recv_ok)
            try:
                never.recv()
            except Cancelled:
                log.append("the block was cancelled")
                raise
    except* MemoryError as group:
        print(group.message + ":", [str(error) for error in group.exceptions])
        print(group.exceptions[0].__notes__)
    print(*sorted(log), sep="\n")
    gate.close()


# The first 64 stacks are made at once, and there is no memory for the next.
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
golibx.run(main, config={"stack": {"size": "64MiB"}})
