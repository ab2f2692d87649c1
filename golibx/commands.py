"""The subcommands of `golibx` and their help, for click; golibx.cli runs programs without it.

None of them runs code that ./golib.toml names: a user who reads the help or a list in some folder
has not asked for that. To name a file by --config, GOLIB_PLUGINS_ENABLED and --set do ask.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import sys
from typing import TYPE_CHECKING

import click

from golibx import _core, cli
from golibx.config import DEFAULT_CONFIG, Config, default_config, refuse_unread
from golibx.errors import ConfigError, toml_value
from golibx.runtime import Runtime
from golibx.schema import SCHEMA
from golibx.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, NoReturn

    from golibx.pluginfinder import Found

__all__ = ["group", "main"]

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_CONTEXT = {"help_option_names": ["-h", "--help"]}

config_option = click.option(
    "--config",
    metavar="FILE",
    help="The golib.toml to use; ./golib.toml if there is one.",
    type=click.Path(),
)
set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the configuration, as in preempt.slice=5ms; may be repeated.",
)


timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its answer.",
)


def main(arguments: Sequence[str]) -> NoReturn:
    """The command, without what golibx.cli does itself."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks must not end a dump.
            stream.reconfigure(errors="backslashreplace")
    # What the application raises is none of the command's errors, and ends it as it ends python.
    serve: Callable[[], int] | None = None
    try:
        status = group.main(list(arguments), prog_name="golibx", standalone_mode=False)
        sys.stdout.flush()
        if callable(status):
            serve, status = status, 0
    except click.ClickException as exc:
        exc.show()
        status = exc.exit_code
    except ConfigError as exc:
        cli.report_config_error(exc)
    except click.Abort as exc:
        for note in getattr(exc.__cause__, "__notes__", ()):  # of the KeyboardInterrupt
            click.echo(note, err=True)
        status = cli.INTERRUPT_EXIT_CODE
    except BrokenPipeError:  # its reader has seen enough
        sys.stdout = None
        status = 1
    except OSError as exc:
        if exc.errno not in _UNWRITABLE or exc.filename is not None:
            raise
        sys.stdout = None
        click.echo(f"golibx: can't write the output: {exc.strerror}", err=True)
        status = 1
    sys.exit(status if serve is None else serve())


class _Group(click.Group):
    """golibx's own subcommands, and those that plugins add once another one, or help, is wanted."""

    _asked_plugins = False
    _plugins_failed = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins(ctx)
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._ask_plugins(ctx)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = self._hint(ctx, name)
            raise click.UsageError(f"No such command '{name}'. {hint}".rstrip(), ctx)
        return super().resolve_command(ctx, args)

    def _hint(self, ctx: click.Context, name: str) -> str:
        from difflib import get_close_matches

        if name.endswith(".py") or os.path.exists(name):
            return f"To run it: golibx run {name}"
        if matches := get_close_matches(name, self.commands, n=1):
            return f"Did you mean {matches[0]}?"
        path = ctx.params.get("config")
        if self._plugins_failed:
            text = "It may be one of a plugin that was not loaded, for the reason above"
            return text if path is None else f"{text}; golibx check-config --config {path} has more"
        if path is not None:
            return f"No plugin of {path} adds it: golibx --config {path} --help has the commands"
        if default_config() is not None:
            path = DEFAULT_CONFIG
            return f"Plugins of {path} may add it: golibx --config {path} {name}"
        return ""

    def _ask_plugins(self, ctx: click.Context) -> None:
        if self._asked_plugins:
            return
        self._asked_plugins = True
        config, problems = Config.examine(ctx.params.get("config"))
        if config.plugins.enabled or config.plugins.autoload:
            from golibx.pluginmanager import PluginManager

            PluginManager(config, problems=problems).extend_cli(self)
        # They must not keep a user from reading the help.
        self._plugins_failed = bool(problems)
        for problem in problems:
            for error in problem.errors:
                click.echo(f"golibx: {error}", err=True)


