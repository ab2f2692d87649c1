"""Dask: its scheduler of threads, called in 100 threads, and once with 100 of its own."""

import time

import beside
import dask
import dask.bag


@dask.delayed
def slow(number):
    time.sleep(0.05)
    return number


def task(number):
    return dask.delayed(sum)([slow(n) for n in range(number, number + 4)]).compute(num_workers=4)


with dask.config.set(scheduler="threads"):
    beside.run(task)
    print(sum(dask.compute(*[slow(n) for n in range(100)], num_workers=100)))
    bag = dask.bag.from_sequence(range(1000), npartitions=100)
    print(bag.filter(lambda n: n % 2).map(lambda n: n * n).sum().compute(num_workers=100))
