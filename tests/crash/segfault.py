# A fault that is no overflow is as it would be without golibx.
# exits with -11
# stderr is empty
import ctypes

import golibx

golibx.run(lambda: golibx.go(ctypes.string_at, 8).result())
