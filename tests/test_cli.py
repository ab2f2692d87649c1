"""The golibx command: programs run as under python, and the subcommands.

Most tests of `golibx run` run the same program under python as well and compare.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from golibx import native
from golibx.cli import UsageError, parse_run

GOLIBX = [sys.executable, "-m", "golibx"]
Result = subprocess.CompletedProcess[str]


def execute(command: list[str], folder: Path, **options: object) -> Result:
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "NO_COLOR": "1"}
    environment.update(options.pop("env", {}))  # type: ignore[call-overload]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command,
        cwd=folder,
        env=environment,
        text=True,
        timeout=60,
        capture_output=True,
        **options,
    )


def golibx(folder: Path, *arguments: str, **options: object) -> Result:
    return execute([*GOLIBX, *arguments], folder, **options)


def run(folder: Path, program: str, *options: str) -> Result:
    """Runs the text of a program."""
    (folder / "program.py").write_text(program)
    return golibx(folder, "run", *options, "program.py")


def both(folder: Path, *arguments: str, **options: object) -> tuple[Result, Result]:
    """The results of `python ARGUMENTS` and of `golibx run ARGUMENTS`."""
    plain = execute([sys.executable, *arguments], folder, **options)
    return plain, golibx(folder, "run", *arguments, **options)


def assert_same(folder: Path, *arguments: str, **options: object) -> Result:
    plain, ours = both(folder, *arguments, **options)
    assert without_addresses(ours.stdout) == without_addresses(plain.stdout)
    assert without_addresses(ours.stderr) == without_addresses(plain.stderr)
    assert ours.returncode == plain.returncode
    return ours


def without_addresses(text: str) -> str:
    return re.sub("0x[0-9a-f]+", "0x…", text)


# --- Programs run as under python ---------------------------------------------------------------

WHO_AM_I = """
import os, sys
main = sys.modules["__main__"]
print(sys.argv, sys.path[0], __name__, globals().get("__file__"), main.__dict__ is globals())
print(type(__loader__).__name__, __package__, type(__spec__).__name__, sorted(globals()))
print(sys.flags, __doc__, __builtins__ is __import__("builtins"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With programs that say how they see themselves: a script, a package, a folder, a zip file."""
    for name in ("who.py", "package/__init__.py", "package/__main__.py", "app/__main__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(WHO_AM_I if not name.endswith("__init__.py") else "")
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", WHO_AM_I)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to(tmp_path / "who.py")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["who.py"],
        ["who.py", "-m", "--set", "a=b", "--help", "--", "-x", ""],
        ["./who.py", "x"],
        ["elsewhere/../who.py"],
        ["elsewhere/link.py"],
        ["-m", "who", "x", "--config"],
        ["-mwho"],
        ["-m", "package", "-v"],
        ["-m", "package.__main__"],
        ["app", "x"],
        ["./app"],
        ["app.zip", "x"],
        ["-", "x"],
        ["-c", WHO_AM_I, "x", "-c"],
        ["-c" + WHO_AM_I],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_program_sees_what_it_sees_under_python(folder: Path, arguments: list[str]) -> None:
    assert_same(folder, *arguments, input=WHO_AM_I)


def test_absolute_path_from_elsewhere(folder: Path) -> None:
    assert_same(folder / "elsewhere", str(folder / "who.py"))


def test_compiled_script(folder: Path) -> None:
    code = "import py_compile; py_compile.compile('who.py', 'who.pyc')"
    execute([sys.executable, "-c", code], folder)
    assert_same(folder, "who.pyc", "x")


def test_modules_beside_the_script_are_found(folder: Path) -> None:
    (folder / "beside.py").write_text("print('found')\n")
    (folder / "program.py").write_text("import beside\n")
    assert assert_same(folder / "elsewhere", "../program.py").stdout == "found\n"


def test_safe_path(folder: Path) -> None:
    (folder / "beside.py").write_text("print('found')\n")
    (folder / "program.py").write_text("import beside\n")
    environment = {"PYTHONSAFEPATH": "1"}
    plain = execute([sys.executable, "program.py"], folder, env=environment)
    ours = golibx(folder, "run", "program.py", env=environment)
    assert ours.stderr == plain.stderr
    assert "No module named 'beside'" in ours.stderr


FAILING = {
    "exception": "def f(x):\n    return 1 / x\nf(0)\n",
    "exception from another": "try:\n    1 / 0\nexcept Exception as e:\n    raise OSError from e\n",
    "exception during another": "try:\n    1 / 0\nexcept Exception:\n    {}['key']\n",
    "exception group": "raise ExceptionGroup('both', [ValueError(1), TypeError(2)])\n",
    "syntax error": "print('not reached')\ndef (:\n",
    "import error": "import no_such_module\n",
    "import of a broken module": "open('broken.py', 'w').write('1/0')\nimport broken\n",
    "recursion": "def f(): f()\ntry:\n    f()\nexcept RecursionError as e:\n    print(e)\n",
    "exit": "import sys\nsys.exit()\n",
    "exit 0": "raise SystemExit(0)\n",
    "exit 7": "import sys\nsys.exit(7)\n",
    "exit 300": "import sys\nsys.exit(300)\n",
    "exit text": "import sys\nsys.exit('goodbye')\n",
    "exit tuple": "import sys\nsys.exit((1, 2))\n",
    "exit true": "import sys\nsys.exit(True)\n",
    "quit": "quit()\n",
    "os._exit": "import os\nos._exit(9)\n",
    "keyboard interrupt": "raise KeyboardInterrupt\n",
    "base exception": "class Stop(BaseException): pass\nraise Stop('it')\n",
    "generator exit": "raise GeneratorExit\n",
    "closed stdout": "import sys\nprint('x')\nsys.stdout.close()\n",
    "full stdout": "import os, sys\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nprint('x')\n",
    "no stderr": "import sys\nsys.stderr = None\n1 / 0\n",
    "hook": (
        "import sys, traceback\n"
        "def hook(kind, value, tb):\n"
        "    print(kind.__name__, value, len(traceback.extract_tb(tb)))\n"
        "    print(value.__traceback__ is tb, sys.last_traceback is tb, sys.excepthook is hook)\n"
        "sys.excepthook = hook\n"
        "def f(): raise ValueError('x')\n"
        "f()\n"
    ),
    "at exit": (
        "import atexit, sys, threading, time\n"
        "def work():\n    time.sleep(0.05)\n    print('thread ended')\n"
        "atexit.register(lambda: print('atexit', sys.excepthook is sys.__excepthook__))\n"
        "atexit.register(lambda: 1 / 0)\n"
        "threading.Thread(target=work).start()\n"
        "print(threading.current_thread() is threading.main_thread())\n"
        "raise ValueError\n"
    ),
    "del at the end": (
        "import sys\nclass A:\n    def __del__(self): print('deleted')\na = A()\nprint('end')\n"
    ),
    "warning": "import warnings\nwarnings.warn('careful')\n",
    "unraisable": "class A:\n    def __del__(self): 1 / 0\ndel A.__del__, A\nprint('ok')\n",
}


@pytest.mark.parametrize("name", FAILING)
def test_program_ends_as_under_python(tmp_path: Path, name: str) -> None:
    (tmp_path / "program.py").write_text(FAILING[name])
    assert_same(tmp_path, "program.py")


NULL_BYTES = {
    "in a line": b"x = 1\ny = 2\0\nz\n",
    "alone": b"\0",
    "latin-1": b"# coding: latin-1\r\n\r\nif 1:\r\n    y = '\xe9\0'",
    "in a text": b'x = """\nabc\0\n"""\n',
    "in parentheses": b"x = (1,\n\0",
    "after a syntax error": b"def f(:\n    pass\n\0",
    "after one of parentheses": b"x = )\ny\0\n",
    "after one of indentation": b"if 1:\n    x\n  y\nz\0\n",
}


@pytest.mark.parametrize("name", [*NULL_BYTES, "from stdin"])
def test_null_byte_is_found_in_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "program.py").write_bytes(NULL_BYTES.get(name, b"x\0"))
    argument = "-" if name == "from stdin" else "program.py"
    texts = []
    for command in ([sys.executable], [*GOLIBX, "run"]):
        with (tmp_path / "program.py").open("rb") as program:
            done = subprocess.run(
                [*command, argument],
                cwd=tmp_path,
                stdin=program,
                capture_output=True,
                timeout=60,
            )
        assert done.returncode == 1
        texts.append(done.stderr)
    assert texts[0] == texts[1]
    assert b", line " in texts[1]


@pytest.mark.parametrize("name", ["exception", "import error", "exit 7", "keyboard interrupt"])
def test_module_ends_as_under_python(tmp_path: Path, name: str) -> None:
    (tmp_path / "program.py").write_text(FAILING[name])
    assert_same(tmp_path, "-m", "program")


@pytest.mark.parametrize(
    "code",
    [
        "def f(): 1 / 0\nf()",
        "x = = 1",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('x')",
        "",
        "print('\udcff'.encode('utf-8', 'surrogateescape'))",
        "import os; print(os.getcwd() == os.path.abspath(__import__('sys').path[0]))",
        "x = 1\nif x:\n    print(x)",
    ],
)
def test_code_on_the_command_line(tmp_path: Path, code: str) -> None:
    assert_same(tmp_path, "-c", code)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="code may not be indented before 3.14")
def test_indented_code_on_the_command_line(tmp_path: Path) -> None:
    assert_same(tmp_path, "-c", "\n    x = 1\n    print(x)\n")


def test_error_in_a_program_from_stdin(tmp_path: Path) -> None:
    assert_same(tmp_path, "-", input="def f(): 1 / 0\nf()\n")


@pytest.mark.parametrize("arguments", [["-m", "no_module"], ["-m", "no.module"], ["-m", "package"]])
def test_module_that_does_not_exist(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    assert assert_same(tmp_path, *arguments).returncode == 1


def test_folder_without_main(tmp_path: Path) -> None:
    assert assert_same(tmp_path, ".").returncode == 1


@pytest.mark.parametrize("name", ["none.py", "no/such/folder/none.py", "none"])
def test_script_that_does_not_exist(tmp_path: Path, name: str) -> None:
    plain, ours = both(tmp_path, name)
    assert ours.returncode == plain.returncode == 2
    assert ours.stderr == plain.stderr.replace(sys.executable, "golibx")


def test_output_is_flushed_into_a_closed_pipe(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import time\ntime.sleep(0.2)\nprint('x')\n")
    results = []
    for command in ([sys.executable, "program.py"], [*GOLIBX, "run", "program.py"]):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        results.append((process.stderr.read(), process.wait(60)))
        process.stderr.close()
    assert results[0] == results[1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*GOLIBX, "info"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    problem = "golibx: can't write the output: No space left on device\n"
    assert (result.returncode, result.stderr) == (1, problem)


def test_subprocesses_of_multiprocessing(tmp_path: Path) -> None:
    """They import the program's own file as __mp_main__."""
    (tmp_path / "program.py").write_text(
        "import multiprocessing\n"
        "def square(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(square, [1, 2, 3]))\n"
    )
    assert assert_same(tmp_path, "program.py").stdout == "[1, 4, 9]\n"


# --- SIGINT -------------------------------------------------------------------------------------

WAITS = {
    "time.sleep": "import time\nprint('ready', flush=True)\ntime.sleep(60)\n",
    "loop": "print('ready', flush=True)\nwhile True: pass\n",
}
PARKS = {
    "sleep": "golibx.sleep(60)",
    "channel": "golibx.Chan().recv()",
    "join": "other.join()",
    "gosched": "while True: golibx.gosched()",
    "hogs beside": "golibx.go(hog); golibx.sleep(60)",
}


def interrupted(command: list[str], folder: Path) -> tuple[int, str, str]:
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, output, errors


@pytest.mark.parametrize("name", WAITS)
def test_interrupt_as_under_python(tmp_path: Path, name: str) -> None:
    (tmp_path / "program.py").write_text(WAITS[name])
    plain = interrupted([sys.executable, "program.py"], tmp_path)
    ours = interrupted([*GOLIBX, "run", "program.py"], tmp_path)
    assert ours[0] == plain[0] == -signal.SIGINT
    frames = [line.split(", line")[0] for line in ours[2].splitlines()]
    assert frames == [line.split(", line")[0] for line in plain[2].splitlines()]


CTRL_C = """\
import os, signal, time
from golibx.hookspec import hookimpl
def wait():
    os.kill(os.getpid(), signal.SIGINT)
    while True: time.sleep(0.01)
"""
HOOK = "@hookimpl\ndef {}: wait()\n"
INTERRUPTED_PLUGINS = {
    "its module": ("wait()\n", "slow.py was being loaded"),
    "its class": (
        "class Plugin:\n    __init__ = lambda self: wait()\n    golib_start = hookimpl(wait)\n",
        "slow.py was being loaded",
    ),
    "golib_configure": (HOOK.format("golib_configure()"), "plugin slow was in golib_configure"),
    "golib_start": (HOOK.format("golib_start()"), ""),
}


@pytest.mark.parametrize("name", INTERRUPTED_PLUGINS)
def test_interrupt_while_a_plugin_is_loaded_ends_the_command(tmp_path: Path, name: str) -> None:
    text, said = INTERRUPTED_PLUGINS[name]
    (tmp_path / "slow.py").write_text(CTRL_C + text)
    result = run(tmp_path, "print('runs')", "--set", 'plugins.enabled=["./slow.py"]')
    assert (result.returncode, result.stdout) == (-signal.SIGINT, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{tmp_path}/slow.py"' in lines[1]
    assert "/golibx/" not in result.stderr
    assert "KeyboardInterrupt" in lines
    assert lines[-1].endswith(said or "KeyboardInterrupt")


@pytest.mark.parametrize(
    ("text", "said"),
    [INTERRUPTED_PLUGINS["its module"], (HOOK.format("golib_cli(group)"), "was in golib_cli")],
)
def test_interrupt_while_a_plugin_is_asked_for_commands(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "slow.py").write_text(CTRL_C + text)
    (tmp_path / "golib.toml").write_text('[plugins]\nenabled = ["./slow.py"]\n')
    result = golibx(tmp_path, "--config", "golib.toml", "--help")
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr.rstrip().endswith(said)


def test_an_interrupted_plugin_can_be_loaded_again(tmp_path: Path) -> None:
    """run() raises, and leaves nothing of the plugin behind."""
    (tmp_path / "slow.py").write_text(
        CTRL_C + "import builtins\nif not hasattr(builtins, 'again'):\n"
        "    builtins.again = True\n    wait()\n"
        "@hookimpl\ndef golib_start(): print('starts')\n"
    )
    program = (
        "import sys, golibx\nconfig = {'plugins': {'enabled': ['./slow.py']}}\n"
        "try:\n    golibx.run(print, 'runs', config=config)\n"
        "except KeyboardInterrupt:\n    print([n for n in sys.modules if 'golibx_plugin' in n])\n"
        "golibx.run(print, 'runs', config=config)\n"
    )
    (tmp_path / "program.py").write_text(program)
    result = execute([sys.executable, "program.py"], tmp_path)
    assert (result.stdout, result.stderr) == ("[]\nstarts\nruns\n", "")


@pytest.mark.parametrize("wait", PARKS.values(), ids=PARKS)
def test_interrupt_of_a_parked_main_goroutine(tmp_path: Path, wait: str) -> None:
    # Before 3.13 Python itself misses the `try` around a loop that is its first statement, when the
    # signal is noticed at the jump back.
    (tmp_path / "program.py").write_text(
        "import golibx\n"
        "def hog():\n    while True: pass\n"
        "other = golibx.go(golibx.sleep, 60)\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    waits = True\n"
        f"    {wait}\n"
        "finally:\n"
        "    print('cleaned up')\n"
    )
    # A hog can't be cancelled: it never waits.
    timeout = "runtime.shutdown_timeout=100ms"
    command = [*GOLIBX, "run", "--set", timeout, "program.py"]
    code, output, errors = interrupted(command, tmp_path)
    assert (code, output) == (-signal.SIGINT, "cleaned up\n")
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "/golibx/" not in errors


def test_handler_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import signal, golibx\n"
        "channel = golibx.Chan(1)\n"
        "signal.signal(signal.SIGINT, lambda *_: channel.try_send('interrupted'))\n"
        "golibx.go(golibx.sleep, 60)\n"
        "print('ready', flush=True)\n"
        "print(channel.recv())\n"
    )
    code, output, errors = interrupted([*GOLIBX, "run", "program.py"], tmp_path)
    assert (code, output, errors) == (0, "interrupted\n", "")


def test_handler_is_python_s_own_again_after_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import golibx, signal, sys\n"
        "def handler(): return signal.getsignal(signal.SIGINT)\n"
        "inside = golibx.run(handler)\n"
        "print(inside is signal.default_int_handler, handler() is signal.default_int_handler)\n"
        "golibx.run(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))\n"
        "print(handler() is signal.SIG_IGN)\n"
        "golibx.run(print, 'ignored', handler() is signal.SIG_IGN)\n"
    )
    result = execute([sys.executable, "program.py"], tmp_path)
    assert (result.stderr, result.stdout) == ("", "True True\nTrue\nignored True\n")


# --- Goroutines that fail, and the end of a run -------------------------------------------------


def test_panic_is_reported(tmp_path: Path) -> None:
    program = (
        "import golibx\n"
        "def worker(): raise ValueError('bad')\n"
        "goroutine = golibx.go(worker)\n"
        "number = goroutine.id\n"
        "goroutine.name = 'worker-3'\n"
        "del goroutine\n"
        "golibx.sleep(0.01)\n"
        "print(number)\n"
    )
    result = run(tmp_path, program)
    path = tmp_path / "program.py"
    assert result.returncode == 0
    first, *traceback = result.stderr.splitlines()
    number = result.stdout.strip()
    assert first == f"goroutine {number} [worker-3] started at {path}:3 panicked:"
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[1] == f'  File "{path}", line 2, in worker'
    assert traceback[-1] == "ValueError: bad"


def test_collected_exception_is_no_panic(tmp_path: Path) -> None:
    program = (
        "import golibx\n"
        "def worker(): raise ValueError('bad')\n"
        "try:\n    golibx.go(worker).result()\n"
        "except ValueError as exc:\n    print(exc)\n"
    )
    result = run(tmp_path, program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "bad\n", "")


def test_panic_can_end_the_program(tmp_path: Path) -> None:
    program = (
        "import golibx\n"
        "golibx.go(lambda: 1 / 0)\n"
        "try:\n    golibx.sleep(60)\n"
        "finally:\n    print('cleaned up')\n"
    )
    result = run(tmp_path, program, "--set", "runtime.on_panic=exit")
    assert (result.returncode, result.stdout) == (2, "cleaned up\n")
    assert result.stderr.startswith("goroutine ")
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert result.stderr.count("Traceback") == 1


@pytest.mark.parametrize(
    ("code", "status", "errors"), [("5", 5, ""), ("'goodbye'", 1, "goodbye\n"), ("None", 0, "")]
)
def test_sys_exit_in_a_goroutine(tmp_path: Path, code: str, status: int, errors: str) -> None:
    program = (
        "import golibx, sys\n"
        f"golibx.go(sys.exit, {code})\n"
        "try:\n    golibx.sleep(60)\n"
        "finally:\n    print('cleaned up')\n"
    )
    result = run(tmp_path, program)
    assert (result.returncode, result.stdout, result.stderr) == (status, "cleaned up\n", errors)


def test_goroutines_that_are_left_are_cancelled(tmp_path: Path) -> None:
    program = (
        "import golibx\n"
        "def worker():\n"
        "    try:\n        golibx.sleep(60)\n"
        "    finally:\n        print('cleaned up')\n"
        "golibx.go(worker)\n"
        "golibx.gosched()\n"
        "print('end')\n"
    )
    result = run(tmp_path, program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "end\ncleaned up\n", "")


def test_goroutine_that_does_not_end(tmp_path: Path) -> None:
    program = (
        "import golibx\n"
        "def worker():\n"
        "    while True:\n"
        "        try:\n            golibx.sleep(60)\n"
        "        except BaseException:\n            pass\n"
        "golibx.go(worker)\n"
        "golibx.gosched()\n"
    )
    began = time.monotonic()
    result = run(tmp_path, program, "--set", "runtime.shutdown_timeout=200ms")
    assert result.returncode == 0
    first, second = result.stderr.splitlines()
    assert first == "golibx: 1 goroutine did not end within 200ms after cancellation"
    assert re.fullmatch(r"  goroutine 2 \[worker\] started at .*program.py:8: sleep", second)
    assert time.monotonic() - began < 5


def test_switch_interval(tmp_path: Path) -> None:
    program = "import sys, atexit\natexit.register(lambda: print(sys.getswitchinterval()))\n"
    program += "print(sys.getswitchinterval())\n"
    assert run(tmp_path, program).stdout == "0.005\n0.005\n"
    result = run(tmp_path, program, "--set", "runtime.switch_interval=500us")
    assert result.stdout == "0.0005\n0.005\n"


def test_kill_switch(tmp_path: Path) -> None:
    program = (
        "import golibx, time\n"
        "def hog():\n"
        "    end = time.monotonic() + 0.3\n"
        "    while time.monotonic() < end: pass\n"
        "golibx.go(hog)\n"
        "golibx.gosched()\n"
        "print(golibx.stats()['preemptions'] > 0)\n"
    )
    # The hog runs first; without preemption gosched() comes back when it is done.
    assert run(tmp_path, program, "--set", "preempt.async=false").stdout == "False\n"


# --- golibx run: its own command line -----------------------------------------------------------


def test_function(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "import sys, golibx\n"
        "class Group:\n    @staticmethod\n    def main(): print('in a class')\n"
        "def main():\n    print(sys.argv, golibx.num_goroutine())\n    return 4\n"
        "def fails(): 1 / 0\n"
        "value = 5\n"
        "async def waits(): print('never')\n"
        "async def yields(): yield\n"
    )
    result = golibx(tmp_path, "run", "module:main", "-v", "x")
    assert (result.returncode, result.stdout) == (4, "['module:main', '-v', 'x'] 1\n")
    assert golibx(tmp_path, "run", "module:Group.main").stdout == "in a class\n"
    result = golibx(tmp_path, "run", "module:fails")
    assert result.returncode == 1
    assert result.stderr.splitlines()[:2] == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path / "module.py"}", line 8, in fails',
    ]
    result = golibx(tmp_path, "run", "module:none")
    assert (result.returncode, result.stderr) == (1, "golibx: module module has no none\n")
    result = golibx(tmp_path, "run", "module:value")
    assert (result.returncode, result.stderr) == (1, "golibx: module:value is not a function\n")
    result = golibx(tmp_path, "run", "module:waits")
    hint = "name a function that calls asyncio.run()"
    assert (result.returncode, result.stderr) == (1, f"golibx: module:waits is async: {hint}\n")
    result = golibx(tmp_path, "run", "module:yields")
    assert result.returncode == 1
    assert result.stderr == f"golibx: module:yields is an async generator: {hint}\n"
    result = golibx(tmp_path, "run", "no_module:main")
    assert (result.returncode, result.stderr) == (1, "golibx: No module named no_module\n")


