"""The `golibx` command: `golibx run`, and the way to the others.

`golibx run` must not start noticeably later than python, and click alone takes longer to import
than everything that a run needs. So its command line is parsed here, by hand, and click and
golibx.commands are imported for the other subcommands, for help and for usage errors.

Without --config a run uses ./golib.toml, and says so: it may name plugins, and then runs their
code. Nothing else runs code because a file lies in the current directory.
"""

from __future__ import annotations

import os
import sys

from golibx.config import DEFAULT_CONFIG, Config, default_config, refuse_unread
from golibx.errors import ConfigError
from golibx.patch.stdlib import patch_all
from golibx.program import Program, show_only
from golibx.runtime import Runtime, refuse
from golibx.values import is_module_function

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import NoReturn

__all__ = ["main"]

CONFIG_EXIT_CODE = 2
INTERRUPT_EXIT_CODE = 130  # what shells say of a process that SIGINT has ended
_PROGRAMS = {"-c": "command", "-m": "module"}
_OPTIONS = ("--config", "--no-config", "--set", "-c", "-i", "-m", "--help")


class UsageError(Exception):
    """The command line of `golibx run` is not right."""


class HelpWanted(UsageError):
    """The command line of `golibx run` asks for help."""


class Run:
    """What a command line of `golibx run` asks for.

    Attributes:
        config: path of the golib.toml; None if none was named.
        without_config: whether ./golib.toml is not used either.
        overrides: the --set arguments.
        interactive: whether an interactive console follows the program.
        program: the program; None for the one that the configuration names.
        arguments: what follows `--`, for that one.
    """

    __slots__ = ("arguments", "config", "interactive", "overrides", "program", "without_config")

    def __init__(self) -> None:
        self.config: str | None = None
        self.without_config = False
        self.interactive = False
        self.overrides: list[str] = []
        self.program: Program | None = None
        self.arguments: list[str] = []


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. It leaves as `python` does: by SystemExit, or the program's exception."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "run":
        try:
            run = parse_run(arguments[1:])
        except UsageError:
            pass  # for click to report, or to show the help that was asked for
        else:
            launch(run)
            return
    from golibx import commands

    commands.main(arguments)


def parse_run(arguments: Sequence[str]) -> Run:
    """What the command line after `golibx run` says. Raises UsageError."""
    run = Run()
    rest = list(arguments)
    named = False  # whether to run the configuration's program
    while rest and run.program is None:
        argument = rest.pop(0)
        option, equals, value = argument.partition("=")
        if option in ("--config", "--set"):
            value = value if equals else _value_of(option, rest)
            if option == "--config":
                run.config = value
            else:
                run.overrides.append(value)
        elif argument == "--no-config":
            run.without_config = True
        elif argument == "--":
            run.arguments, rest, named = rest, [], True
        elif argument[:2] in _PROGRAMS:
            text = argument[2:] or _value_of(argument, rest)
            run.program = Program(_PROGRAMS[argument[:2]], text, rest)
        elif argument == "-i":
            run.interactive = True
        elif argument in ("-h", "--help"):
            raise HelpWanted
        elif argument.startswith("-") and argument != "-":
            raise UsageError(f"No such option: {argument}{_hint(option)}")
        elif is_module_function(argument) and not os.path.exists(argument):
            run.program = Program("function", argument, rest)
        else:
            run.program = Program("script", argument, rest)
    _complete(run, named)
    return run


def _complete(run: Run, named: bool) -> None:
    """Raises UsageError if there is nothing to run."""
    if run.config is not None and run.without_config:
        raise UsageError("--config and --no-config are opposites: give one of them.")
    if run.program is not None or run.config is not None:
        return
    if run.interactive and not named:
        run.program = Program("console", "")
    elif run.without_config or default_config() is None:
        raise UsageError(
            "There is nothing to run: name a script, -m and a module, or module:function, or "
            f"have a {DEFAULT_CONFIG} whose [program] entry does."
        )


def _hint(option: str) -> str:
    from difflib import get_close_matches

    matches = get_close_matches(option, _OPTIONS, n=1)
    return f" Did you mean {matches[0]}?" if matches else ""


