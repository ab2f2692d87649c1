"""The configuration of a run: where its values come from, and what they end up as.

What can be set is golibx.schema's subject. A value comes from, each overriding the ones before it:

1. the default;
2. the file, golib.toml;
3. the environment: GOLIB_SECTION_KEY, and as in Go GOMAXPROCS; GOLIB_ASYNCPREEMPT_OFF=1 stands for
   preempt.async = false;
4. overrides: `--set section.key=value`.

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
    from collections.abc import Iterable, Mapping
    from typing import Final

    from golibx.schema import (
        Debug,
        Hooks,
        Netpoll,
        Plugins,
        Preempt,
        Program,
        Retake,
        Runtime,
        Stack,
        Sysmon,
    )

__all__ = ["Config", "Key", "Section"]

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


def _plain_path(dotted: str) -> str:
    return ".".join(part.strip(" \t\"'") for part in dotted.split("."))


class _Source:
    """Where values come from.

    Attributes:
        name: for messages; empty for defaults and mappings.
        directory: what relative paths are relative to.
        text: the text of the file, to find a key's line in; empty when there is none.
        is_text: whether the values are strings, yet to be read as what their key's kind says.
    """

    __slots__ = ("directory", "is_text", "name", "text")

    def __init__(self, name: str, directory: str, text: str = "", *, is_text: bool = False) -> None:
        self.name = name
        self.directory = directory
        self.text = text
        self.is_text = is_text

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
        for table in SCHEMA:
            for key in table.keys:
                self.set(table, key, key.default, self.default)

    def set(self, table: Table, key: Key, value: object, source: _Source) -> None:
        path = f"{table.name}.{key.name}"
        self.values[path] = _checked(key, path, value, source)
        self.written[path] = value
        self.sources[path] = source

    def add_mapping(self, mapping: Mapping[str, object], source: _Source) -> None:
        for name, content in mapping.items():
            table = _TABLES.get(name)
            if table is None:
                nearest = _nearest(name, _TABLES) or _nearest_key(name)
                problem = "unknown table" if isinstance(content, dict) else "unknown key"
                raise source.error(problem, name, None, ", ".join(_TABLES), nearest)
            if not isinstance(content, dict):
                raise source.error(f"not a table: write [{name}]", name, content)
            known = {key.name: key for key in table.keys}
            for key_name, value in content.items():
                key = known.get(key_name)
                if key is not None:
                    self.set(table, key, value, source)
                elif name == "plugins" and isinstance(value, dict):
                    self.plugin_tables[key_name] = dict(value)
                    self.sources[f"plugins.{key_name}"] = source
                else:
                    raise _unknown_key(table, key_name, value, source)

    def add_environment(self, environ: Mapping[str, str], directory: str) -> None:
        # Go ignores a GOMAXPROCS that is no positive number, and so must a program whose neighbour
        # is written in Go.
        procs = environ.get("GOMAXPROCS", "")
        if procs.isascii() and procs.isdigit() and int(procs) > 0:
            source = _Source("GOMAXPROCS", directory, is_text=True)
            self._set_text("runtime.gomaxprocs", procs, source)
        for variable in sorted(environ):
            table_name, _, key_name = variable.removeprefix("GOLIB_").lower().partition("_")
            if variable.startswith("GOLIB_") and table_name in _TABLES:
                source = _Source(variable, directory, is_text=True)
                self._set_text(f"{table_name}.{key_name}", environ[variable], source)
        if environ.get("GOLIB_ASYNCPREEMPT_OFF") == "1":
            source = _Source("GOLIB_ASYNCPREEMPT_OFF", directory, is_text=True)
            self._set_text("preempt.async", "false", source)

    def add_override(self, override: str, directory: str) -> None:
        path, equals, value = override.partition("=")
        source = _Source("--set", directory, is_text=True)
        path = path.strip()
        if not equals or "." not in path:
            problem = f"{toml_value(override)} is not section.key=value"
            raise source.error(problem, nearest=_nearest_key(path))
        parts = path.split(".")
        if parts[0] == "plugins" and len(parts) > 2:
            table: dict[str, object] = self.plugin_tables.setdefault(parts[1], {})
            for part in parts[2:-1]:
                inner = table.get(part)
                table[part] = inner = dict(inner) if isinstance(inner, dict) else {}
                table = inner
            table[parts[-1]] = literal = toml_literal(value)
            is_text = isinstance(literal, str)
            self.sources[path] = _Source("--set", directory, is_text=is_text)
        else:
            self._set_text(path, value, source)

    def _set_text(self, path: str, text: str, source: _Source) -> None:
        table_name, _, key_name = path.partition(".")
        table = _TABLES.get(table_name)
        if table is None:
            raise source.error("unknown table", path, text, ", ".join(_TABLES), _nearest_key(path))
        for key in table.keys:
            if key.name == key_name:
                return self.set(table, key, text, source)
        raise _unknown_key(table, key_name, text, source)

    def check(self) -> None:
        """The rules that one key alone can't show."""
        self._check_order("sysmon.sleep_min", "sysmon.sleep_max")
        self._check_order("retake.threshold", "retake.threshold_idle")
        for path in ("stack.size", "stack.main_size"):
            if self._number(path) % _PAGE_SIZE:
                page = format_size(_PAGE_SIZE)
                raise self._error(path, f"not a multiple of the page size ({page})")
        native_size = self._number("stack.native_size")
        if native_size & (native_size - 1):
            example = f"such as {format_size(1 << native_size.bit_length())}"
            raise self._error("stack.native_size", "not a power of two", example)
        ring_size = self._number("hooks.ring_size")
        if ring_size & (ring_size - 1):
            example = f"such as {1 << ring_size.bit_length()}"
            raise self._error("hooks.ring_size", "not a power of two", example)
        if self.values["netpoll.backend"] == "epoll" and sys.platform != "linux":
            raise self._error("netpoll.backend", "not available on this platform", '"auto"')

    def _check_order(self, smaller: str, larger: str) -> None:
        if self._number(smaller) > self._number(larger):
            # Blame the one that was set: the other may be a default that nobody thought of.
            set_by_user = self.sources[larger] is not self.default
            blamed, limit, relation = (
                (larger, smaller, "less") if set_by_user else (smaller, larger, "more")
            )
            bound = format_duration(self._number(limit))
            raise self._error(blamed, f"{relation} than {limit}, which is {bound}")

    def _number(self, path: str) -> int:
        value = self.values[path]
        assert isinstance(value, int)
        return value

    def _error(self, path: str, problem: str, allowed: str = "") -> ConfigError:
        return self.sources[path].error(problem, path, self.written[path], allowed)