CONFIGURED = """
[program]
entry = "{entry}"
args = ["-a"]
cwd = "{cwd}"
"""


def test_program_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "module.py").write_text(
        "import os, sys\n"
        "def main(): print(sys.argv[1:], os.path.basename(os.getcwd()))\n"
        "if __name__ == '__main__': main()\n"
    )
    config = tmp_path / "golib.toml"
    config.write_text(CONFIGURED.format(entry="sub/module.py", cwd=""))
    expected = f"['-a'] {tmp_path.name}\n"
    assert golibx(tmp_path, "run").stdout == expected
    assert golibx(tmp_path / "sub", "run", "--config", "../golib.toml").stdout == "['-a'] sub\n"
    config.write_text(CONFIGURED.format(entry="sub/module.py", cwd="sub"))
    assert golibx(tmp_path, "run", "--", "-b", "c").stdout == "['-a', '-b', 'c'] sub\n"
    config.write_text(CONFIGURED.format(entry="module:main", cwd="sub"))
    assert golibx(tmp_path, "run").stdout == "['-a'] sub\n"
    # The command line's program is run without [program].
    (tmp_path / "other.py").write_text("import os, sys\nprint(sys.argv, os.getcwd())\n")
    result = golibx(tmp_path, "run", "--config", "golib.toml", "other.py")
    assert result.stdout == f"['other.py'] {tmp_path}\n"


