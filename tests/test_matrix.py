"""Packages with C code of their own in a hundred goroutines that are preempted every 100 us.

What each computes must be what a single thread computes. Callbacks from C code give way too.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import json
import subprocess
import sys
import sysconfig
from operator import mul
from typing import TYPE_CHECKING, Any

import pytest

from golibx import WaitGroup, gosched, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOROUTINES = 100


def with_numpy(n: int) -> Any:
    np = importlib.import_module("numpy")
    rng = np.random.default_rng(n)
    a = rng.random((20, 20))
    f = np.vectorize(lambda x: (gosched_in(n), x * 2)[1])
    return [
        float(np.linalg.det(a)),
        float(f(a).sum()),
        np.apply_along_axis(lambda r: r.max(), 0, a).tolist(),
    ]


def with_scipy(n: int) -> Any:
    integrate = importlib.import_module("scipy.integrate")
    optimize = importlib.import_module("scipy.optimize")

    def f(x: float) -> float:
        gosched_in(n)
        return (n + 1) * x + 1

    return [integrate.quad(f, 0, 1)[0], float(optimize.brentq(lambda x: f(x) - 2, -5, 5))]


def with_lxml(n: int) -> Any:
    etree = importlib.import_module("lxml.etree")
    extension = etree.FunctionNamespace("http://golibx/matrix")
    extension["twice"] = lambda _context, x: (gosched_in(n), x * 2)[1]
    root = etree.XML("<a>" + "".join(f"<b n='{i}'/>" for i in range(20)) + "</a>")
    found = root.xpath(f"m:twice({n}.0)", namespaces={"m": "http://golibx/matrix"})
    return [found, len(root.findall("b")), etree.tostring(root).decode()[-30:]]


def with_cryptography(n: int) -> Any:
    fernet = importlib.import_module("cryptography.fernet")
    key = importlib.import_module("base64").urlsafe_b64encode(bytes([n % 256]) * 32)
    box = fernet.Fernet(key)
    return [box.decrypt(box.encrypt(bytes([n % 256]) * size)).hex() for size in (10, 100, 1000)]


def with_pydantic_core(n: int) -> Any:
    core = importlib.import_module("pydantic_core")
    schema = core.core_schema.list_schema(
        core.core_schema.no_info_after_validator_function(
            lambda x: (gosched_in(n), x + n)[1], core.core_schema.int_schema()
        )
    )
    return core.SchemaValidator(schema).validate_python([str(i) for i in range(20)])


def with_orjson(n: int) -> Any:
    orjson = importlib.import_module("orjson")

    def default(value: object) -> object:
        gosched_in(n)
        return [n, str(value)]

    text = orjson.dumps([{1, 2} - {1}, {"n": n, "c": complex(n, 1)}] * 5, default=default)
    return orjson.loads(text)


def with_polars(n: int) -> Any:
    polars = importlib.import_module("polars")
    frame = polars.DataFrame({"a": list(range(20))})
    doubled = frame["a"].map_elements(lambda x: mul(x, n), return_dtype=polars.Int64)
    return [doubled.to_list(), frame.filter(polars.col("a") > n % 20).height]


def with_pyarrow(n: int) -> Any:
    pa = importlib.import_module("pyarrow")
    compute = importlib.import_module("pyarrow.compute")
    table = pa.table({"a": list(range(50)), "b": [n] * 50})
    return [compute.sum(table["a"]).as_py(), table["b"].to_pylist(), table.slice(3, 4).num_rows]


def with_pillow(n: int) -> Any:
    image_module = importlib.import_module("PIL.Image")
    image = image_module.new("RGB", (32, 32), (n % 256, 20, 30)).rotate(30).resize((16, 16))
    out = io.BytesIO()
    image.point(lambda x: x // 2).save(out, "PNG")
    return list(image_module.open(io.BytesIO(out.getvalue())).tobytes()[:60])


def with_grpc(n: int) -> Any:
    grpc = importlib.import_module("grpc")
    channel = grpc.insecure_channel(f"localhost:{1 + n % 3}")
    call = channel.unary_unary("/none/None")
    try:
        call(b"x", timeout=5)
    except grpc.RpcError as e:
        return e.code().name
    finally:
        channel.close()


def with_psycopg(n: int) -> Any:
    sql = importlib.import_module("psycopg.sql")
    adapters = importlib.import_module("psycopg.adapt")
    text = sql.SQL("select {} from {}").format(sql.Literal(n), sql.Identifier(f"t{n}"))
    return [text.as_string(None), bytes(adapters.Transformer().as_literal(n))]


def with_sqlite3(n: int) -> Any:
    sqlite3 = importlib.import_module("sqlite3")
    c = sqlite3.connect(":memory:", check_same_thread=False)
    c.create_function("f", 1, lambda x: (gosched_in(n), x + n)[1])
    c.create_collation("k", lambda a, b: (gosched_in(n), (a > b) - (a < b))[1])
    c.execute("create table t (a)")
    c.executemany("insert into t values (?)", ((str((i * 7) % 10),) for i in range(10)))
    found = c.execute("select a, f(1) from t order by a collate k").fetchall()
    c.close()
    return found


def with_regex(n: int) -> Any:
    regex = importlib.import_module("regex")
    return regex.sub(
        r"(?P<w>\w+)", lambda m: (gosched_in(n), m["w"][::-1])[1], f"abc def {n} ghi " * 5
    )


def with_protobuf(n: int) -> Any:
    struct_pb2 = importlib.import_module("google.protobuf.struct_pb2")
    json_format = importlib.import_module("google.protobuf.json_format")
    message = struct_pb2.Struct()
    message.update({"n": n, "list": [1, 2, {"a": "b"}]})
    back = struct_pb2.Struct.FromString(message.SerializeToString())
    return json.loads(json_format.MessageToJson(back))


def with_greenlet(n: int) -> Any:
    greenlet = importlib.import_module("greenlet")
    seen: list[int] = []
    main = greenlet.getcurrent()

    def body() -> None:
        for i in range(5):
            seen.append(n + i)
            gosched_in(n)
            main.switch(i)

    g = greenlet.greenlet(body)
    return [[g.switch() for _ in range(5)], seen]


def with_cffi(n: int) -> Any:
    cffi = importlib.import_module("cffi")
    ffi = cffi.FFI()
    ffi.cdef("void qsort(void *, size_t, size_t, int (*)(const void *, const void *));")
    libc = ffi.dlopen(None)

    @ffi.callback("int(const void *, const void *)")  # type: ignore[untyped-decorator]
    def compare(a: Any, b: Any) -> int:
        gosched_in(n)
        x, y = ffi.cast("int *", a)[0], ffi.cast("int *", b)[0]
        return int(x > y) - int(x < y)

    data = ffi.new("int[]", [(i * 7 + n) % 11 for i in range(11)])
    libc.qsort(data, 11, 4, compare)
    return list(data)


def with_ctypes(n: int) -> Any:
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )

    def compare(a: Any, b: Any) -> int:
        gosched_in(n)
        return int(a[0] > b[0]) - int(a[0] < b[0])

    data = (ctypes.c_int * 11)(*((i * 7 + n) % 11 for i in range(11)))
    ctypes.CDLL(None).qsort(data, 11, 4, kind(compare))
    return list(data)


in_run = False


def gosched_in(n: int) -> None:
    """Gives way, in a run, at every third goroutine; the others are preempted only."""
    if in_run and n % 3 == 0:
        gosched()


NEEDS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "numpy": ("numpy", with_numpy),
    "scipy": ("scipy.integrate", with_scipy),
    "lxml": ("lxml.etree", with_lxml),
    "cryptography": ("cryptography.fernet", with_cryptography),
    "pydantic-core": ("pydantic_core", with_pydantic_core),
    "orjson": ("orjson", with_orjson),
    "polars": ("polars", with_polars),
    "pyarrow": ("pyarrow", with_pyarrow),
    "pillow": ("PIL.Image", with_pillow),
    "grpcio": ("grpc", with_grpc),
    "psycopg": ("psycopg", with_psycopg),
    "sqlite3": ("sqlite3", with_sqlite3),
    "regex": ("regex", with_regex),
    "protobuf": ("google.protobuf.struct_pb2", with_protobuf),
    "greenlet": ("greenlet", with_greenlet),
    "cffi": ("cffi", with_cffi),
    "ctypes": ("ctypes", with_ctypes),
}


def compare(work: Callable[[int], Any]) -> None:
    global in_run
    expected = [work(n) for n in range(GOROUTINES)]
    found: list[Any] = [None] * GOROUTINES

    def one(n: int) -> None:
        found[n] = work(n)

    def main() -> None:
        group = WaitGroup()
        for n in range(GOROUTINES):
            group.go(one, n)
        assert group.wait(timeout=50)

    in_run = True
    try:
        run(main, config={"preempt": {"slice": "100us"}})
    finally:
        in_run = False
    gc.collect()
    assert found == expected


@pytest.mark.parametrize("package", NEEDS)
def test_a_package_computes_what_it_does_in_a_thread(package: str) -> None:
    module, work = NEEDS[package]
    pytest.importorskip(module, reason=f"{package} is not installed: no wheel for this Python")
    compare(work)


CYTHON = """
def integrate(f, int n):
    cdef double total = 0
    cdef int i
    for i in range(n):
        total += f(i)
    return total
