# The child lets the forked function return instead of leaving by os._exit().
# exits with 0
# stdout has ^child status 0$
import faulthandler
import os
import sys

import golibx


def main() -> int:
    golibx.go(golibx.sleep, 1000)
    golibx.gosched()
    faulthandler.cancel_dump_traceback_later()  # its thread does not survive a fork
    return os.fork()


pid = golibx.run(main)  # returns in the child, too
if pid == 0:
    sys.exit(0)
print("child status", os.waitpid(pid, 0)[1])