def test_settings_reach_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "golib.toml").write_text('[runtime]\nswitch_interval = "1ms"\n')
    program = "import sys\nprint(sys.getswitchinterval())\n"
    assert run(tmp_path, program, "--config", "golib.toml").stdout == "0.001\n"
    found = run(tmp_path, program)
    assert (found.stdout, found.stderr) == ("0.001\n", "golibx: using ./golib.toml\n")
    without = run(tmp_path, program, "--no-config")
    assert (without.stdout, without.stderr) == ("0.005\n", "")
    (tmp_path / "elsewhere").mkdir()
    assert golibx(tmp_path / "elsewhere", "run", "../program.py").stdout == "0.005\n"
    both_options = ("--config=golib.toml", "--set=runtime.switch_interval=2ms")
    assert run(tmp_path, program, *both_options).stdout == "0.002\n"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--config", "none.toml"], "none.toml: can't read it: No such file or directory"),
        (["--config", "bad.toml"], "bad.toml:1:1: not TOML: "),
        (["--set", "preempt.slize=1ms"], "did you mean preempt.slice?"),
        (["--set", "plugins.enabled=schedtrce"], "did you mean schedtrace?"),
        (["--set", "program.cwd=none", "--"], "can't change to it: No such file or directory"),
        (["--"], "golib.toml: program.entry: nothing to run"),
    ],
)
def test_configuration_that_is_not_right(tmp_path: Path, options: list[str], problem: str) -> None:
    (tmp_path / "bad.toml").write_text("=\n")
    (tmp_path / "golib.toml").write_text("")
    (tmp_path / "program.py").write_text("print('not reached')\n")
    if "--" in options[1:]:
        (tmp_path / "golib.toml").write_text('[program]\nentry = "program.py"\n')
    program = [] if "--" in options else ["program.py"]
    result = golibx(tmp_path, "run", *options, *program)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("golibx: ")
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_plugin_that_can_not_be_imported(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def f(): 1 / 0\nf()\n")
    result = run(tmp_path, "print('not reached')\n", "--set", "plugins.enabled=./broken.py")
    assert (result.returncode, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert lines[:2] == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path / "broken.py"}", line 2, in <module>',
    ]
    assert lines[-1].startswith('golibx: --set: plugins.enabled = "')
    assert lines[-1].endswith("can't be loaded: ZeroDivisionError: division by zero")


