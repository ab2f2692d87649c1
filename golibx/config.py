"""The configuration of a run: where its values come from, and what they end up as.

What can be set is golibx.schema's subject. A value comes from, each overriding the ones before it:

1. the default;
2. the file, golib.toml;
3. the environment: GOLIB_SECTION_KEY, and as in Go GOMAXPROCS; GOLIB_ASYNCPREEMPT_OFF=1 stands for
   preempt.async = false; nothing of it under `python -E` and `-I`;
4. overrides: `--set section.key=value`.

All mistakes are found before one ConfigError is raised for all of them.

Relative paths in the file are relative to the file's directory, others to the current directory.
tomli and difflib are imported only when a file is read and when a name is misspelt.
"""

from __future__ import annotations

import os
import sys
from types import MappingProxyType

from golibx.errors import ConfigError, toml_value
from golibx.schema import SCHEMA, Key, Section, Table
from golibx.values import current_directory, format_duration, format_size, parse_value, toml_literal

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Final

    from golibx.schema import (
        Debug,
        Hooks,
        Native,
        Netpoll,
        Patch,
        Plugins,
        Preempt,
        Program,
        Retake,
        Runtime,
        Serve,
        Stack,
        Sysmon,
        Tune,
    )

__all__ = [
    "DEFAULT_CONFIG",
    "Config",
    "Key",
    "Section",
    "Setting",
    "default_config",
    "refuse_unread",
]

DEFAULT_CONFIG = "golib.toml"
"""The name of a configuration where the user names none."""


def default_config() -> str | None:
    """The golib.toml that is used when none is named: the current directory's, if there is one.

    None under `python -P` and `-I`, for which what happens to lie there does not count.
    """
    if sys.flags.safe_path or not os.path.exists(DEFAULT_CONFIG):
        return None
    return DEFAULT_CONFIG


_TABLES: Final = {table.name: table for table in SCHEMA}
_PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return matches[0] if matches else None


def _nearest_key(path: str) -> str | None:
    """The known key most like `path`: of the same name in another table, or nearly spelt so."""
    paths = [f"{table.name}.{key.name}" for table in SCHEMA for key in table.keys]
    same_name = [known for known in paths if known.partition(".")[2] == path.rpartition(".")[2]]
    return _nearest(path, same_name) or (same_name[0] if same_name else _nearest(path, paths))


def _line_of(text: str, path: str) -> int | None:
    """The line of a TOML text that sets key or table `path`, from 1; None when it can't be told.

    The parser gives no positions, so this reads headers and `key =` line by line: right for what
    people write, and only for messages.
    """
    outer, bracket, indexed = path.partition("[")
    if bracket:
        index, _, rest = indexed.partition("]")
        return _line_in_list(text, outer, int(index), rest.removeprefix("."))
    table = ""
    found = None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("["):
            name = table = _plain_path(line.strip("[").partition("]")[0])
        elif "=" in line and not line.startswith("#"):
            name = f"{table}.{_plain_path(line.partition('=')[0])}".lstrip(".")
        else:
            continue
        if name == path:
            return number
        # `[path.more]` and `path.more = 1` show where table `path` is, and `start = { … }` where
        # the key `start.key` is.
        is_outer = path.startswith(f"{name}.") and name != table
        if found is None and (is_outer or name.startswith(f"{path}.")):
            found = number
    return found


def _line_in_list(text: str, path: str, index: int, rest: str) -> int | None:
    """The same in item `index`, from 1, of a list of tables, each under a header `[[path]]`."""
    lines = text.splitlines()
    starts = [
        number
        for number, line in enumerate(lines)
        if line.strip().startswith("[[") and _plain_path(line.strip().strip("[]")) == path
    ]
    if index > len(starts):
        return _line_of(text, path)
    start = starts[index - 1]
    # Up to the next header, but for those of the item's own tables.
    inner = []
    for line in lines[start + 1 :]:
        if line.strip().startswith("["):
            header = _plain_path(line.strip().strip("[]"))
            if not header.startswith(f"{path}."):
                break
            line = f"[{header.removeprefix(f'{path}.')}]"
        inner.append(line)
    found = _line_of("\n".join(inner), rest) if rest else None
    return start + 1 + (found or 0)


