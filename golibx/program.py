"""Running a user's program the way `python` does, inside a runtime.

A program must not be able to tell that golibx started it, except by its goroutines: sys.argv,
sys.path[0], the module `__main__`, exit codes, tracebacks, sys.excepthook, KeyboardInterrupt and
what happens at exit are as under plain `python`. The rules are those of CPython's Modules/main.c
and runpy; for `-m`, and for folders and zip files, runpy's own code runs.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import ModuleType

from golibx import _core
from golibx.errors import Deadlock
from golibx.frames import without_own_frames
from golibx.runtime import Runtime
from golibx.values import current_directory, is_missing

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, TracebackType

    _Frames = TracebackType | None
    _Hook = Callable[[type[BaseException], BaseException, _Frames], object]

__all__ = ["Program", "program_frames", "show_only"]

_FRESH_MAIN_NAMES = (
    "__annotations__",
    "__cached__",
)  # those of them that this Python gives scripts

_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST

_mains: list[ModuleType] = []
"""Those that were `__main__` before. Until 3.12 the interpreter uses the names of the one that it
has begun with once more at its end, without a reference of its own."""


class Program:
    """A program and its arguments.

    Args:
        kind: "script" (a path, a folder or zip file with a __main__.py, or "-" for stdin),
            "module" (as `python -m`), "function" (package.module:function), "command" (as
            `python -c`) or "console" (as `python` alone).
        name: the path, module, function or code; empty for a console.
        arguments: sys.argv[1:].
        directory: where modules and functions are imported from; a script's own directory is used
            for scripts. Empty: the current directory.
    """

    __slots__ = ("arguments", "directory", "kind", "name")

    def __init__(
        self, kind: str, name: str, arguments: Sequence[str] = (), directory: str = ""
    ) -> None:
        self.kind = kind
        self.name = name
        self.arguments = arguments
        self.directory = directory

    def prepare(self) -> Callable[[], object]:
        """Sets the process up for the program; what it returns runs the program.

        Raises SystemExit, as python does, if the script can't be read.
        """
        name = self.name
        first = {"module": "-m", "command": "-c"}.get(self.kind, name)
        sys.argv = [first, *self.arguments]
        self.enter_path()
        if self.kind == "script" and name != "-" and not _is_importable_path(name):
            return _reader_of(_absolute(name))
        main = _make_main()
        if self.kind == "function":
            return lambda: _run_function(name)
        if self.kind == "module":
            return lambda: _run_module(name, alter_argv=True)
        if self.kind in ("command", "console") or name == "-":
            vars(main)["__loader__"] = BuiltinImporter
        if self.kind in ("command", "console"):
            vars(main).pop("__cached__", None)
        if self.kind == "command":
            return lambda: _run_command(name, main)
        if self.kind == "console" or (name == "-" and sys.stdin is not None and sys.stdin.isatty()):
            from golibx import console

            return lambda: console.interact(vars(main), program_frames, startup=True)
        if name == "-":
            vars(main)["__file__"] = "<stdin>"
            return lambda: _run_source(sys.stdin.buffer.read(), "<stdin>", main)
        return lambda: _run_module("__main__", alter_argv=False)

    def enter_path(self) -> None:
        """Makes sys.path[0] what it is for the program."""
        # What python put there is the folder of the golibx command, unless it was told not to.
        if not sys.flags.safe_path:
            sys.path[0] = self.own_directory()

    def own_directory(self) -> str:
        """What sys.path[0] is for the program: where it finds the modules beside it."""
        if self.kind in ("command", "console") or self.name == "-":
            return ""
        if self.kind != "script":
            return self.directory or current_directory()
        if _is_importable_path(self.name):
            return _absolute(self.name)
        return os.path.dirname(os.path.realpath(self.name))

    def run(
        self, main: Callable[[], object], runtime: Runtime, *, interactive: bool = False
    ) -> None:
        """Runs what prepare() returned as the main goroutine.

        An exception that it raises, raised on to the interpreter, will be shown without the frames
        of golibx.

        Args:
            main: what prepare() returned.
            runtime: the runtime to run it in.
            interactive: whether an interactive console follows, as after `python -i`.
        """
        runtime.is_program = True
        function = main
        if interactive and self.kind != "console":
            from golibx import console

            function = console.after(main, lambda: vars(sys.modules["__main__"]), program_frames)
        shown: list[BaseException] = []
        if runtime.config.patch.threads:
            function = _with_threads(function, shown)
        try:
            runtime.run(function, (), {})
        except SystemExit:
            raise
        except BaseException as exc:
            if exc in shown:
                _show_no_more(exc)
            else:
                show_only(exc, program_frames(exc.__traceback__))
            raise


def _with_threads(
    function: Callable[[], object], shown: list[BaseException]
) -> Callable[[], object]:
    """The same, with threads that are goroutines, and an end as the interpreter's.

    What the function raises is shown first, and put into the list.
    """

    def main() -> object:
        from golibx.patch import goroutine_threads, threads

        reason = goroutine_threads.install()
        if reason is not None:
            sys.stderr.write(f"golibx: [patch] threads: threads stay threads: {reason}\n")
            return function()
        waits = True
        try:
            return function()
        except SystemExit as exc:
            # Without sys.stderr the interpreter knows another.
            if goroutine_threads.are_left() and sys.stderr is not None:
                exc.code = threads.show_exit(exc.code)
            raise
        except BaseException as exc:
            waits = not isinstance(exc, Deadlock)  # of those none ends by itself
            if goroutine_threads.are_left():
                _show_now(exc)
                shown.append(exc)
            raise
        finally:
            try:
                goroutine_threads.end(waits=waits)
            finally:
                goroutine_threads.uninstall()

    return main


def _show_now(exc: BaseException) -> None:
    """What the interpreter shows of it when it has ended the program."""
    frames = exc.__traceback__ = program_frames(exc.__traceback__)
    sys.last_type, sys.last_value, sys.last_traceback = type(exc), exc, frames
    if sys.version_info >= (3, 12):
        sys.last_exc = exc
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        return
    try:
        hook(type(exc), exc, exc.__traceback__)
    except BaseException as wrong:
        sys.__excepthook__(type(wrong), wrong, wrong.__traceback__)


def _show_no_more(exc: BaseException) -> None:
    """Has the interpreter's report of `exc`, which has been shown, show nothing."""

    def report(
        hook: _Hook, kind: type[BaseException], value: BaseException, traceback: _Frames
    ) -> None:
        if value is not exc:
            hook(kind, value, traceback)

    _report_once(report)


