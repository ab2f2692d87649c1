# Goroutines refused while the main one blocks leave no thread that hides a deadlock.
# exits with 0
# stdout has ^MemoryError$
# stdout has ^all goroutines are asleep - deadlock! \(65 goroutines\)$
import _thread
import resource

import golibx
from golibx import Chan, Deadlock, go, gosched


def main() -> None:
    gate: Chan[int] = Chan()
    lock = _thread.allocate_lock()
    lock.acquire()

    def asks_for_too_much() -> None:
        refused = go(gate.recv_ok)
        refused.join()
        print(type(refused.exception).__name__)
        lock.release()
        gate.recv_ok()

    for _ in range(63):
        go(gate.recv_ok)
    gosched()
    go(asks_for_too_much)
    lock.acquire()  # the others go on, on another thread
    try:
        gate.recv_ok()
    except Deadlock as exc:
        print(str(exc).splitlines()[0])
    gate.close()


# The first 64 stacks are made at once, and there is no memory for the next.
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
golibx.run(main, config={"stack": {"size": "64MiB"}})