HOOKS = """
import sys, threading
import golibx
sys.excepthook = lambda kind, *_: print("sys", kind.__name__)
threading.excepthook = lambda args: print("threading", args.exc_type.__name__)

def fails(): raise LookupError("of a goroutine")

def fails_in_a_thread(): raise KeyError

golibx.go(fails)
golibx.gosched()
thread = threading.Thread(target=fails_in_a_thread)
thread.start()
thread.join()
raise ValueError
"""


def test_which_hook_is_called_for_an_exception_that_nobody_collects(tmp_path: Path) -> None:
    result = run(tmp_path, HOOKS)
    assert result.returncode == 1
    assert result.stdout.splitlines() == ["threading KeyError", "sys ValueError"]
    assert result.stderr.startswith("goroutine 2 [fails] started at ")
    assert result.stderr.endswith("LookupError: of a goroutine\n")
    assert result.stderr.count("panicked") == 1


WRONG_TOML = """
[program]
entry = "nowhere.py"
[preempt]
slize = "1ms"
[plugins]
enabled = ["schedtrace", "nope", "./mine.py", "./broken.py"]
[plugins.schedtrace]
intervall = "1s"
[plugins.mine]
x = 1
"""
WRONG_PLUGIN = """
from golibx.hookspec import hookimpl

@hookimpl
def golib_configure(config):
    config.plugin("mine", ())
"""