def _plain_path(dotted: str) -> str:
    return ".".join(part.strip(" \t\"'") for part in dotted.split("."))


class _Source:
    """Where values come from.

    Attributes:
        name: for messages; empty for defaults and mappings.
        directory: what relative paths are relative to.
        text: the text of the file, to find a key's line in; empty when there is none.
        is_text: whether the values are strings, yet to be read as what their key's kind says.
        kind: what it is, in words.
    """

    __slots__ = ("directory", "is_text", "kind", "name", "text")

    def __init__(
        self,
        name: str,
        directory: str,
        text: str = "",
        *,
        kind: str = "default",
        is_text: bool = False,
    ) -> None:
        self.name = name
        self.directory = directory
        self.text = text
        self.kind = kind
        self.is_text = is_text

    @classmethod
    def variable(cls, name: str, directory: str) -> _Source:
        """An environment variable."""
        return cls(name, directory, kind="environment", is_text=True)

    def place(self, key: str) -> str:
        """Where `key` was set, in words."""
        line = _line_of(self.text, key) if self.text else None
        where = ":".join(str(part) for part in (self.name, line) if part)
        return f"{self.kind} {where}".rstrip()

    def error(
        self,
        problem: str,
        key: str = "",
        value: object = None,
        allowed: str = "",
        nearest: str | None = None,
    ) -> ConfigError:
        line = _line_of(self.text, key) if self.text and key else None
        return ConfigError(
            problem,
            key=key,
            value=value,
            allowed=allowed,
            nearest=nearest,
            source=self.name,
            line=line,
        )


