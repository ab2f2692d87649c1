# exits with -11
# stderr has ^Fatal Python error: Segmentation fault$
import ctypes
import faulthandler

import golibx

faulthandler.enable()
golibx.run(lambda: golibx.go(ctypes.string_at, 8).result())
