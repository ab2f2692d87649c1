"""tqdm: one bar for all threads, a bar a thread, and its executor's map."""

import io
import time

import beside
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

whole = tqdm(total=1000, file=io.StringIO())


def task(number):
    steps = 0
    for _ in tqdm(range(10), file=io.StringIO(), mininterval=0, position=number):
        time.sleep(0.01)
        whole.update()
        steps += 1
    return steps


beside.run(task)
print(whole.n)
whole.close()
print(thread_map(lambda n: n * n, range(100), max_workers=100, file=io.StringIO()))