class _Builder:
    """Collects the values, source by source."""

    def __init__(self, directory: str) -> None:
        self.default = _Source("", directory)
        self.values: dict[str, object] = {}
        self.written: dict[str, object] = {}
        self.sources: dict[str, _Source] = {}
        self.plugin_tables: dict[str, dict[str, object]] = {}
        self.problems: list[ConfigError] = []
        for table in SCHEMA:
            for key in table.keys:
                self.set(table, key, key.default, self.default)

    def set(self, table: Table, key: Key, value: object, source: _Source) -> None:
        path = f"{table.name}.{key.name}"
        try:
            self.values[path] = _checked(key, path, value, source)
        except ConfigError as exc:
            self.problems.append(exc)
            return
        self.written[path] = value
        self.sources[path] = source

    def add_mapping(self, mapping: Mapping[str, object], source: _Source) -> None:
        for name, content in mapping.items():
            name = str(name)
            table = _TABLES.get(name)
            if table is None:
                nearest = _nearest(name, _TABLES) or _nearest_key(name)
                problem = "unknown table" if isinstance(content, dict) else "unknown key"
                error = source.error(problem, name, None, ", ".join(_TABLES), nearest)
                self.problems.append(error)
                continue
            if not isinstance(content, dict):
                self.problems.append(source.error(f"not a table: write [{name}]", name, content))
                continue
            known = {key.name: key for key in table.keys}
            for key_name, value in content.items():
                key = known.get(key_name)
                if key is not None:
                    self.set(table, key, value, source)
                elif name == "plugins" and isinstance(value, dict):
                    self.plugin_tables[key_name] = dict(value)
                    self.sources[f"plugins.{key_name}"] = source
                else:
                    self.problems.append(_unknown_key(table, str(key_name), value, source))

    def add_environment(self, environ: Mapping[str, str], directory: str) -> None:
        if procs := environ.get("GOMAXPROCS"):
            self._set_text("runtime.gomaxprocs", procs, _Source.variable("GOMAXPROCS", directory))
        for variable in sorted(environ):
            if not variable.startswith(("GOLIB_", "GOLIBX_")) or variable == _ASYNCPREEMPT_OFF:
                continue
            prefix, _, path = variable.partition("_")
            table_name, _, key_name = path.lower().partition("_")
            source = _Source.variable(variable, directory)
            if prefix == "GOLIB" and table_name in _TABLES:
                self._set_text(f"{table_name}.{key_name}", environ[variable], source)
            elif meant := _variable_meant(prefix, path):
                problem = "no setting of golibx: its variables begin with GOLIB_"
                value = toml_value(environ[variable])
                error = source.error(f"{value}: {problem}", nearest=meant)
                self.problems.append(error)
        off = environ.get(_ASYNCPREEMPT_OFF, "")
        source = _Source.variable(_ASYNCPREEMPT_OFF, directory)
        if off == "1":
            self._set_text("preempt.async", "false", source)
        elif off not in ("", "0"):
            problem = "1 turns preemption off, 0 does nothing"
            self.problems.append(source.error(f"{toml_value(off)}: {problem}", allowed="0, 1"))

    def add_override(self, override: str, directory: str) -> None:
        path, equals, value = override.partition("=")
        source = _Source("--set", directory, kind="command line", is_text=True)
        path = path.strip()
        if not equals or "." not in path:
            problem = f"{toml_value(override)} is not section.key=value"
            self.problems.append(source.error(problem, nearest=_nearest_key(path)))
            return
        parts = path.split(".")
        if parts[0] == "plugins" and len(parts) > 2:
            table: dict[str, object] = self.plugin_tables.setdefault(parts[1], {})
            for part in parts[2:-1]:
                inner = table.get(part)
                table[part] = inner = dict(inner) if isinstance(inner, dict) else {}
                table = inner
            table[parts[-1]] = literal = toml_literal(value)
            source.is_text = isinstance(literal, str)
            self.sources[path] = source
        else:
            self._set_text(path, value, source)

    def _set_text(self, path: str, text: str, source: _Source) -> None:
        table_name, _, key_name = path.partition(".")
        table = _TABLES.get(table_name)
        if table is None:
            allowed = ", ".join(_TABLES)
            error = source.error("unknown table", path, text, allowed, _nearest_key(path))
            self.problems.append(error)
            return
        for key in table.keys:
            if key.name == key_name:
                self.set(table, key, text, source)
                return
        self.problems.append(_unknown_key(table, key_name, text, source))

    def check(self) -> None:
        """The rules that one key alone can't show; not where one is wrong already."""
        for table in SCHEMA:
            for key in table.keys:
                if key.at_most:
                    self._check_order(f"{table.name}.{key.name}", f"{table.name}.{key.at_most}")
        for path in ("stack.size", "stack.main_size"):
            if self._number(path) % _PAGE_SIZE:
                page = format_size(_PAGE_SIZE)
                self._add_problem(path, f"not a multiple of the page size ({page})")
        native_size = self._number("stack.native_size")
        if native_size & (native_size - 1):
            example = f"such as {format_size(1 << native_size.bit_length())}"
            self._add_problem("stack.native_size", "not a power of two", example)
        ring_size = self._number("hooks.ring_size")
        if ring_size & (ring_size - 1):
            example = f"such as {1 << ring_size.bit_length()}"
            self._add_problem("hooks.ring_size", "not a power of two", example)
        self._check_rules()
        if self.values["netpoll.backend"] == "epoll" and sys.platform != "linux":
            self._add_problem("netpoll.backend", "not available on this platform", '"auto"')

    def _check_rules(self) -> None:
        """Rules keep within the limits, which plugins' authors do not know."""
        limits = self.values["tune.limits"]
        rules = self.values["tune.rules"]
        if not limits or not rules:
            return
        from golibx.rules import beyond

        for where, value, allowed in beyond(rules, limits):
            path = f"tune.rules{where}"
            problem = "beyond what [tune] limits says"
            source = self.sources["tune.rules"]
            self.problems.append(source.error(problem, path, value, allowed))

    def _check_order(self, smaller: str, larger: str) -> None:
        if any(problem.key in (smaller, larger) for problem in self.problems):
            return
        if self._number(smaller) > self._number(larger):
            # Blame the one that was set: the other may be a default that the user did not think of.
            set_by_user = self.sources[larger] is not self.default
            blamed, limit, relation = (
                (larger, smaller, "less") if set_by_user else (smaller, larger, "more")
            )
            bound = format_duration(self._number(limit))
            self._add_problem(blamed, f"{relation} than {limit}, which is {bound}")

    def _number(self, path: str) -> int:
        value = self.values[path]
        assert isinstance(value, int)
        return value

    def _add_problem(self, path: str, problem: str, allowed: str = "") -> None:
        error = self.sources[path].error(problem, path, self.written[path], allowed)
        self.problems.append(error)