@pytest.mark.parametrize(
    ("command", "hidden"),
    [
        (["run", "--config", "golib.toml"], []),
        (["run", "--config", "golib.toml", "program.py"], ["program.entry"]),
        (["check-config", "--config", "golib.toml"], []),
        # Without their code what plugins find wrong can't be told.
        (["check-config"], ["broken", "mine.x"]),
        (["run"], ["broken", "mine.x"]),
        (["plugins", "--config", "golib.toml"], ["program.entry", "schedtrace", "mine.x"]),
        (["program.py"], ["program.entry"]),
    ],
)
def test_mistakes_of_keys_and_of_plugins_are_told_together(
    tmp_path: Path, command: list[str], hidden: list[str]
) -> None:
    (tmp_path / "golib.toml").write_text(WRONG_TOML)
    (tmp_path / "mine.py").write_text(WRONG_PLUGIN)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    source = "import golibx\ngolibx.run(print, config='golib.toml')\n"
    (tmp_path / "program.py").write_text(source)
    if command == ["program.py"]:
        result = execute([sys.executable, *command], tmp_path)
        assert "golibx.errors.ConfigError: golib.toml:5" in result.stderr
    else:
        result = golibx(tmp_path, *command)
        assert result.returncode == 2
    assert result.stdout == ""
    for problem in (
        "preempt.slize",
        "program.entry",
        'plugins.enabled = "nope"',
        "broken",
        "schedtrace.intervall",
        "mine.x",
    ):
        is_hidden = any(name in problem for name in hidden)
        told = [line for line in result.stderr.splitlines() if problem in line and "toml" in line]
        assert len(told) == (0 if is_hidden else 1), (problem, result.stderr)