def _absolute(path: str) -> str:
    """The absolute path as python makes it: with "./" and ".." left in, for programs to see."""
    here = current_directory()
    return here if path == os.curdir else os.path.join(here, path)


def _make_main() -> ModuleType:
    """A new `__main__`, with the names that python gives it for a program."""
    old_main = sys.modules["__main__"]
    _mains.append(old_main)
    main = ModuleType("__main__")
    names = vars(main)
    names["__builtins__"] = builtins
    for name in _FRESH_MAIN_NAMES:
        if name in vars(old_main):
            names[name] = {} if name == "__annotations__" else None
    sys.modules["__main__"] = main
    return main


def _is_importable_path(path: str) -> bool:
    """Whether `path` is a folder, a zip file, or whatever else sys.path_hooks know."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _reader_of(path: str) -> Callable[[], object]:
    try:
        with io.open_code(path) as file:
            content = file.read()
    except OSError as exc:
        print(
            f"golibx: can't open file {path!r}: [Errno {exc.errno}] {exc.strerror}",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    main = _make_main()
    vars(main)["__file__"] = path
    if path.endswith(".pyc"):
        loader = SourcelessFileLoader("__main__", path)
        vars(main)["__loader__"] = loader
        return lambda: _execute(loader.get_code("__main__"), main)
    vars(main)["__loader__"] = SourceFileLoader("__main__", path)
    return lambda: _run_source(content, path, main)


def _run_source(content: bytes, path: str, main: ModuleType) -> None:
    if b"\0" in content:
        raise _null_byte_error(content, path)
    _execute(compile(content, path, "exec", dont_inherit=True), main)


def _null_byte_error(content: bytes, path: str) -> SyntaxError:
    """What python says of a script with a null byte.

    It reads scripts line by line and names the one with the byte, which compile() does not. It
    prefers what makes no tokens in a line before, but not what makes no sense: as it would with
    a byte in place of that line that no token has.
    """
    head = content[: content.index(b"\0")]
    lines_before = head[: max(head.rfind(b"\n"), head.rfind(b"\r")) + 1]
    try:
        compile(lines_before + b"\1", path, "exec", _ONLY_AST, dont_inherit=True)
    except SyntaxError as exc:
        if "U+0001" not in exc.msg and "triple-quoted" not in exc.msg:
            return exc.with_traceback(None)
    from importlib.util import decode_source

    line = len(lines_before.splitlines()) + 1
    try:
        text = decode_source(head).rpartition("\n")[2]
    except (SyntaxError, UnicodeDecodeError):
        text = head[len(lines_before) :].decode(errors="replace")
    return SyntaxError("source code cannot contain null bytes", (path, line, 0, text, line, 0))


def _run_command(text: str, main: ModuleType) -> None:
    if sys.version_info >= (3, 14):  # from where on `python -c` takes code that is indented
        from textwrap import dedent

        text = dedent(text)
    try:
        source = f"{text}\n".encode()
    except UnicodeEncodeError as exc:
        message = f"{type(exc).__name__}: {exc}"
        sys.exit(f"Unable to decode the command from the command line:\n{message}")
    code = compile(source, "<string>", "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):  # from where on tracebacks show its lines
        import linecache

        register = getattr(linecache, "_register_code", None)
        if register is not None:
            by_code = hasattr(linecache, "_interactive_cache")  # not so in 3.13's first releases
            register(code if by_code else "<string>", f"{text}\n", "<string>")
    _execute(code, main)


def _execute(code: CodeType | None, main: ModuleType) -> None:
    assert code is not None
    exec(code, vars(main))


def _run_module(name: str, *, alter_argv: bool) -> None:
    import runpy

    # Not public, but what CPython's own main() calls, by this name, since Python 2.6.
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run_function(reference: str) -> None:
    """Calls package.module:function and ends as a console script that names it would."""
    module_name, _, function_name = reference.partition(":")
    try:
        __import__(module_name)
    except ModuleNotFoundError as exc:
        if not is_missing(module_name, exc):
            raise
        sys.exit(f"golibx: No module named {exc.name}")
    function: object = sys.modules[module_name]
    for name in function_name.split("."):
        if not hasattr(function, name):
            sys.exit(f"golibx: module {module_name} has no {function_name}")
        function = getattr(function, name)
    if not callable(function):
        sys.exit(f"golibx: {reference} is not a function")
    callee = _core.async_callee(function)
    if callee is not None:
        what = "an async generator" if callee[1] else "async"
        sys.exit(f"golibx: {reference} is {what}: name a function that calls asyncio.run()")
    sys.exit(function())


def show_only(exc: BaseException, frames: TracebackType | None) -> None:
    """Makes the interpreter's report of `exc`, which is on its way up, show no other frames."""

    def report(
        hook: _Hook, kind: type[BaseException], value: BaseException, traceback: _Frames
    ) -> None:
        if value is exc:
            # The hook may look at the exception or at sys.last_traceback instead of its argument.
            traceback = value.__traceback__ = sys.last_traceback = frames
        hook(kind, value, traceback)

    _report_once(report)


def _report_once(
    report: Callable[[_Hook, type[BaseException], BaseException, _Frames], None],
) -> None:
    """Has `report` called in the place of sys.excepthook, which it is given, the next time.

    What is raised later, at exit, is none of golibx's business.
    """
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        return  # of which the interpreter tells

    def excepthook(kind: type[BaseException], value: BaseException, traceback: _Frames) -> None:
        sys.excepthook = hook
        report(hook, kind, value, traceback)

    sys.excepthook = excepthook


def program_frames(traceback: TracebackType | None) -> TracebackType | None:
    """`traceback` from the program's first frame on, and without the SIGINT handler at its end."""
    traceback = without_own_frames(traceback)
    entry = traceback
    while entry is not None:
        later = entry.tb_next
        if later is not None and later.tb_frame.f_code is Runtime.on_interrupt.__code__:
            entry.tb_next = None
        entry = entry.tb_next
    return traceback
