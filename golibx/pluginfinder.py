"""Where plugins are found, and how they are loaded.

An item of `[plugins] enabled` is the name of a plugin that comes with golibx or that an installed
package offers, a module, an object of one, or a file. find() says which plugin that is without
running anything of it; Loader loads it. The same plugin by two of these names is loaded once.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from inspect import ismodule
from typing import TYPE_CHECKING, Any, NamedTuple

from golibx.values import is_file_reference, is_missing, split_file_reference

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from importlib.metadata import EntryPoints
    from types import ModuleType

    from golibx.config import Config
    from golibx.errors import ConfigError

__all__ = ["Found", "Loader", "Plugin", "builtin_names", "find", "installed_names", "nearest"]

ENTRY_POINT_GROUP = "golibx"


class Plugin(NamedTuple):
    """A plugin that was loaded."""

    name: str
    """What it is called in messages, and its table [plugins.NAME]."""
    origin: str
    """Where it came from, in words: "built-in", "installed", "module …" or a file's path."""
    object: Any
    """What has the hooks: a module or an instance."""


class Found(NamedTuple):
    """A plugin that exists, as far as can be told without loading it."""

    name: str
    """As Plugin.name."""
    origin: str
    """As Plugin.origin."""


def find(reference: str, config: Config, path: Sequence[str] | None = None) -> Found:
    """What an item of `[plugins] enabled` refers to; nothing is loaded.

    Args:
        reference: the item.
        config: the configuration.
        path: where modules are looked for; None for sys.path.

    Raises:
        ConfigError: there is no such plugin.
    """
    try:
        if is_file_reference(reference):
            file, attribute = split_file_reference(reference)
            if not os.path.isfile(file):
                raise _NotFoundError("there is no such file")
            return Found(attribute or _stem(file), file)
        module_name, colon, attribute = reference.partition(":")
        if not colon:
            if reference in builtin_names():
                return Found(reference, "built-in")
            if reference in installed_names():
                return Found(reference, "installed")
        if not _is_module(module_name, path):
            raise _not_found(reference)
        return Found((attribute or module_name).rpartition(".")[2], f"module {module_name}")
    except _NotFoundError as exc:
        raise _error(reference, config, exc) from None


def _is_module(name: str, path: Sequence[str] | None) -> bool:
    """Whether there is a module of that name; its packages are not imported to find out."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        full_name = ".".join(parts[:count])
        spec = PathFinder.find_spec(full_name, path)
        if spec is None:
            others = (BuiltinImporter, FrozenImporter)
            return count == 1 == len(parts) and any(o.find_spec(full_name) for o in others)
        if count < len(parts) and spec.submodule_search_locations is None:
            return False
        path = list(spec.submodule_search_locations or ())
    return True


class Loader:
    """Loads the plugins of one run, each once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._modules: dict[str, ModuleType] = {}
        """By the files that they were loaded from."""
        self._loaded: dict[Hashable, str] = {}
        """The name of each plugin, by what tells it from others."""

    def load(self, reference: str) -> Plugin | None:
        """The plugin that an item of `[plugins] enabled` refers to; None if it is loaded already.

        Raises ConfigError.
        """
        config = self._config
        try:
            name, origin, thing = self._found(reference)
            identity = _identity(thing)
            if identity in self._loaded:
                return None
            self._loaded[identity] = name
            return Plugin(name, origin, thing() if isinstance(thing, type) else thing)
        except _NotFoundError as exc:
            raise _error(reference, config, exc) from None
        except KeyboardInterrupt as exc:  # Ctrl-C, as far as golibx knows
            exc.add_note(f"golibx: plugin {reference} was being loaded")
            raise
        except BaseException as exc:
            # Whatever the plugin's module or class does when it is imported or created.
            problem = f"can't be loaded: {type(exc).__name__}" + (f": {exc}" if str(exc) else "")
            raise config.error("plugins.enabled", problem, value=reference) from exc

    def _found(self, reference: str) -> tuple[str, str, object]:
        """The plugin's name, its origin, and what has its hooks or makes that."""
        if is_file_reference(reference):
            path, attribute = split_file_reference(reference)
            return attribute or _stem(path), path, _offered(self._file(path), attribute)
        module_name, colon, attribute = reference.partition(":")
        if colon:
            module = self._module(module_name)
            if module is None:
                raise _NotFoundError(f"there is no module {module_name}")
            name = attribute.rpartition(".")[2]
            return name, f"module {module_name}", _offered(module, attribute)
        if "." not in reference:
            module = _import(f"golibx.plugins.{reference}")
            if module is not None:
                return reference, "built-in", _offered(module)
        for entry_point in _entry_points().select(name=reference):
            return reference, "installed", _offered(entry_point.load())
        module = self._module(reference)
        if module is None:
            raise _not_found(reference)
        return reference.rpartition(".")[2], f"module {reference}", _offered(module)

    def _file(self, path: str) -> ModuleType:
        if not os.path.isfile(path):
            raise _NotFoundError("there is no such file")
        file = os.path.realpath(path)
        if file in self._modules:
            return self._modules[file]
        module_name = f"golibx_plugin_{_stem(path)}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise _NotFoundError("this is not a Python file")
        module = importlib.util.module_from_spec(spec)
        # As an import does: dataclasses, pickle and typing look a class's module up here.
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
        self._modules[file] = module
        return module

    def _module(self, name: str) -> ModuleType | None:
        """The module; None if there is none."""
        if name not in sys.modules and "." not in name:
            spec = PathFinder.find_spec(name)
            if spec is not None and spec.origin is not None:
                known = self._modules.get(os.path.realpath(spec.origin))
                if known is not None:
                    return known
        module = _import(name)
        file = getattr(module, "__file__", None)
        if module is not None and file is not None:
            self._modules[os.path.realpath(file)] = module
        return module


