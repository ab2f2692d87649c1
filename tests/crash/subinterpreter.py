# exits with 0
# stdout has ^refused$
# stdout has ^still works: 5$
import golibx

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters  # type: ignore[import-not-found, no-redef]

code = """
try:
    import golibx
except ImportError:
    print("refused", flush=True)
"""
number = interpreters.create()
interpreters.run_string(number, code)
interpreters.destroy(number)
print("still works:", golibx.run(lambda: golibx.go(lambda: 5).result()))
