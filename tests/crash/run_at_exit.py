# exits with 0
# stdout has ^5$
# stderr is empty
import atexit

import golibx

atexit.register(lambda: print(golibx.run(lambda: golibx.go(lambda: 5).result())))
