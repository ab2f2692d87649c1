"""urllib3: one pool of connections for all threads."""

import sys

import beside
import urllib3

url = sys.argv[1]
pool = urllib3.PoolManager(num_pools=1, maxsize=100, block=True)


def task(number):
    first = pool.request("GET", f"{url}/together/100/{number}").data.decode()
    second = pool.request("POST", url, body=str(number).encode() * 100_000).data
    streamed = pool.request("GET", f"{url}/echo/{number}", preload_content=False)
    third = b"".join(streamed.stream(1)).decode()
    streamed.release_conn()
    return first, len(second), third


beside.run(task)
