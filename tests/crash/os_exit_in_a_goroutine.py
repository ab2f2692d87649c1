# exits with 5
# stderr is empty
import os

import golibx

golibx.run(lambda: golibx.go(os._exit, 5).join())
