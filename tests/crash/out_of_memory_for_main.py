# There is no memory for the main goroutine's stack: run() raises, and can be called again.
# exits with 0
# stdout has ^MemoryError no memory for the goroutine's stack$
# stdout has ^and then it runs$
import resource

import golibx

resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    golibx.run(print, "never", config={"stack": {"main_size": "4GiB"}})
except MemoryError as exc:
    print("MemoryError", exc)
golibx.run(print, "and then it runs")
