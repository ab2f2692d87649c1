"""httpx: one client for all threads, then a client a thread."""

import sys

import beside
import httpx

url = sys.argv[1]
limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
shared = httpx.Client(trust_env=False, limits=limits, timeout=60)


def task(number):
    first = shared.get(f"{url}/together/100/{number}").text
    second = shared.post(url, content=str(number) * 100_000).text
    with httpx.Client(trust_env=False, timeout=60) as client:
        third = client.get(f"{url}/echo/{number}").text
    return first, len(second), third


beside.run(task)
