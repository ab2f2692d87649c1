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


try:
    pid = golibx.run(main)
except RuntimeError:
    sys.exit(0)  # the child: what was forked cannot end properly, but says so
if pid == 0:
    sys.exit(0)
print("child status", os.waitpid(pid, 0)[1])