def _identity(thing: object) -> Hashable:
    """Equal for what is the same plugin: the same module, class or object."""
    if ismodule(thing) or isinstance(thing, type):
        module = thing if ismodule(thing) else sys.modules.get(thing.__module__)
        file = getattr(module, "__file__", None)
        if file is not None:
            return os.path.realpath(file), getattr(thing, "__qualname__", "")
    return id(thing)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


class _NotFoundError(Exception):
    """No plugin of that name; the text says where it was looked for."""


def _not_found(reference: str) -> _NotFoundError:
    module_name, colon, _ = reference.partition(":")
    if colon:
        return _NotFoundError(f"there is no module {module_name}")
    return _NotFoundError(
        "there is no built-in plugin, no installed one (entry point of group "
        f"{ENTRY_POINT_GROUP}) and no module of this name"
    )


def _error(reference: str, config: Config, exc: _NotFoundError) -> ConfigError:
    known = [*builtin_names(), *installed_names()]
    return config.error(
        "plugins.enabled",
        str(exc),
        value=reference,
        nearest=None if is_file_reference(reference) else nearest(reference, known),
    )


def builtin_names() -> list[str]:
    """The names of the plugins that come with golibx."""
    import pkgutil

    import golibx.plugins

    names = (module.name for module in pkgutil.iter_modules(golibx.plugins.__path__))
    return sorted(name for name in names if not name.startswith("_"))  # what they share


def installed_names() -> list[str]:
    """The names of the plugins that installed packages offer, by entry points of group golibx."""
    return sorted(_entry_points().names)


def _entry_points() -> EntryPoints:
    # Slow to import and to scan, hence only when a name is neither a file nor built in.
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINT_GROUP)


def _import(name: str) -> ModuleType | None:
    """The module, or None if it does not exist. Raises what it raises when it is imported."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if is_missing(name, exc):
            return None
        raise


def _offered(thing: object, attribute: str = "") -> object:
    """What a module, class or object offers as a plugin: itself, its attribute, or its Plugin."""
    for part in attribute.split(".") if attribute else ():
        if not hasattr(thing, part):
            raise _NotFoundError(f"there is no {part} in it")
        thing = getattr(thing, part)
    return getattr(thing, "Plugin", thing) if ismodule(thing) else thing


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Of the known names the one most like `name`."""
    from difflib import get_close_matches

    matches = get_close_matches(name, list(known), n=1)
    return matches[0] if matches else None
