# exits with 0
# stdout has ^child: this process was forked inside a golibx runtime, which does not survive a fork
# stdout has ^child runs anew: 5$
# stdout has ^parent goes on: 0 7$
# stderr is empty
import os
import sys

import golibx


def child() -> None:
    try:
        golibx.gosched()
    except RuntimeError as exc:
        print("child:", exc)
    try:
        golibx.go(print)
    except RuntimeError:
        pass
    assert golibx.current() is None
    print("child runs anew:", golibx.run(lambda: golibx.go(lambda: 5).result()))
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    ch: golibx.Chan[int] = golibx.Chan()
    golibx.go(ch.send, 7)
    pid = os.fork()
    if pid == 0:
        child()
    status = os.waitpid(pid, 0)[1]
    print("parent goes on:", status, ch.recv())


golibx.run(main)
