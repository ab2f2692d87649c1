"""The subcommands of `golibx` and their help, for click; golibx.cli runs programs without it."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

import click

from golibx import _core, cli
from golibx.config import Config
from golibx.errors import ConfigError
from golibx.runtime import Runtime
from golibx.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["group"]

_CONTEXT = {"help_option_names": ["-h", "--help"]}

config_option = click.option(
    "--config", metavar="FILE", help="The golib.toml to use.", type=click.Path()
)
set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the configuration, as in preempt.slice=5ms; may be repeated.",
)


class _Group(click.Group):
    """golibx's own subcommands, and those that plugins add once another one, or help, is wanted."""

    _asked_plugins = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins()
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._ask_plugins()
        return self.commands.get(cmd_name)

    def _ask_plugins(self) -> None:
        if self._asked_plugins:
            return
        self._asked_plugins = True
        try:
            config = _default_config()
            if config.plugins.enabled or config.plugins.autoload:
                from golibx.pluginmanager import PluginManager

                PluginManager(config).extend_cli(self)
        except ConfigError as exc:
            # A plugin that can't be loaded must not keep anybody from reading the help.
            click.echo(f"golibx: {exc}", err=True)


class _RunCommand(click.Command):
    """`golibx run`, whose command line is cli.parse_run's; click shows help and usage errors."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            ctx.params["run"] = cli.parse_run(args)
        except cli.HelpWanted:
            return super().parse_args(ctx, ["--help"])
        except cli.UsageError as exc:
            raise click.UsageError(str(exc), ctx) from None
        return []


def _default_config() -> Config:
    return Config.load(cli.DEFAULT_CONFIG if os.path.exists(cli.DEFAULT_CONFIG) else None)


@click.group(
    cls=_Group,
    context_settings=_CONTEXT,
    epilog="""\b
Examples:
  golibx run hello.py                     a script, as `python hello.py`
  golibx run -m package --verbose         a module, as `python -m package --verbose`
  golibx run package.module:main          a function
  golibx run --config golib.toml          the program that the file names
  golibx run --set preempt.slice=5ms hello.py
  golibx check-config golib.toml
""",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def group() -> None:
    """Run Python programs on Go's scheduler: goroutines, channels and select.

    Plugins that ./golib.toml enables, or GOLIB_PLUGINS_ENABLED names, may add commands.
    """


@group.command(
    "run",
    cls=_RunCommand,
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  golibx run hello.py --name you          all that follows the program is its own
  golibx run -m http.server 8000
  golibx run package.module:main
  golibx run --config golib.toml          [program] entry of the file
  golibx run --config golib.toml -- -v    the same, with an argument more
  golibx run --set preempt.async=false hello.py
""",
)
@config_option
@set_option
@click.option("-m", "module", metavar="MODULE", help="Run a module, as `python -m` does.")
@click.argument("program", required=False, metavar="[SCRIPT | MODULE:FUNCTION | -]")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS]...")
def run_command(run: cli.Run) -> None:
    """Run a program as goroutines.

    Its arguments, exit code, tracebacks and signals are as under `python`. Without a program, the
    one is run that [program] entry of FILE names, or of ./golib.toml.
    """
    cli.launch(run)


@group.command("check-config", short_help="Check a golib.toml.")
@click.argument("file", type=click.Path())
@set_option
def check_config(file: str, overrides: Sequence[str]) -> None:
    """Check FILE: its keys and values, its program, its plugins and their tables."""
    try:
        config = Config.load(file, overrides=overrides)
        if config.program.entry:
            program = cli.configured_program(config)
            if program.kind == "script" and not os.path.exists(program.name):
                problem = "there is no such file"
                raise config.error("program.entry", problem, value=program.name)
            program.enter_path()
        plugins = Runtime(config).plugins
    except ConfigError as exc:
        cli.report_config_error(exc)
    click.echo(f"{file}: ok")
    loaded = {plugin.name for plugin in plugins}
    for name in config.plugin_table_names():
        if name not in loaded:
            click.echo(f"{file}: note: [plugins.{name}] is not used: no plugin {name} is enabled")