def test_plugins_are_not_asked_about_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "golib.toml").write_text('[plugins]\nenabled = ["./loud.py"]\n=\n')
    (tmp_path / "loud.py").write_text("print('loaded')\n")
    for command in ["run"], ["check-config", "--config", "golib.toml"]:
        result = golibx(tmp_path, *command)
        assert (result.returncode, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("toml", "hint"),
    [
        (
            '[plugins]\nenabled = ["./adds.py", "./broken.py"]\n',
            "It may be one of a plugin that was not loaded, for the reason above",
        ),
        (
            '[preempt]\nslize = 1\n[plugins]\nenabled = ["./adds.py"]\n',
            "It may be one of a plugin that was not loaded, for the reason above",
        ),
        (
            '[plugins]\nenabled = ["./adds.py"]\n',
            "No plugin of golib.toml adds it: golibx --config golib.toml --help has the commands",
        ),
    ],
)
def test_hint_at_a_command_that_plugins_may_add(tmp_path: Path, toml: str, hint: str) -> None:
    (tmp_path / "golib.toml").write_text(toml)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "adds.py").write_text(
        "import click\nfrom golibx.hookspec import hookimpl\n@hookimpl\n"
        "def golib_cli(group):\n    group.add_command(click.Command('added', callback=print))\n"
    )
    result = golibx(tmp_path, "--config", "golib.toml", "other")
    assert result.returncode == 2
    assert f"No such command 'other'. {hint}" in " ".join(result.stderr.split())
    assert "--config golib.toml other" not in result.stderr
    # One that can't be loaded keeps no user from the commands of others.
    result = golibx(tmp_path, "--config", "golib.toml", "added")
    assert (result.returncode, result.stdout) == (0, "\n")


def test_hint_at_a_command_of_a_plugin_that_the_environment_names(tmp_path: Path) -> None:
    result = golibx(tmp_path, "other", env={"GOLIB_PLUGINS_ENABLED": "nope"})
    assert result.returncode == 2
    hint = "It may be one of a plugin that was not loaded, for the reason above"
    assert f"No such command 'other'. {hint}\n" in result.stderr