class _RunCommand(click.Command):
    """`golibx run`: cli.parse_run reads its command line; click shows help and usage errors."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell wants to know how a word may go on
            return super().parse_args(ctx, args)
        try:
            run = cli.parse_run([*_inherited(ctx), *args])
        except cli.HelpWanted:
            return super().parse_args(ctx, ["--help"])
        except cli.UsageError as exc:
            raise click.UsageError(str(exc), ctx) from None
        ctx.params["run"] = run
        return []


def _inherited(ctx: click.Context) -> list[str]:
    """The --config of `golibx --config FILE run`, as an argument of run's own."""
    path = None if ctx.parent is None else ctx.parent.params.get("config")
    return [] if path is None else [f"--config={path}"]


def _chosen(config: str | None) -> str | None:
    """The file to use, given the --config of a subcommand."""
    parent = click.get_current_context().parent
    if config is None and parent is not None:
        config = parent.params.get("config")
    return config


@click.group(
    cls=_Group,
    context_settings=_CONTEXT,
    epilog="""\b
Examples:
  golibx run hello.py                     a script, as `python hello.py`
  golibx run -m package --verbose         a module, as `python -m package --verbose`
  golibx run package.module:main          a function
  golibx run -c 'print(1)'                code, as `python -c`
  golibx run --config golib.toml          the program that the file names
  golibx run --set preempt.slice=5ms hello.py
  golibx check-config golib.toml
""",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--config",
    metavar="FILE",
    help="A golib.toml, whose plugins may add commands.",
    type=click.Path(),
    is_eager=True,
)
def group(config: str | None) -> None:
    """Run Python programs on Go's scheduler: goroutines, channels and select.

    Plugins that the FILE of --config enables, or GOLIB_PLUGINS_ENABLED names, may add commands.
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
  golibx run -i hello.py                  and then an interactive console
""",
)
@config_option
@click.option("--no-config", is_flag=True, help="Do not use ./golib.toml.")
@set_option
@click.option("-m", "module", metavar="MODULE", help="Run a module, as `python -m` does.")
@click.option("-c", "code", metavar="CODE", help="Run code, as `python -c` does.")
@click.option("-i", "interactive", is_flag=True, help="An interactive console afterwards.")
@click.argument(
    "program", required=False, metavar="[SCRIPT | MODULE:FUNCTION | -]", type=click.Path()
)
@click.argument("arguments", nargs=-1, type=click.Path(), metavar="[ARGUMENTS]...")
def run_command(run: cli.Run) -> None:
    """Run a program as goroutines.

    Its arguments, exit code, tracebacks and signals are as under `python`. Without a program, the
    one is run that [program] entry of FILE names, or of ./golib.toml. With -i alone there is only
    the console.
    """
    cli.launch(run)


def _serve_options(command: Callable[..., object]) -> Callable[..., object]:
    """An option for each key of [serve] but the application, which is an argument."""
    for key in reversed(next(table.keys for table in SCHEMA if table.name == "serve")):
        if key.name == "app":
            continue
        help_text = key.description.replace("`", "")
        default = ", ".join(key.default) if isinstance(key.default, list) else key.default
        if default != "":
            help_text += f"  [default: {default}]"
        command = click.option(
            f"--{key.name.replace('_', '-')}",
            key.name,
            metavar=_METAVARS.get(key.name, _METAVARS.get(key.kind)),
            multiple=key.kind == "strings",
            help=help_text,
        )(command)
    return command


_METAVARS = {
    "bind": "ADDRESS",
    "access_log": "FILE",
    "int": "N",
    "size": "SIZE",
    "duration": "TIME",
}


