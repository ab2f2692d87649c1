# Their frames, results and handles are still there while the interpreter ends.
# exits with 0
# stdout has ^ends$
import os
import threading

import golibx

handles = []


class Noisy:
    def __del__(self) -> None:
        golibx.current()
        golibx.stats()
        try:
            golibx.go(print, "not any more")
        except RuntimeError:
            pass


def main() -> None:
    local = threading.local()
    local.noisy = Noisy()

    def blocks(noisy: Noisy) -> None:
        os.read(os.pipe()[0], 1)

    for _ in range(5):
        handles.append(golibx.go(blocks, Noisy()))
    golibx.sleep(0.01)


golibx.run(main, config={"runtime": {"shutdown_timeout": "1ms"}})
print("ends")
