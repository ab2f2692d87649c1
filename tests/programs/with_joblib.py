"""joblib: its backends of threads and of processes, in threads."""

import time

import beside
import joblib


def square(number):
    time.sleep(0.01)
    return number * number


def task(number):
    calls = [joblib.delayed(square)(n) for n in range(number, number + 4)]
    return joblib.Parallel(n_jobs=2, backend="threading")(calls)


if __name__ == "__main__":
    beside.run(task)
    calls = [joblib.delayed(square)(n) for n in range(100)]
    print(joblib.Parallel(n_jobs=100, backend="threading")(calls))
    print(joblib.Parallel(n_jobs=2)(calls))
    print(list(joblib.Parallel(n_jobs=4, return_as="generator", prefer="threads")(calls)))