@group.command(
    "serve",
    short_help="Serve a WSGI application.",
    epilog="""\b
Examples:
  golibx serve shop:app
  golibx serve 'shop:make_app()' --bind 0.0.0.0:8080 --workers 4
  golibx serve shop.wsgi:application --bind unix:/run/shop.sock --access-log -
  golibx serve --config golib.toml        app in [serve] of the file
  golibx serve shop:app --body-size 10MiB --keep-alive 5s
""",
)
@config_option
@click.option("--no-config", is_flag=True, help="Do not use ./golib.toml.")
@set_option
@_serve_options
@click.argument("app", required=False, metavar="[MODULE:APP]")
def serve_command(
    config: str | None, no_config: bool, overrides: Sequence[str], app: str | None, **options: Any
) -> Callable[[], int]:
    """Serve a WSGI application, with a goroutine for each connection.

    MODULE:APP names it; MODULE:FACTORY() has the function make it. The application is ordinary
    blocking code: what would block a thread parks the goroutine of the request. SIGTERM and SIGINT
    end it when the requests that are being served have ended.

    Each option is a key of [serve] in the configuration as well. A SIZE is such as 10MiB, a TIME
    such as 30s.
    """
    path = _chosen(config)
    if path is not None and no_config:
        raise click.UsageError("--config and --no-config are opposites: give one of them.")
    is_named = path is not None
    if not is_named and not no_config:
        path = default_config()
    given = {"app": app, **options}
    overrides = [*overrides, *(f"serve.{k}={_as_set(v)}" for k, v in given.items() if v)]
    settings = Config.load(path, overrides=overrides)
    _check_served(settings)
    if path is not None and not is_named:
        click.echo(f"golibx: using ./{path}", err=True)
    return lambda: _serve(settings)


def _as_set(value: object) -> str:
    return toml_value(list(value)) if isinstance(value, tuple) else str(value)


def _check_served(settings: Config) -> None:
    """Raises click.UsageError if there is nothing to serve, or nothing to serve it with."""
    from importlib.util import find_spec

    app = settings.serve.app
    if not app:
        raise click.UsageError(
            "There is nothing to serve: name MODULE:APP, or have a golib.toml whose [serve] app "
            "does."
        )
    if find_spec("httptools") is None:
        raise click.ClickException(
            "golibx serve needs httptools, which reads HTTP: pip install 'golibx[serve]'"
        )
    from golibx.serve.application import is_reference

    if not is_reference(app):
        raise click.UsageError(f"{app!r} is not MODULE:APP or MODULE:FACTORY(), such as shop:app")
    if not settings.serve.bind:
        raise click.UsageError("There is nowhere to listen: [serve] bind is empty.")


def _serve(settings: Config) -> int:
    from golibx.serve.launch import ListenError, launch

    try:
        return launch(settings)
    except ConfigError as exc:
        cli.report_config_error(exc)
    except ListenError as exc:
        click.echo(f"golibx: {exc}", err=True)
        return 1


@group.command(
    "check-config",
    short_help="Check a golib.toml.",
    epilog="""\b
Examples:
  golibx check-config golib.toml
  golibx check-config --config golib.toml     loads its plugins too: their code runs
""",
)
@click.argument("file", required=False, type=click.Path())
@click.option(
    "--config",
    metavar="FILE",
    help="The same, and load its plugins to check their tables: their code runs.",
    type=click.Path(),
)
@set_option
def check_config(file: str | None, config: str | None, overrides: Sequence[str]) -> None:
    """Check FILE: its keys and values, its program, its plugins and their tables.

    All that is wrong is said at once. Without FILE it is ./golib.toml.
    """
    config = _chosen(config)
    if file is not None and config is not None:
        raise click.UsageError("Name the file once: as FILE, or by --config.")
    path = file or config or DEFAULT_CONFIG
    settings, problems = Config.examine(path, overrides=overrides)
    program = cli.configured_program(settings) if settings.program.entry else None
    if program is not None:
        problems += cli.missing_program(settings, program)
    if config is None:
        found, skipped = check_plugins_unloaded(path, overrides, settings, problems)
    else:
        found, _ = _look_for_plugins(settings, problems)
        skipped = []
        if all(problem.key for problem in problems):
            _enter_path(settings)
            _check_plugins(settings, problems)
    if problems:
        cli.report_config_error(each_once(problems))
    click.echo(f"{path}: ok")
    names = {plugin.name for plugin in found}
    for name in settings.plugin_table_names():
        if name not in names:
            click.echo(f"{path}: note: [plugins.{name}] is not used: no plugin {name} is enabled")
    for plugin in skipped:
        more = f"golibx check-config --config {path} loads it to check its table"
        click.echo(f"{path}: note: plugin {plugin.name} was found and not loaded: {more}")


def each_once(problems: list[ConfigError]) -> ConfigError:
    """What can't be found can't be loaded either, and is said once, with its reason if any."""
    each: dict[str, ConfigError] = {}
    for error in (error for problem in problems for error in problem.errors):
        if error.__cause__ is not None or str(error) not in each:
            each[str(error)] = error
    return ConfigError.of([*each.values()])


