# Recursion in C that the interpreter does not count: no RecursionError can come of it.
# exits with -6
# stderr has ^(golibx: fatal: goroutine 2 overflowed its stack of 64 KiB; .*)$
# stderr has larger one: stack\.size = "512KiB" in golib\.toml, or GOLIB_STACK_SIZE=512KiB$
# stderr has in hash_deep
import golibx

nested: tuple[object, ...] = ()
for _ in range(20_000):
    nested = (nested,)


def hash_deep() -> int:
    return hash(nested)


golibx.run(lambda: golibx.go(hash_deep).result(), config={"stack": {"size": "64KiB"}})
