"""requests: a session a thread, then one session for all."""

import sys

import beside
import requests
from requests.adapters import HTTPAdapter

url = sys.argv[1]
shared = requests.Session()
shared.trust_env = False
shared.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=100, pool_block=True))


def task(number):
    with requests.Session() as session:
        session.trust_env = False
        first = session.get(f"{url}/together/100/{number}").text
        second = session.post(url, data=str(number) * 100_000).text
    third = shared.get(f"{url}/echo/{number}").text
    missing = shared.get(f"{url}/missing").status_code
    return first, len(second), third, missing


beside.run(task)
