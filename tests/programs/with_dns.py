"""dnspython: a resolver that 100 threads share, over UDP and TCP."""

import sys

import beside
import dns.resolver

resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers = ["127.0.0.1"]
resolver.port = int(sys.argv[1])
resolver.lifetime = resolver.timeout = 60


def task(number):
    first = resolver.resolve(f"host{number}.example.", "A")[0].address
    second = resolver.resolve(f"text{number}.example.", "TXT", tcp=True)[0].strings[0].decode()
    try:
        resolver.resolve(f"missing{number}.example.", "A")
    except dns.resolver.NXDOMAIN as error:
        wrong = str(error)
    return first, second, wrong


beside.run(task)