def test_config_error_of_the_program_itself_is_its_exception(tmp_path: Path) -> None:
    program = "from golibx.errors import ConfigError\nraise ConfigError('mine')\n"
    result = run(tmp_path, program)
    assert result.returncode == 1
    assert result.stderr.endswith("golibx.errors.ConfigError: mine\n")


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--no-such-option"], ["run", "--set"], ["run", "-m"], ["walk"]]
)
def test_usage_errors(tmp_path: Path, arguments: list[str]) -> None:
    result = golibx(tmp_path, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: golibx")
    assert "Error: " in result.stderr


def test_parse_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = parse_run(["--set", "a.b=c", "--config=x.toml", "--set=d.e=", "s.py", "--set", "--"])
    assert (run.config, run.overrides) == ("x.toml", ["a.b=c", "d.e="])
    assert run.program is not None
    assert (run.program.kind, run.program.name) == ("script", "s.py")
    assert run.program.arguments == ["--set", "--"]
    for arguments, kind, name in (
        (["-m", "a.b", "-x"], "module", "a.b"),
        (["-ma.b", "-x"], "module", "a.b"),
        (["a.b:c.d", "-x"], "function", "a.b:c.d"),
        (["-", "-x"], "script", "-"),
        (["a b:c", "-x"], "script", "a b:c"),
    ):
        program = parse_run(arguments).program
        assert program is not None
        assert (program.kind, program.name, program.arguments) == (kind, name, ["-x"])
    (tmp_path / "a:b").write_text("")
    program = parse_run(["a:b"]).program
    assert program is not None
    assert program.kind == "script"
    run = parse_run(["--config", "x", "--", "s.py"])
    assert (run.program, run.arguments) == (None, ["s.py"])
    with pytest.raises(UsageError, match="nothing to run"):
        parse_run([])


# --- golibx run -i ------------------------------------------------------------------------------


def test_console_after_a_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import golibx\nx = golibx.Chan(1)\n1 / 0\n")
    statements = "x.send(5)\nprint(x.recv(), golibx.current().id)\n1 / 0\nprint('on')\n"
    result = golibx(tmp_path, "run", "-i", "program.py", input=statements)
    assert (result.returncode, result.stdout.split()[-2:]) == (0, ["on", ">>>"])
    assert "5 1" in result.stdout
    lines = result.stderr.splitlines()
    assert lines.count("ZeroDivisionError: division by zero") == 2
    assert [line for line in lines if "File" in line] == [
        f'  File "{tmp_path / "program.py"}", line 3, in <module>',
        '  File "<stdin>", line 1, in <module>',
    ]


def test_console_alone(tmp_path: Path) -> None:
    (tmp_path / "startup.py").write_text("print('started')\n")
    environment = {"PYTHONSTARTUP": str(tmp_path / "startup.py")}
    result = golibx(tmp_path, "run", "-i", input="print(__name__)\nexit(3)\n", env=environment)
    assert result.returncode == 3
    assert "The main goroutine of golibx" in result.stderr
    assert "started" in result.stdout
    assert "__main__" in result.stdout


@pytest.mark.parametrize("program", ["import sys; sys.exit(4)", "raise KeyboardInterrupt"])
def test_console_after_a_program_that_ends_itself(tmp_path: Path, program: str) -> None:
    result = golibx(tmp_path, "run", "-i", "-c", program, input="print('here')\n")
    assert result.returncode == 0
    assert "here" in result.stdout
    assert "Traceback" in result.stderr


def typed(command: list[str], folder: Path, *keys: tuple[str, bytes]) -> tuple[int, str]:
    """Types at a terminal: each of `keys` when the text before it has appeared."""
    pty = pytest.importorskip("pty")
    terminal, other = pty.openpty()
    # The leader of a session makes the first terminal that it opens its own.
    script = f'exec "$@" <{os.ttyname(other)} >{os.ttyname(other)} 2>&1'
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *command],
        cwd=folder,
        env={**os.environ, "TERM": "dumb", "NO_COLOR": "1"},
        start_new_session=True,
    )
    output = ""
    try:
        for text, key in keys:
            while text not in output:
                output += os.read(terminal, 1000).decode()
            output = output.partition(text)[2]
            os.write(terminal, key)
        os.close(other)
        other = -1
        while True:
            try:
                output += os.read(terminal, 1000).decode()
            except OSError:  # the program has ended
                return process.wait(), output
    finally:
        process.kill()
        process.wait()
        for fd in {terminal, other} - {-1}:
            os.close(fd)


def test_keys_of_the_console(tmp_path: Path) -> None:
    """Ctrl-C at the prompt and in a wait, while another goroutine runs; and Ctrl-D."""
    (tmp_path / "program.py").write_text(
        "import golibx\nticks = golibx.AtomicInt()\n"
        "def tick():\n    while True: golibx.sleep(0.001); ticks.add(1)\n"
        "golibx.go(tick)\nn = 0\n"
    )
    code, output = typed(
        [*GOLIBX, "run", "-i", "program.py"],
        tmp_path,
        (">>> ", b"x = 1 +\x03"),
        ("KeyboardInterrupt", b""),
        (">>> ", b"print('waits'); golibx.Chan().recv()\n"),
        ("\nwaits", b"\x03"),
        ("KeyboardInterrupt", b""),
        (">>> ", b"n = ticks.load()\n"),
        (">>> ", b"while ticks.load() == n: golibx.sleep(0.001)\n\n"),
        (">>> ", b"print('on' + 'wards')\n"),
        ("onwards", b""),
        (">>> ", b"\x04"),
    )
    assert code == 0, output


# --- run() under golibx run ---------------------------------------------------------------------


def test_run_in_the_program_of_golibx_run(tmp_path: Path) -> None:
    program = (
        "import golibx\n"
        "def main(x, y=0):\n    return golibx.current().id, x, y\n"
        "print(golibx.run(main, 1, y=2))\n"
        "def fails(): 1 / 0\n"
        "golibx.run(fails)\n"
    )
    result = run(tmp_path, program)
    assert (result.returncode, result.stdout) == (1, "(1, 1, 2)\n")
    assert "/golibx/" not in result.stderr
    assert result.stderr.count("  File ") == 2


def test_run_with_a_configuration_under_golibx_run(tmp_path: Path) -> None:
    program = "import golibx\nprint(golibx.run(int, config={'preempt': {'slice': '5ms'}}))\n"
    result = run(tmp_path, program)
    assert (result.returncode, result.stdout) == (0, "0\n")
    assert "RuntimeWarning: run(config=…) has no effect under `golibx run`" in result.stderr
    assert "--config or --set" in result.stderr


def test_run_in_another_goroutine_is_refused(tmp_path: Path) -> None:
    program = "import golibx\ngolibx.go(golibx.run, int).result()\n"
    result = run(tmp_path, program)
    assert result.returncode == 1
    assert "RuntimeError: " in result.stderr


README = Path(__file__).parent.parent / "README.md"
README_PROGRAMS = re.findall(
    r"^```python\n(import.*?|from.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S
)


def test_the_program_of_the_readme(tmp_path: Path) -> None:
    (program,) = README_PROGRAMS
    result = run(tmp_path, program)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


# --- The other subcommands ----------------------------------------------------------------------