_ASYNCPREEMPT_OFF: Final = "GOLIB_ASYNCPREEMPT_OFF"


def _variable_meant(prefix: str, path: str) -> str | None:
    """The variable of golibx's that PREFIX_PATH is most likely a misspelling of, if of any."""
    variables = [f"{table.name}_{key.name}".upper() for table in SCHEMA for key in table.keys]
    variables += [_ASYNCPREEMPT_OFF.removeprefix("GOLIB_"), "GOMAXPROCS"]
    for known in variables:
        if path.upper() == known:
            return known if known == "GOMAXPROCS" else f"GOLIB_{known}"
    if prefix == "GOLIBX" and path.lower().partition("_")[0] in _TABLES:
        return f"GOLIB_{path.upper()}"
    from difflib import get_close_matches

    matches = get_close_matches(path.upper(), variables, n=1, cutoff=0.8)
    return f"GOLIB_{matches[0]}" if matches else None


class Setting:
    """One setting of a Config, for people to read.

    Attributes:
        path: the key, such as "preempt.slice".
        value: its value, as it would be written in golib.toml.
        origin: where it came from: "default", "file golib.toml:7", "environment GOLIB_DEBUG_LEAKS",
            "command line --set", "argument".
    """

    __slots__ = ("origin", "path", "value")

    def __init__(self, path: str, value: str, origin: str) -> None:
        self.path = path
        self.value = value
        self.origin = origin


def _written(key: Key, value: object) -> str:
    """The value of a Section, in TOML."""
    if key.kind == "duration":
        assert isinstance(value, int)
        return toml_value(format_duration(value))
    if key.kind == "size":
        assert isinstance(value, int)
        return toml_value(format_size(value))
    if key.kind in ("limits", "rules"):
        from golibx.rules import as_written

        return toml_value(as_written(value))
    return toml_value(value)


def _checked(key: Key, path: str, value: object, source: _Source) -> object:
    if key.kind in ("limits", "rules"):
        return _checked_tuning(key, path, value, source)
    try:
        return parse_value(key, value, source.directory, is_text=source.is_text)
    except ValueError as exc:
        nearest = None
        if key.kind == "choice" and isinstance(value, str):
            nearest = _nearest(value, key.choices)
        raise source.error(str(exc), path, value, key.allowed, nearest) from None


def _checked_tuning(key: Key, path: str, value: object, source: _Source) -> object:
    """What [tune] says. Most runs have nothing of it."""
    if source.is_text:
        value = toml_literal(str(value))
    if value == key.default:
        return MappingProxyType({}) if key.kind == "limits" else ()
    from golibx import rules

    parse = rules.parse_limits if key.kind == "limits" else rules.parse_rules
    try:
        return parse(value, path)
    except ConfigError as exc:
        located = [
            source.error(each.problem, each.key, each.value, each.allowed, each.nearest)
            for each in exc.errors
        ]
        raise ConfigError.of(located) from None


def _unknown_key(table: Table, name: str, value: object, source: _Source) -> ConfigError:
    allowed = ", ".join(key.name for key in table.keys)
    if table.name == "plugins":
        allowed += ", and a table for each plugin"
    path = f"{table.name}.{name}"
    return source.error("unknown key", path, value, allowed, _nearest_key(path))


