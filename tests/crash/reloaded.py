# exits with 0
# stdout has ^still works: 5$
# stderr is empty
import importlib

import golibx

importlib.reload(golibx._core)
importlib.reload(golibx.errors)
importlib.reload(golibx)
print("still works:", golibx.run(lambda: golibx.go(lambda: 5).result()))
