# What a goroutine that never began was given is freed, and its end is that of any other.
# exits with 0
# stdout has ^35 were refused, and kept 0 arguments$
# stdout has ^their destructors could wait: 35$
# stdout has ^on no goroutine: 0$
# stderr has ^goroutine \d+ \[Chan.recv_ok\] started at .* panicked:$
# stderr has ^MemoryError: no memory for the goroutine's stack$
import resource
import weakref

import golibx
from golibx import Chan, go, gosched, sleep

waited: list[int] = []


class Argument:
    """Its destructor waits, as that of something with a connection to close may."""

    def __del__(self) -> None:
        me = golibx.current()
        sleep(0.0001)
        waited.append(0 if me is None else me.id)


def takes(gate: Chan[int], _few: Argument, *_more: Argument, keyword: Argument) -> None:
    gate.recv_ok()


def main() -> None:
    gate: Chan[int] = Chan()
    references = []
    goroutines = []
    for _ in range(99):  # and the main goroutine has a stack of its own
        arguments = [Argument() for _ in range(6)]
        references.append([weakref.ref(each) for each in arguments])
        goroutines.append(go(takes, gate, *arguments[:5], keyword=arguments[5]))
    del arguments
    gosched()
    refused = [g.id for g in goroutines if g.join(0.01)]
    while len(waited) < 6 * len(refused):
        sleep(0.001)
    kept = sum(ref() is not None for ids in references for ref in ids) - 6 * (99 - len(refused))
    print(len(refused), "were refused, and kept", kept, "arguments")
    print("their destructors could wait:", len(waited) // 6)
    print("on no goroutine:", waited.count(0))
    gate.close()
    for g in goroutines:
        g.join()
        assert (g.id in refused) == isinstance(g.exception, MemoryError)

    # One with a Goroutine that no code has is reported, as others are.
    gate = Chan()
    for _ in range(64):
        go(gate.recv_ok)
    gosched()
    ref = weakref.ref(go(gate.recv_ok))
    while ref() is not None:
        sleep(0.001)
    gate.close()


# The first 64 stacks are made at once, and there is no memory for the next.
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
golibx.run(main, config={"stack": {"size": "64MiB"}})