async def waits():
    pass
"""
MYPYC = """
from typing import Callable
def integrate(f: Callable[[int], float], n: int) -> float:
    total = 0.0
    for i in range(n):
        total += f(i)
    return total
"""
BUILD = {
    "Cython": ("matrix_cython.pyx", CYTHON, "from Cython.Build import cythonize as build"),
    "mypyc": ("matrix_mypyc.py", MYPYC, "from mypyc.build import mypycify as build"),
}


@pytest.mark.parametrize("compiler", BUILD)
def test_a_compiled_module_computes_what_it_does_in_a_thread(compiler: str, tmp_path: Path) -> None:
    pytest.importorskip(compiler, reason=f"{compiler} is not installed")
    pytest.importorskip("setuptools")
    if sysconfig.get_config_var("CC") is None:
        pytest.skip("no C compiler is known to this Python")
    file, source, build = BUILD[compiler]
    (tmp_path / file).write_text(source)
    setup = (
        f"from setuptools import setup\n{build}\nsetup(name='m', ext_modules=build(['{file}']))\n"
    )
    (tmp_path / "setup.py").write_text(setup)
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        pytest.skip(f"cannot be built here: {built.stderr[-200:]}")
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module(file.split(".")[0])
        assert not str(module.__file__).endswith(".py")
        compare(lambda n: module.integrate(lambda i: (gosched_in(n), float(i * n))[1], 20))
        if compiler == "Cython":  # one of mypyc's does not tell
            with pytest.raises(TypeError, match=r"waits\(\) is async"):
                run(module.waits)
    finally:
        sys.path.remove(str(tmp_path))
