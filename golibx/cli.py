"""The `golibx` command: `golibx run`, and the way to the others.

`golibx run` must not start noticeably later than python, and click alone takes longer to import
than everything that a run needs. So its command line is parsed here, by hand, and click and
golibx.commands are imported for the other subcommands, for help and for usage errors.
"""

from __future__ import annotations

import os
import sys

from golibx.config import Config
from golibx.errors import ConfigError
from golibx.program import Program
from golibx.runtime import Runtime
from golibx.values import is_module_function

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import NoReturn

__all__ = ["main"]

CONFIG_EXIT_CODE = 2
DEFAULT_CONFIG = "golib.toml"


class UsageError(Exception):
    """The command line of `golibx run` is not right."""


class HelpWanted(UsageError):
    """The command line of `golibx run` asks for help."""


class Run:
    """What a command line of `golibx run` asks for.

    Attributes:
        config: path of the golib.toml; None if none was named.
        overrides: the --set arguments.
        program: the program; None for the one that the configuration names.
        arguments: what follows `--`, for that one.
    """

    __slots__ = ("arguments", "config", "overrides", "program")

    def __init__(self) -> None:
        self.config: str | None = None
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
    from golibx.commands import group

    group.main(list(arguments), prog_name="golibx")


def parse_run(arguments: Sequence[str]) -> Run:
    """What the command line after `golibx run` says. Raises UsageError."""
    run = Run()
    rest = list(arguments)
    while rest and run.program is None:
        argument = rest.pop(0)
        option, equals, value = argument.partition("=")
        if option in ("--config", "--set"):
            value = value if equals else _value_of(option, rest)
            if option == "--config":
                run.config = value
            else:
                run.overrides.append(value)
        elif argument == "--":
            run.arguments, rest = rest, []
        elif argument.startswith("-m"):
            module = argument[2:] or _value_of("-m", rest)
            run.program = Program("module", module, rest)
        elif argument in ("-h", "--help"):
            raise HelpWanted
        elif argument.startswith("-") and argument != "-":
            raise UsageError(f"No such option: {argument}")
        elif is_module_function(argument) and not os.path.exists(argument):
            run.program = Program("function", argument, rest)
        else:
            run.program = Program("script", argument, rest)
    if run.program is None and run.config is None:
        if not os.path.exists(DEFAULT_CONFIG):
            raise UsageError(
                "There is nothing to run: name a script, -m and a module, or module:function, or "
                f"have a {DEFAULT_CONFIG} whose [program] entry does."
            )
        run.config = DEFAULT_CONFIG
    return run


def _value_of(option: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"Option '{option}' requires an argument.")
    return rest.pop(0)


def launch(run: Run) -> None:
    """Runs the program. Raises what it raises; SystemExit(2) if the configuration is not right."""
    try:
        config = Config.load(run.config, overrides=run.overrides)
        program = run.program or configured_program(config, run.arguments)
        if run.program is None:
            _change_directory(config)
        main_function = program.prepare()
        # After prepare(), because plugins may be modules that lie beside the program.
        runtime = Runtime(config)
    except ConfigError as exc:
        report_config_error(exc)
    program.run(main_function, runtime)


def configured_program(config: Config, arguments: Sequence[str] = ()) -> Program:
    """The program that `[program] entry` names. Raises ConfigError if it names none."""
    entry = config.program.entry
    if not entry:
        problem = "nothing to run: neither this nor the command line names a program"
        raise config.error("program.entry", problem)
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
    """Says on stderr what is wrong, after the traceback of the plugin whose fault it is, if any."""
    if sys.stderr is not None:
        cause = exc.__cause__
        frames = _plugin_frames(cause.__traceback__) if cause is not None else None
        if cause is not None and frames is not None:
            import traceback

            sys.stderr.write("".join(traceback.format_exception(type(cause), cause, frames)))
        in_colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        label = "\x1b[1;31mgolibx:\x1b[0m" if in_colour else "golibx:"
        sys.stderr.write(f"{label} {exc}\n")
    raise SystemExit(CONFIG_EXIT_CODE) from None


def _plugin_frames(traceback: TracebackType | None) -> TracebackType | None:
    """`traceback` from the first frame on that is neither golibx's nor the import system's."""
    package = os.path.dirname(__file__) + os.sep
    others = (package, "<frozen importlib", os.path.dirname(os.__file__) + "/importlib/")
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(others):
        traceback = traceback.tb_next
    return traceback