@group.command("plugins", short_help="List the plugins that there are.")
@config_option
@set_option
def plugins_command(config: str | None, overrides: Sequence[str]) -> None:
    """List the plugins that there are, and which of them are enabled."""
    from golibx.pluginmanager import PluginManager, builtin_names, installed_names

    try:
        settings = Config.load(config, overrides=overrides) if config else _default_config()
        manager = PluginManager(settings)
    except ConfigError as exc:
        cli.report_config_error(exc)
    enabled = {plugin.name: plugin for plugin in manager.plugins}
    rows = [
        (plugin.name, plugin.origin, "yes", ", ".join(manager.hooks_of(plugin)))
        for plugin in enabled.values()
    ]
    for origin, names in (("built-in", builtin_names()), ("installed", installed_names())):
        rows += [(name, origin, "no", "") for name in names if name not in enabled]
    _show_table(("plugin", "origin", "enabled", "hooks"), sorted(rows))


@group.command(
    "dump",
    short_help="Show what the goroutines of a process do.",
    epilog="""\b
Examples:
  golibx dump 1234
  golibx dump $(pgrep -f server.py)
  kill -QUIT 1234                         prints the same to its stderr, and ends it
""",
)
@click.argument("pid", type=int)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its answer.",
)
def dump_command(pid: int, timeout: float) -> None:
    """Show the goroutines of process PID, which is in a golibx run: what each does and where.

    Works for a process that hangs, too: if its interpreter does not answer within a second, the
    process says what can be told without it. Only its own user and root may ask.
    """
    from golibx import dump

    try:
        click.echo(dump.request(pid, timeout=timeout), nl=False)
    except dump.DumpError as exc:
        raise click.ClickException(str(exc)) from None


@group.command(
    "info",
    short_help="Show versions and active mechanisms.",
    epilog="""\b
Examples:
  golibx info
  cc -I$(golibx info --include) -c program.c
  python -m golibx.include --help         all that a C compiler may want to know
""",
)
@click.option("--include", "show_include", is_flag=True, help="Print only golibx.h's folder.")
@click.option("--library", "show_library", is_flag=True, help="Print only the library's path.")
def info_command(show_include: bool, show_library: bool) -> None:
    """Show versions, the platform, and which mechanisms are active and why not otherwise."""
    if show_include or show_library:
        _show_paths(show_include, show_library)
        return
    from golibx import include

    native_rows = _native_rows()  # first: it says which signal the native runtime has taken
    mechanisms = _core.info()
    rows = [
        ("golibx", __version__),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("executable", sys.executable),
        ("platform", platform.platform()),
    ]
    for name, value in mechanisms.items():
        if name != "python" and not name.endswith("_reason"):
            reason = mechanisms.get(f"{name}_reason")
            rows.append((name, f"{value} ({reason})" if reason else value))
    rows += native_rows
    rows.append(("library", include.library()))
    try:
        rows.append(("golibx.h", include.header()))
    except FileNotFoundError as exc:
        rows.append(("golibx.h", f"missing ({exc})"))
    _show_table(None, rows)


def _native_rows() -> list[tuple[str, str]]:
    """Whether the native runtime works here, found out by a call, and its counters after that."""
    import ctypes

    from golibx import native

    try:
        native.call(ctypes.CDLL(native.library()).golibx_gosched)
    except RuntimeError as exc:
        return [("native_runtime", f"none ({exc})")]
    counters = native.counters()
    del counters["gomaxprocs"]  # _core.info() has it
    return [("native_runtime", "works")] + [
        (f"native_{name}", str(value)) for name, value in counters.items()
    ]


def _show_paths(show_include: bool, show_library: bool) -> None:
    from golibx import include

    try:
        if show_include:
            click.echo(include.folder())
        if show_library:
            click.echo(include.library())
    except FileNotFoundError as exc:
        raise click.ClickException(str(exc)) from None


def _show_table(header: tuple[str, ...] | None, rows: Sequence[tuple[str, ...]]) -> None:
    """Prints a table: with rich on a terminal, in aligned columns elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*(header or ()), show_header=header is not None, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    lines = [header, *rows] if header else list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