def _checked(key: Key, path: str, value: object, source: _Source) -> object:
    try:
        return parse_value(key, value, source.directory, is_text=source.is_text)
    except ValueError as exc:
        nearest = None
        if key.kind == "choice" and isinstance(value, str):
            nearest = _nearest(value, key.choices)
        raise source.error(str(exc), path, value, key.allowed, nearest) from None


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
        "netpoll",
        "path",
        "plugins",
        "preempt",
        "program",
        "retake",
        "runtime",
        "stack",
        "sysmon",
    )
    path: str | None
    directory: str
    program: Program
    runtime: Runtime
    sysmon: Sysmon
    preempt: Preempt
    retake: Retake
    netpoll: Netpoll
    stack: Stack
    debug: Debug
    hooks: Hooks
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
            ConfigError: the file can't be read or is not TOML, or a key or value is not allowed.
        """
        if path is None:
            return cls._build({}, _Source("", current_directory()), None, overrides, environ)
        name = os.fspath(path)
        full_path = os.path.abspath(name)
        text = _read(name)
        source = _Source(name, os.path.dirname(full_path), text)
        return cls._build(_parse_toml(text, name), source, full_path, overrides, environ)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, object],
        *,
        overrides: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """As load, with the tables given as nested dicts: {"preempt": {"slice": "5ms"}}."""
        return cls._build(mapping, _Source("", current_directory()), None, overrides, environ)

    @classmethod
    def _build(
        cls,
        mapping: Mapping[str, object],
        source: _Source,
        path: str | None,
        overrides: Iterable[str],
        environ: Mapping[str, str] | None,
    ) -> Config:
        here = current_directory()
        builder = _Builder(source.directory)
        builder.add_mapping(mapping, source)
        builder.add_environment(os.environ if environ is None else environ, here)
        for override in overrides:
            builder.add_override(override, here)
        builder.check()
        return cls(builder, path, source.directory)

    def core_options(self) -> dict[str, int]:
        """The options of the native core: nanoseconds, bytes, counts, and 0 or 1."""
        options = {"event_mask": 0}
        for table in SCHEMA:
            section = getattr(self, table.name)
            for key in table.keys:
                if key.option:
                    options[key.option] = int(getattr(section, key.attribute))
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
            ConfigError: a key is not among `keys`, or its value not what its Key allows.
        """
        prefix = f"plugins.{name}"
        table = self.plugin_table(name)
        known = {key.name: key for key in keys}
        for key_name, value in table.items():
            if key_name not in known:
                nearest = _nearest(key_name, known)
                raise self.error(
                    f"{prefix}.{key_name}",
                    "unknown key",
                    value=value,
                    allowed=", ".join(known) or "none, this plugin has no settings",
                    nearest=f"{prefix}.{nearest}" if nearest else None,
                )
        return Section(
            {
                key.attribute: _checked(
                    key,
                    f"{prefix}.{key_name}",
                    table.get(key_name, key.default),
                    self._source_of(f"{prefix}.{key_name}"),
                )
                for key_name, key in known.items()
            }
        )

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


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode()
    except OSError as exc:
        raise ConfigError(f"can't read it: {exc.strerror}", source=path) from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"not TOML: not UTF-8 text, at byte {exc.start}", source=path) from None


def _parse_toml(text: str, path: str) -> dict[str, object]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        raise ConfigError(
            f"not TOML: {exc.msg}", source=path, line=exc.lineno, column=exc.colno
        ) from None
