# exits with -6
# stderr has ^(golibx: fatal: goroutine 1 overflowed its stack of 128 KiB; .*)$
# stderr has stack\.main_size = "1MiB" in golib\.toml, or GOLIB_STACK_MAIN_SIZE=1MiB$
import golibx

nested: tuple[object, ...] = ()
for _ in range(20_000):
    nested = (nested,)

golibx.run(lambda: hash(nested), config={"stack": {"main_size": "128KiB"}})
