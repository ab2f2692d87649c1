# exits with 0
# stdout has ^OSError \[Errno 24\] cannot open the network poller: out of file descriptors$
# stdout has ^5$
import os
import resource

import golibx

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
golibx.run(lambda: None)
resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
try:
    golibx.run(lambda: None)
except OSError as exc:
    print(type(exc).__name__, exc)
for fd in taken:
    os.close(fd)
print(golibx.run(lambda: golibx.go(lambda: 5).result()))