class Config:
    """A checked configuration, read-only: a Section for each table, as in config.preempt.slice_ns.

    Made by Config.load and Config.from_mapping.

    Attributes:
        path: absolute path of the file, or None when there was none.
        directory: absolute directory that relative paths in the file are relative to; without a
            file the current directory at the time of loading.
    """

    __slots__ = (
        "_plugin_tables",
        "_sources",
        "debug",
        "directory",
        "hooks",
        "native",
        "netpoll",
        "patch",
        "path",
        "plugins",
        "preempt",
        "program",
        "retake",
        "runtime",
        "serve",
        "stack",
        "sysmon",
        "tune",
    )
    path: str | None
    directory: str
    program: Program
    runtime: Runtime
    sysmon: Sysmon
    preempt: Preempt
    retake: Retake
    netpoll: Netpoll
    native: Native
    stack: Stack
    patch: Patch
    serve: Serve
    debug: Debug
    hooks: Hooks
    tune: Tune
    plugins: Plugins
    _plugin_tables: dict[str, dict[str, object]]
    _sources: dict[str, _Source]

    def __init__(self, builder: _Builder, path: str | None, directory: str) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("path", path)
        put("directory", directory)
        put("_plugin_tables", builder.plugin_tables)
        put("_sources", builder.sources)
        for table in SCHEMA:
            values = {
                key.attribute: builder.values[f"{table.name}.{key.name}"] for key in table.keys
            }
            put(table.name, table.view(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"can't set {name!r}: a configuration is read-only")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"can't delete {name!r}: a configuration is read-only")

    def __repr__(self) -> str:
        return f"<Config of {self.path or 'no file'}>"

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        overrides: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """The configuration of a run.

        Args:
            path: the golib.toml to read; None for none.
            overrides: "section.key=value" strings, applied last.
            environ: the environment variables; None for the process's own.

        Raises:
            ConfigError: the file can't be read or is not TOML, or keys or values are not allowed.
        """
        config, problems = cls.examine(path, overrides=overrides, environ=environ)
        if problems:
            raise ConfigError.of(problems)
        return config

    @classmethod
    def examine(
        cls,
        path: str | os.PathLike[str] | Mapping[str, object] | None = None,
        *,
        overrides: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> tuple[Config, list[ConfigError]]:
        """As load, with the mistakes beside what is right: a wrong value is as if not set.

        Tables may be given in place of a file's path, as nested dicts.
        """
        if path is None:
            return cls._build({}, _Source("", current_directory()), None, overrides, environ)
        if not isinstance(path, str | os.PathLike):
            source = _Source("", current_directory(), kind="argument")
            return cls._build(path, source, None, overrides, environ)
        name = os.fspath(path)
        full_path = os.path.abspath(name)
        mapping: dict[str, object] = {}
        text = ""
        problems = []
        try:
            text = _read(name)
            mapping = _parse_toml(text, name)
        except ConfigError as exc:
            problems.append(exc)
        source = _Source(name, os.path.dirname(full_path), text, kind="file")
        config, others = cls._build(mapping, source, full_path, overrides, environ)
        return config, problems + others

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, object],
        *,
        overrides: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """As load, with the tables given as nested dicts: {"preempt": {"slice": "5ms"}}."""
        config, problems = cls.examine(mapping, overrides=overrides, environ=environ)
        if problems:
            raise ConfigError.of(problems)
        return config

    @classmethod
    def _build(
        cls,
        mapping: Mapping[str, object],
        source: _Source,
        path: str | None,
        overrides: Iterable[str],
        environ: Mapping[str, str] | None,
    ) -> tuple[Config, list[ConfigError]]:
        here = current_directory()
        if environ is None:
            environ = {} if sys.flags.ignore_environment else os.environ
        builder = _Builder(source.directory)
        builder.add_mapping(mapping, source)
        builder.add_environment(environ, here)
        for override in overrides:
            builder.add_override(override, here)
        builder.check()
        return cls(builder, path, source.directory), builder.problems

    def settings(self) -> list[Setting]:
        """Every setting with its value and where that came from; plugins' tables as written."""
        found = []
        for table in SCHEMA:
            section = getattr(self, table.name)
            for key in table.keys:
                path = f"{table.name}.{key.name}"
                value = _written(key, getattr(section, key.attribute))
                found.append(Setting(path, value, self._sources[path].place(path)))
        for name, content in self._plugin_tables.items():
            for key_name, given in content.items():
                path = f"plugins.{name}.{key_name}"
                found.append(Setting(path, toml_value(given), self._source_of(path).place(path)))
        return found

    def origin(self, path: str) -> str:
        """Where the value of a key, such as "preempt.slice", came from, as Setting.origin."""
        return self._source_of(path).place(path)

    def core_options(self) -> dict[str, int]:
        """The options of the native core: nanoseconds, bytes, counts, 0 or 1, and which choice."""
        options = {"event_mask": 0}
        for table in SCHEMA:
            section = getattr(self, table.name)
            for key in table.keys:
                if key.option:
                    value = getattr(section, key.attribute)
                    options[key.option] = key.choices.index(value) if key.choices else int(value)
        return options

    def plugin_table_names(self) -> list[str]:
        """The names for which there is a table [plugins.NAME]."""
        return list(self._plugin_tables)

    def plugin_table(self, name: str) -> Mapping[str, object]:
        """The table [plugins.NAME] as it was written, read-only; empty if there is none."""
        return MappingProxyType(self._plugin_tables.get(name, {}))

    def plugin(self, name: str, keys: Iterable[Key] = ()) -> Section:
        """The table [plugins.NAME] as a Section: checked against `keys`, defaults filled in.

        Raises:
            ConfigError: keys are not among `keys`, or their values not what their Key allows.
        """
        prefix = f"plugins.{name}"
        table = self.plugin_table(name)
        known = {key.name: key for key in keys}
        problems = []
        for key_name, value in table.items():
            if key_name not in known:
                nearest = _nearest(key_name, known)
                error = self.error(
                    f"{prefix}.{key_name}",
                    "unknown key",
                    value=value,
                    allowed=", ".join(known) or "none, this plugin has no settings",
                    nearest=f"{prefix}.{nearest}" if nearest else None,
                )
                problems.append(error)
        values = {}
        for key_name, key in known.items():
            path = f"{prefix}.{key_name}"
            source = self._source_of(path) if key_name in table else _Source("", self.directory)
            given = table.get(key_name, key.default)
            try:
                values[key.attribute] = _checked(key, path, given, source)
            except ConfigError as exc:
                problems.append(exc)
        if problems:
            raise ConfigError.of(problems)
        return Section(values)

    def error(
        self,
        key: str,
        problem: str,
        *,
        value: object = None,
        allowed: str = "",
        nearest: str | None = None,
    ) -> ConfigError:
        """A ConfigError about `key` that says where the key was set: to be raised by the caller.

        For what only the user of a value can find out, such as a plugin whose file can't be
        written: raise config.error("plugins.trace.output", "can't be written", value=path).
        """
        return self._source_of(key).error(problem, key, value, allowed, nearest)

    def _source_of(self, path: str) -> _Source:
        table_path = ".".join(path.split(".")[:2])
        sources = self._sources
        return sources.get(path) or sources.get(table_path) or _Source("", self.directory)


def refuse_unread(problems: Sequence[ConfigError]) -> None:
    """Raises them if one is about a whole file: what else that says is unknown."""
    if any(not problem.key for problem in problems):
        raise ConfigError.of(problems)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            # Some editors begin a file with a byte order mark.
            return file.read().decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"can't read it: {exc.strerror}", source=path) from None
    except ValueError as exc:
        if isinstance(exc, UnicodeDecodeError):
            problem = f"not TOML: not UTF-8 text, at byte {exc.start}"
        else:  # a null byte in the path
            problem = f"can't read it: {exc}"
        raise ConfigError(problem, source=path) from None


def _parse_toml(text: str, path: str) -> dict[str, object]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        raise ConfigError(
            f"not TOML: {exc.msg}", source=path, line=exc.lineno, column=exc.colno
        ) from None
    except RecursionError:
        raise ConfigError("not TOML that can be read: nested too deeply", source=path) from None