def _own_directory(config: Config) -> str:
    """Where the program finds the modules beside it, and so the plugins among them."""
    return cli.configured_program(config).own_directory() if config.program.entry else os.curdir


def _enter_path(config: Config) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = _own_directory(config)


def _look_for_plugins(
    config: Config, problems: list[ConfigError]
) -> tuple[list[Found], list[Found]]:
    """The plugins that `config` enables, and those of them that it takes running code to check."""
    from golibx.pluginfinder import find, installed_names

    # Not on sys.path, where golibx itself would find modules that lie there.
    path = sys.path if sys.flags.safe_path else [_own_directory(config), *sys.path]
    found = []
    autoloaded = installed_names() if config.plugins.autoload else []
    for reference in dict.fromkeys((*config.plugins.enabled, *autoloaded)):
        try:
            found.append(find(reference, config, path))
        except ConfigError as exc:
            problems.append(exc)
    return found, [plugin for plugin in found if plugin.origin != "built-in"]


def check_plugins_unloaded(
    path: str, overrides: Sequence[str], settings: Config, problems: list[ConfigError]
) -> tuple[list[Found], list[Found]]:
    """What can be told of plugins without running code of others: see _look_for_plugins."""
    found, skipped = _look_for_plugins(settings, problems)
    names = ",".join(plugin.name for plugin in found if plugin.origin == "built-in")
    only = [f"plugins.enabled={names}", "plugins.autoload=false"]
    config, _ = Config.examine(path, overrides=[*overrides, *only])
    _check_plugins(config, problems)
    return found, skipped


def _check_plugins(config: Config, problems: list[ConfigError]) -> None:
    """Loads them and has them look at their tables."""
    try:
        Runtime(config)
    except ConfigError as exc:
        problems += exc.errors


@group.command(
    "plugins",
    short_help="List the plugins that there are, or what they take.",
    epilog="""\b
Examples:
  golibx plugins
  golibx plugins --config golib.toml
  golibx plugins --stats 1234             the time that each hook took in process 1234
  golibx plugins --stats 1234 --json
""",
)
@config_option
@set_option
@click.option(
    "--stats", "pid", metavar="PID", type=int, help="Show what the plugins of this process take."
)
@click.option("--json", "as_json", is_flag=True, help="With --stats: a JSON object, on one line.")
@timeout_option
def plugins_command(
    config: str | None, overrides: Sequence[str], pid: int | None, as_json: bool, timeout: float
) -> None:
    """List the plugins that there are, and which of them are enabled.

    Those that only ./golib.toml enables are not loaded, which would run their code: with --config
    they are, and their hooks are shown.

    With --stats it is the plugins of process PID, which is in a golibx run: how often each hook was
    called, how long that took, and the share of the time since the run began. Only its own user and
    root may ask.
    """
    if pid is not None:
        if config is not None or overrides:
            raise click.UsageError("--stats is about a process, which has its configuration.")
        _show_plugin_stats(pid, as_json=as_json, timeout=timeout)
        return
    if as_json:
        raise click.UsageError("--json is for --stats PID.")
    _list_plugins(config, overrides)


@contextlib.contextmanager
def _refusals_told() -> Iterator[None]:
    """What a process refuses, or why it cannot be asked, ends the command with that message."""
    from golibx.dump import DumpError

    try:
        yield
    except DumpError as exc:
        raise click.ClickException(str(exc)) from None


