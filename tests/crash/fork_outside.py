# exits with 0
# stdout has ^child 5$
# stdout has ^parent 0 6$
# stderr is empty
import os
import sys

import golibx

golibx.run(lambda: golibx.go(print).join())
pid = os.fork()
if pid == 0:
    print("child", golibx.run(lambda: golibx.go(lambda: 5).result()))
    sys.stdout.flush()
    os._exit(0)
status = os.waitpid(pid, 0)[1]
print("parent", status, golibx.run(lambda: golibx.go(lambda: 6).result()))
