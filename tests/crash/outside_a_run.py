# exits with 1
# stderr has ^RuntimeError: no golibx runtime is running: start the program with `golibx run`
import golibx

golibx.go(print, "never")