def _show_plugin_stats(pid: int, *, as_json: bool, timeout: float) -> None:
    from golibx import control
    from golibx.dump import printable

    with _refusals_told():
        found = control.plugins(pid, timeout=timeout)
    if as_json:
        import json

        click.echo(json.dumps(found))
        return
    if not found:
        click.echo(f"process {pid} has no plugins")
        return
    rows = []
    for name, plugin in found.items():
        shown = printable(name, lines=False)
        rows.append((shown, f"{plugin['share']:.2f}%", plugin["state"], *[""] * 6))
        for hook, times in plugin["hooks"].items():
            calls, total_ns = times["calls"], times["total_ns"]
            numbers = (calls, total_ns, total_ns // max(calls, 1), times["longest_ns"])
            present = str(times["present_ns"] or "")
            rows.append(("", "", "", hook, *map(str, numbers), present))
    header = ("plugin", "share", "state", "hook", "calls", "total_ns", "mean_ns", "longest_ns")
    _show_table((*header, "present_ns"), rows)


def _list_plugins(config: str | None, overrides: Sequence[str]) -> None:
    from golibx.pluginfinder import builtin_names, installed_names
    from golibx.pluginmanager import PluginManager

    config = _chosen(config)
    path = config or default_config()
    settings, problems = Config.examine(path, overrides=overrides)
    try:
        refuse_unread(problems)
        # What another source than that file names, the user does.
        trusted = config is not None or not any(
            settings.origin(key).startswith("file")
            for key in ("plugins.enabled", "plugins.autoload")
        )
        found, _ = _look_for_plugins(settings, problems)
        if trusted:
            _enter_path(settings)
        manager = PluginManager(settings if trusted else _builtin_only(), problems=problems)
        if problems:
            raise each_once(problems)
    except ConfigError as exc:
        cli.report_config_error(exc)
    hooks = {plugin.name: ", ".join(manager.hooks_of(plugin)) for plugin in manager.plugins}
    builtin = PluginManager(_builtin_only())
    for plugin in builtin.plugins:
        hooks.setdefault(plugin.name, ", ".join(builtin.hooks_of(plugin)))
    enabled = {plugin.name: plugin for plugin in found}
    rows = [
        (plugin.name, plugin.origin, "yes", hooks.get(plugin.name, "(not loaded)"))
        for plugin in enabled.values()
    ]
    for origin, names in (("built-in", builtin_names()), ("installed", installed_names())):
        rows += [(n, origin, "no", hooks.get(n, "(not loaded)")) for n in names if n not in enabled]
    _show_table(("plugin", "origin", "enabled", "hooks"), sorted(rows))
    if path is not None:
        click.echo(f"\nconfiguration: {path}")
        if not trusted:
            click.echo(f"(its plugins are not loaded: golibx plugins --config {path} does)")


def _builtin_only() -> Config:
    from golibx.pluginfinder import builtin_names

    return Config.from_mapping({"plugins": {"enabled": builtin_names()}}, environ={})


@group.command(
    "config",
    short_help="Show the settings and where they come from.",
    epilog="""\b
Examples:
  golibx config --show
  golibx config --show --config golib.toml --set preempt.slice=5ms
  golibx config --show | grep -v '# default'
""",
)
@config_option
@set_option
@click.option("--show", is_flag=True, help="Print each value, and where it comes from.")
def config_command(config: str | None, overrides: Sequence[str], show: bool) -> None:
    """Say which golib.toml is used here; with --show, each setting and where it comes from.

    That is the default, the file, the environment or the command line. What is printed is TOML.
    """
    path = _chosen(config) or default_config()
    try:
        settings = Config.load(path, overrides=overrides)
    except ConfigError as exc:
        cli.report_config_error(exc)
    if not show:
        click.echo(path or f"no file: there is no ./{DEFAULT_CONFIG}")
        return
    rows = [(f"{s.path} = {s.value}", f"# {s.origin}") for s in settings.settings()]
    width = max(len(setting) for setting, _ in rows if len(setting) < 60)
    for setting, origin in rows:
        click.echo(f"{setting.ljust(width)}  {origin}")


@group.command(
    "dump",
    short_help="Show what the goroutines of a process do.",
    epilog="""\b
Examples:
  golibx dump 1234
  golibx dump $(pgrep -f server.py)
  golibx dump 1234 --json | jq '.goroutines[] | select(.waited_ns > 1e9)'
  kill -QUIT 1234                         prints the same to its stderr, and ends it
""",
)
@click.argument("pid", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, on one line.")
@timeout_option
def dump_command(pid: int, as_json: bool, timeout: float) -> None:
    """Show the goroutines of process PID, which is in a golibx run: what each does and where.

    Works for a process that hangs, too: if its interpreter does not answer within a second, the
    process says what can be told without it; but not with --json. Only its own user and root may
    ask.
    """
    from golibx import dump

    with _refusals_told():
        if as_json:
            import json

            from golibx import control

            click.echo(json.dumps({"pid": pid, **control.goroutines(pid, timeout=timeout)}))
            return
        click.echo(dump.request(pid, timeout=timeout), nl=False)


@group.command(
    "tune",
    short_help="Show and change how the scheduler of a process works.",
    epilog="""\b
Examples:
  golibx tune 1234                        what can be changed: values and ranges
  golibx tune 1234 preempt.slice=2ms
  golibx tune 1234 preempt.slice=2ms runtime.gomaxprocs=8
""",
)
@click.argument("pid", type=int)
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@timeout_option
def tune_command(pid: int, changes: Sequence[str], timeout: float) -> None:
    """Show what can be changed in process PID, which is in a golibx run; or change it.

    Keys and values are as in golib.toml. Several are changed together, or none of them. They hold
    until the run ends. Only the process's own user and root may do this.
    """
    from golibx import control
    from golibx.rules import KEYS, written

    wanted = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{change!r} is not KEY=VALUE, such as preempt.slice=2ms")
        wanted[key.strip()] = value.strip()
    with _refusals_told():
        if wanted:
            before = control.tune(pid, wanted, timeout=timeout)
            for key, old in before.items():
                click.echo(f"{key} = {wanted[key]}  # was {_written(key, old)}")
            return
        found = control.stats(pid, timeout=timeout)
    rows = [
        (key, str(written(key, value)), str(written(key, _default_of(key))), KEYS[key].allowed)
        for key, value in found["tunables"].items()
        if key in KEYS
    ]
    _show_table(("key", "value", "default", "allowed"), rows)
    _say_if_stuck(pid, found)


def _written(key: str, value: int) -> str:
    from golibx.rules import KEYS, written

    return str(written(key, value) if key in KEYS else value)


def _default_of(key: str) -> int:
    from golibx.rules import KEYS, read_number

    return read_number(KEYS[key], KEYS[key].default)


def _say_if_stuck(pid: int, found: Mapping[str, object]) -> None:
    if found["interpreter"]:
        return
    click.echo(
        f"golibx: the interpreter of process {pid} has not answered: C code holds its lock, and "
        f"`golibx dump {pid}` says which. This was read without it",
        err=True,
    )


@group.command(
    "stats",
    short_help="Show the counters of a process.",
    epilog="""\b
Examples:
  golibx stats 1234
  golibx stats 1234 --json | jq .stats.goroutines
""",
)
@click.argument("pid", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, on one line.")
@timeout_option
def stats_command(pid: int, as_json: bool, timeout: float) -> None:
    """Show the counters of process PID, which is in a golibx run, as golibx.stats() has them.

    The latencies are those since the process was first asked, unless it measured them before: how
    long goroutines that were ready to run waited for their turn.
    """
    from golibx import control

    with _refusals_told():
        found = control.stats(pid, timeout=timeout)
    if as_json:
        import json

        click.echo(json.dumps({"pid": pid, **found}))
        return
    rows = [(name, str(value)) for name, value in found["stats"].items()]
    for name, value in found.get("latency", {}).items():
        shown = "not measured yet" if value is None else str(value)
        rows.append((f"latency_{name}", shown))
    _show_table(None, rows)
    _say_if_stuck(pid, found)


@group.command(
    "trace",
    short_help="Show what a trace says, or have a process write one.",
    epilog="""\b
Examples:
  golibx run --set plugins.enabled=trace server.py    writes golibx-trace.json
  golibx trace golibx-trace.json                      what it says
  golibx trace golibx-trace.json --svg trace.svg      and a picture of it
  golibx trace golibx-trace.json --convert t.json     for viewers, if its process was killed
  golibx trace --flight 1234                          the last seconds of process 1234
""",
)
@click.argument("file", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, on one line.")
@click.option("--svg", metavar="OUT", type=click.Path(), help="Draw the busiest goroutines in OUT.")
@click.option(
    "--convert",
    metavar="OUT",
    type=click.Path(),
    help="Write in OUT, for viewers, what FILE says, whose process was killed or goes on.",
)
@click.option(
    "--flight", "pid", metavar="PID", type=int, help="Have this process write its last seconds."
)
@timeout_option
def trace_command(
    file: str | None,
    as_json: bool,
    svg: str | None,
    convert: str | None,
    pid: int | None,
    timeout: float,
) -> None:
    """Show what FILE says, which the plugin trace has written.

    That is: what goroutines waited for and how long, which ones ran longest without giving way,
    blocking calls, how long it took to the first turn. The file itself can be looked at with
    https://ui.perfetto.dev or chrome://tracing, when its run has ended. With --convert that can be
    done with the file of a process that was killed.

    With --flight, process PID, whose plugin trace has mode = "flight", writes its last seconds, and
    the path of that file is printed. Only its own user and root may ask.
    """
    if (file is None) == (pid is None):
        raise click.UsageError("Name either a FILE, or a process by --flight PID.")
    if file is None:
        if as_json or svg is not None or convert is not None:
            raise click.UsageError(
                "--json, --svg and --convert are for a FILE; --flight has one written."
            )
        from golibx import control

        with _refusals_told():
            click.echo(control.trace(pid or 0, timeout=timeout))
        return
    from golibx import tracefile

    try:
        found = tracefile.summary(file)
        if convert is not None:
            tracefile.convert(file, convert)
        if svg is not None:
            _write_picture(svg, tracefile.picture(file, found))
    except tracefile.TraceFileError as exc:
        raise click.ClickException(str(exc)) from None
    if as_json:
        import json

        click.echo(json.dumps(found.shown()))
        return
    click.echo(tracefile.text(found), nl=False)


def _write_picture(path: str, picture: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as out:
            out.write(picture)
    except OSError as exc:
        raise click.ClickException(f"{path}: can't be written: {exc.strerror}") from None


@group.command(
    "profile",
    short_help="Take a profile of a process.",
    epilog="""\b
Examples:
  golibx profile 1234 --seconds 10 -o cpu.pb.gz
  go tool pprof -top cpu.pb.gz            or -http=: for a flame graph
  golibx profile 1234 --kind block --format speedscope -o waits.speedscope.json
""",
)
@click.argument("pid", type=int)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01, max=86400),
    default=10.0,
    show_default=True,
    help="How long.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="The file to write; golibx-KIND.pb.gz or golibx-KIND.speedscope.json.",
)
@click.option(
    "--kind",
    type=click.Choice(("cpu", "block", "mutex", "leak")),
    default="cpu",
    show_default=True,
    help="What of: computing, waiting, waiting for locks, or goroutines that wait for ever.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(("pprof", "speedscope")),
    default="pprof",
    show_default=True,
    help="What the file is for.",
)
@click.option(
    "--hz",
    type=click.IntRange(10, 1000),
    default=100,
    show_default=True,
    help="Samples a second, of a CPU profile.",
)
@timeout_option
def profile_command(
    pid: int,
    seconds: float,
    output: str | None,
    kind: str,
    format_: str,
    hz: int,
    timeout: float,
) -> None:
    """Take a profile of process PID, which is in a golibx run, and print the path of the file.

    The process need not have been started with the plugin profile. Only its own user and root may
    do this. Ctrl-C gives the profile up.
    """
    from golibx import control

    extension = ".pb.gz" if format_ == "pprof" else ".speedscope.json"
    path = output or f"golibx-{kind}{extension}"
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        problem = "it is a folder" if os.path.isdir(path) else f"no access to {folder}"
        raise click.ClickException(f"{path}: can't be written: {problem}")
    with (
        _refusals_told(),
        _progress(f"{kind} profile of {pid}", seconds, shown=kind != "leak") as progress,
    ):
        data = control.profile(
            pid,
            seconds,
            kind=kind,
            format_=format_,
            hz=hz,
            timeout=timeout,
            progress=progress,
        )
    from golibx.plugins.profile import write

    try:
        write(path, data)
    except OSError as exc:
        raise click.ClickException(f"{path}: can't be written: {exc.strerror}") from None
    click.echo(path)


@contextlib.contextmanager
def _progress(what: str, seconds: float, *, shown: bool) -> Iterator[Callable[[float], object]]:
    """A bar on stderr if that is a terminal; what it gives takes the seconds that have passed."""
    if not (shown and sys.stderr.isatty()):
        yield bool
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=seconds)
        yield lambda passed: bar.update(task, completed=min(passed, seconds))


@group.command(
    "top",
    short_help="Watch what a process does.",
    epilog="""\b
Examples:
  golibx top 1234                         q quits; w, r, s and i order the goroutines
  golibx top 1234 --sort run              who runs for longest: takes a CPU profile meanwhile
  golibx top 1234 --once --sort state     one look, as text
""",
)
@click.argument("pid", type=int)
@click.option("--once", is_flag=True, help="Print one look and end, as if there is no terminal.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(("wait", "run", "state", "id")),
    default="wait",
    show_default=True,
    help="How goroutines are ordered: the longest wait first, who runs for longest first, by what "
    "they do, by number.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="The time between two looks.",
)
@timeout_option
def top_command(pid: int, once: bool, order: str, interval: float, timeout: float) -> None:
    """Watch process PID, which is in a golibx run: its goroutines, latencies, switches and more.

    Only its own user and root may ask.
    """
    from golibx import top

    with _refusals_told():
        if once or not top.is_live():
            top.once(pid, order, interval, timeout)
        else:
            top.watch(pid, order, interval, timeout)


@group.command(
    "ps",
    short_help="List the processes that are in a golibx run.",
    epilog="""\b
Examples:
  golibx ps
  golibx dump $(golibx ps | awk '/server.py/ {print $1}')
""",
)
@timeout_option
def ps_command(timeout: float) -> None:
    """List the processes that are in a golibx run and can be asked: what each runs, and its size.

    Those of other users are listed with a ? for what they do not say.
    """
    from golibx import control
    from golibx.dump import DumpError, printable

    rows = []
    with _refusals_told():
        pids = control.processes()
    for pid in pids:
        try:
            found = control.stats(pid, timeout=timeout)
        except DumpError as exc:
            rows.append((str(pid), "?", "?", f"({exc})"))
            continue
        counters = found["stats"]
        program = "(its interpreter is stuck)" if not found["interpreter"] else found["program"]
        shown = printable(str(program), lines=False)
        rows.append((str(pid), str(counters["goroutines"]), str(counters["threads"]), shown))
    _show_table(("pid", "goroutines", "threads", "program"), rows)


@group.command(
    "info",
    short_help="Show versions and active mechanisms.",
    epilog="""\b
Examples:
  golibx info
  golibx info --patched                   what `golibx run` would make park goroutines
  cc -I$(golibx info --include) -c program.c
  python -m golibx.include --help         all that a C compiler may want to know
""",
)
@click.option("--include", "show_include", is_flag=True, help="Print only golibx.h's folder.")
@click.option("--library", "show_library", is_flag=True, help="Print only the library's path.")
@click.option(
    "--patched",
    "show_patched",
    is_flag=True,
    help="Print what golibx run makes park goroutines, and why not where it can't.",
)
def info_command(show_include: bool, show_library: bool, show_patched: bool) -> None:
    """Show versions, the platform, and which mechanisms are active and why not otherwise."""
    if show_patched:
        _show_patched()
        return
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


def _show_patched() -> None:
    import ssl  # noqa: F401 - or it would be shown as left for later

    from golibx.patch import stdlib

    before = set(_core.replaced())
    stdlib.patch_all()
    by_module: dict[str, list[str]] = {}
    for name in sorted(set(_core.replaced()) - before):
        module, _, path = name.partition(".")
        by_module.setdefault(_MODULES.get(module, module), []).append(path)
    rows = [
        (module, state, ", ".join(by_module.get(module, [])))
        for module, state in stdlib.patched().items()
    ]
    _show_table(("module", "state", "functions"), rows)


_MODULES = {
    "_io": "io",
    "_queue": "queue",
    "_socket": "socket",
    "_ssl": "ssl",
    "_thread": "threading",
    "posix": "os",
}


def _native_rows() -> list[tuple[str, str]]:
    """Whether the native runtime works here, found out by a call."""
    import ctypes

    from golibx import native

    try:
        native.call(ctypes.CDLL(native.library()).golibx_gosched)
    except RuntimeError as exc:
        return [("native_runtime", f"none ({exc})")]
    return [("native_runtime", "works")]


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