def _value_of(option: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"Option '{option}' requires an argument.")
    return rest.pop(0)


def launch(run: Run) -> None:
    """Runs the program. Raises what it raises; SystemExit(2) if the configuration is not right."""
    path = run.config
    if path is None and not run.without_config:
        path = default_config()
    try:
        config, problems = Config.examine(path, overrides=run.overrides)
        refuse_unread(problems)
        program = _program_of(run, config, problems)
        # First, because plugins may be modules that lie beside the program.
        if problems:
            if run.program is None:
                problems += missing_program(config, program)
            if path is not None and run.config is None:
                # Nothing has come of it yet, and then no code runs because that file lies there.
                from golibx import commands

                commands.check_plugins_unloaded(path, run.overrides, config, problems)
                raise commands.each_once(problems)
            program.enter_path()
            refuse(config, problems)
        main_function = program.prepare()
        patch_all(config.patch.stdlib)
        runtime = Runtime(config)
    except ConfigError as exc:
        report_config_error(exc)
    except KeyboardInterrupt as exc:
        show_only(exc, _plugin_frames(exc.__traceback__))
        raise
    if path is not None and run.config is None and sys.stderr is not None:
        # The user has not named it, and it may change what the program does.
        sys.stderr.write(f"golibx: using ./{path}\n")
    program.run(main_function, runtime, interactive=run.interactive)


def _program_of(run: Run, config: Config, problems: list[ConfigError]) -> Program:
    """The program, from its directory; some other one if what is wrong with it is a problem."""
    if run.program is not None:
        return run.program
    try:
        program = configured_program(config, run.arguments)
        _change_directory(config)
    except ConfigError as exc:
        problems.append(exc)
        return Program("command", "")
    return program


def missing_program(config: Config, program: Program) -> list[ConfigError]:
    """What is wrong with a configured program that is a file: that it is not there."""
    if program.kind != "script" or os.path.exists(program.name):
        return []
    return [config.error("program.entry", "there is no such file", value=program.name)]


def configured_program(config: Config, arguments: Sequence[str] = ()) -> Program:
    """The program that `[program] entry` names. Raises ConfigError if it names none."""
    entry = config.program.entry
    if not entry:
        problem = "nothing to run: neither this nor the command line names a program"
        error = config.error("program.entry", problem)
        error.source = error.source or config.path or ""
        raise error
    arguments = [*config.program.args, *arguments]
    if is_module_function(entry) and not os.path.exists(entry):
        return Program("function", entry, arguments, config.program.cwd or config.directory)
    return Program("script", entry, arguments)


def _change_directory(config: Config) -> None:
    directory = config.program.cwd
    if directory:
        try:
            os.chdir(directory)
        except OSError as exc:
            problem = f"can't change to it: {exc.strerror}"
            raise config.error("program.cwd", problem, value=directory) from None


def report_config_error(exc: ConfigError) -> NoReturn:
    """Says on stderr what is wrong, after the traceback of the plugin at fault, if any."""
    for error in exc.errors if sys.stderr is not None else ():
        cause = error.__cause__
        frames = _plugin_frames(cause.__traceback__) if cause is not None else None
        if cause is not None and frames is not None:
            import traceback

            sys.stderr.write("".join(traceback.format_exception(type(cause), cause, frames)))
        label = "\x1b[1;31mgolibx:\x1b[0m" if _in_colour() else "golibx:"
        sys.stderr.write(f"{label} {error}\n")
    raise SystemExit(CONFIG_EXIT_CODE) from None


def _in_colour() -> bool:
    """Whether what is written to stderr may have colours."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stderr.isatty()


def _plugin_frames(traceback: TracebackType | None) -> TracebackType | None:
    """`traceback` from the first frame on that is neither golibx's nor the import system's."""
    package = os.path.dirname(__file__) + os.sep
    others = (package, "<frozen importlib", os.path.dirname(os.__file__) + "/importlib/")
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(others):
        traceback = traceback.tb_next
    return traceback
