# exits with 0
# stdout has ^ImportError: golibx\._core can be loaded once a process
# stdout has ^still works: 5$
# stderr is empty
import sys

import golibx

run, go = golibx.run, golibx.go
del sys.modules["golibx._core"]
try:
    import golibx._core
except ImportError as exc:
    print("ImportError:", exc)
print("still works:", run(lambda: go(lambda: 5).result()))