def test_help_has_examples(tmp_path: Path) -> None:
    for arguments in (["--help"], ["-h"], ["run", "--help"], ["run", "-h"]):
        result = golibx(tmp_path, *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert "Examples:" in result.stdout
        assert "golibx run --config golib.toml" in result.stdout


def test_version(tmp_path: Path) -> None:
    result = golibx(tmp_path, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("golibx ")


def test_check_config(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('not run')\n")
    config = tmp_path / "golib.toml"
    config.write_text(
        '[program]\nentry = "main.py"\n[plugins]\nenabled = ["schedtrace"]\n'
        '[plugins.schedtrace]\ninterval = "2s"\n[plugins.other]\nx = 1\n'
    )
    result = golibx(tmp_path, "check-config", "golib.toml")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "golib.toml: ok",
        "golib.toml: note: [plugins.other] is not used: no plugin other is enabled",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[preempt]\nslize = 1\n", "golib.toml:2: preempt.slize = 1: unknown key"),
        ("[preempt\n", "golib.toml:1:"),
        ('[program]\nentry = "none.py"\n', "golib.toml:2: program.entry = "),
        ('[plugins]\nenabled = ["none"]\n', 'golib.toml:2: plugins.enabled = "none"'),
        (
            '[plugins]\nenabled = ["schedtrace"]\n[plugins.schedtrace]\nintervall = 1\n',
            "golib.toml:4: plugins.schedtrace.intervall = 1: unknown key",
        ),
    ],
)
def test_check_config_finds(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "golib.toml").write_text(text)
    result = golibx(tmp_path, "check-config", "golib.toml")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"golibx: {problem}")


def test_plugins(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from golibx.hookspec import hookimpl\n@hookimpl\ndef golib_stop(): pass\n"
    )
    result = golibx(tmp_path, "plugins")
    assert (result.returncode, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["plugin", "origin", "enabled", "hooks"]
    assert ["schedtrace", "built-in", "no"] in [row[:3] for row in rows]
    assert all(len(row) > 3 for row in rows)
    (tmp_path / "golib.toml").write_text('[plugins]\nenabled = ["./mine.py", "schedtrace"]\n')
    # Used as by `golibx run`, but none of its code runs.
    lines = golibx(tmp_path, "plugins").stdout.splitlines()
    rows = [line.split() for line in lines]
    assert ["mine", str(tmp_path / "mine.py"), "yes", "(not", "loaded)"] in rows
    (schedtrace,) = [row for row in rows if row[:1] == ["schedtrace"]]
    assert schedtrace[1:3] == ["built-in", "yes"]
    assert "on_preempt," in schedtrace
    assert "configuration: golib.toml" in lines
    for options in (["--config=golib.toml"], ["--set=plugins.enabled=./mine.py"]):
        rows = [line.split() for line in golibx(tmp_path, "plugins", *options).stdout.splitlines()]
        assert ["mine", str(tmp_path / "mine.py"), "yes", "golib_stop"] in rows
    result = golibx(tmp_path, "plugins", "--set=plugins.enabled=none")
    assert (result.returncode, result.stdout) == (2, "")


def test_info(tmp_path: Path) -> None:
    result = golibx(tmp_path, "info")
    assert (result.returncode, result.stderr) == (0, "")
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names[:4] == ["golibx", "python", "executable", "platform"]
    assert {"preempt", "retake", "native_gomaxprocs", "native_preempt", "golibx.h"} <= set(names)
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert rows["native_runtime"] == "works"
    # None of the tables that it is about is left out.
    assert rows["c_identity"] == ("redirected calls" if sys.platform == "linux" else "none")
    # Those of a process that has done nothing say nothing.
    assert not {f"native_{name}" for name in native.counters()} & set(names) - {"native_gomaxprocs"}
    assert not any(name.endswith("_reason") for name in names)


@pytest.mark.parametrize(
    "arguments", [["info"], ["plugins"], ["config"], ["config", "--show"], ["run", "-c", "pass"]]
)
def test_no_command_takes_a_bad_variable(tmp_path: Path, arguments: list[str]) -> None:
    result = golibx(tmp_path, *arguments, env={"GOMAXPROCS": "abc"})
    assert result.returncode == 2
    assert result.stderr.startswith('golibx: GOMAXPROCS: runtime.gomaxprocs = "abc": ')
    assert result.stderr.count("\n") == 1


def test_plugins_add_commands(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import click\n"
        "from golibx.hookspec import hookimpl\n"
        "@hookimpl\n"
        "def golib_cli(group):\n"
        "    @group.command()\n"
        "    def greet():\n"
        "        'Say hello.'\n"
        "        click.echo('hello')\n"
    )
    environment = {"GOLIB_PLUGINS_ENABLED": "./mine.py"}
    assert golibx(tmp_path, "greet", env=environment).stdout == "hello\n"
    assert "Say hello." in golibx(tmp_path, "--help", env=environment).stdout
    assert golibx(tmp_path, "greet").returncode == 2
    (tmp_path / "golib.toml").write_text('[plugins]\nenabled = ["./mine.py"]\n')
    option = "--config=golib.toml"
    assert golibx(tmp_path, option, "greet").stdout == "hello\n"
    assert "Say hello." in golibx(tmp_path, option, "--help").stdout
    result = golibx(tmp_path, "greet")
    assert result.returncode == 2
    assert "golibx --config golib.toml greet" in result.stderr
    (tmp_path / "golib.toml").write_text('[plugins]\nenabled = ["./none.py"]\n')
    result = golibx(tmp_path, option, "--help")
    assert result.returncode == 0
    assert result.stderr.startswith("golibx: golib.toml:2: plugins.enabled = ")


# --- Start-up -----------------------------------------------------------------------------------


def test_start_up_time(tmp_path: Path) -> None:
    """Nothing heavy is imported. How many milliseconds it takes is for bench/ to say."""
    (tmp_path / "hello.py").write_text("print('hello')\n")
    commands = ([sys.executable, "hello.py"], [*GOLIBX, "run", "hello.py"])
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(8):
        for command, seconds in zip(commands, times, strict=True):
            began = time.perf_counter()
            execute(command, tmp_path)
            seconds.append(time.perf_counter() - began)
    assert min(times[1]) - min(times[0]) < 0.5
