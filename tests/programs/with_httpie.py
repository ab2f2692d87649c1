"""HTTPie's command, called in 100 threads: one at a time, since it keeps what it parses."""

import io
import sys
import threading

import beside
from httpie.context import Environment
from httpie.core import main

url = sys.argv[1]
lock = threading.Lock()


def task(number):
    with lock, io.TextIOWrapper(io.BytesIO()) as out:
        env = Environment(stdin=None, stdout=out, stdout_isatty=False, stderr=sys.stderr)
        status = main(["http", "--ignore-stdin", "--body", f"{url}/echo/{number}"], env)
        return int(status), out.buffer.getvalue().decode().strip()


beside.run(task, held=False)
