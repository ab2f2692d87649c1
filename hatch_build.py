"""The build of the native library, for wheels, for editable installs and for the Makefile.

hatchling calls BuildHook for each wheel. `python hatch_build.py` builds the library for this
machine and puts it into golibx/, as an editable install does, without the rest of the install.

Two environment variables change what is built:
    GOLIBX_ZIG_OPTIMIZE   fast (the default), debug, safe or small
    GOLIBX_ZIG_TARGET     a target of TARGETS: a wheel for another platform

The library stays in build/, and is compiled again when its sources have changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent
HEADER = ROOT / "zsrc" / "golibx.h"
VERSION = ROOT / "golibx" / "version.py"
SCHEMA = ROOT / "golibx" / "schema.py"
CACHE = ROOT / "build" / "zig-cache"
ZIG = (sys.executable, "-m", "ziglang")
OPTIMIZE_MODES = ("fast", "debug", "safe", "small")


class Target(NamedTuple):
    """A platform that golibx is built for."""

    triple: str
    platform_tag: str
    library: str

    @property
    def import_library(self) -> str:
        """What a C program is linked with instead of the library; "" where it is with that."""
        return "_core.lib" if "windows" in self.triple else ""


TARGETS = {
    target.triple: target
    for target in (
        Target("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", "_core.abi3.so"),
        Target("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", "_core.abi3.so"),
        Target("x86_64-linux-musl", "musllinux_1_2_x86_64", "_core.abi3.so"),
        Target("aarch64-linux-musl", "musllinux_1_2_aarch64", "_core.abi3.so"),
        Target("x86_64-macos.11.0", "macosx_11_0_x86_64", "_core.abi3.so"),
        Target("aarch64-macos.11.0", "macosx_11_0_arm64", "_core.abi3.so"),
        Target("x86_64-windows-gnu", "win_amd64", "_core.pyd"),
        Target("aarch64-windows-gnu", "win_arm64", "_core.pyd"),
    )
}

_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_SYSTEMS = {"linux": "linux-gnu.2.17", "darwin": "macos.11.0", "win32": "windows-gnu"}


class BuildError(SystemExit):
    """The library cannot be built; the message says what to do about it."""


class BuildHook(BuildHookInterface[Any]):
    """Builds the library and has hatchling put it into the wheel, under the right tag.

    golibx.h goes with it; in an editable install, golibx.include finds it in zsrc.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is made; `version` is "editable" for an editable install."""
        target = chosen_target()
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{target.platform_tag}"
        if version == "editable":
            put_into_tree(build_library(target))
            return
        library = build_library(target, to_ship=True)
        included = build_data["force_include"]
        included[str(library)] = f"golibx/{target.library}"
        included[str(HEADER)] = f"golibx/include/{HEADER.name}"
        if target.import_library:
            made = library.with_name(target.import_library)
            included[str(made)] = f"golibx/include/{target.import_library}"


def chosen_target() -> Target:
    """The target that GOLIBX_ZIG_TARGET names, or this machine's."""
    if "free-threading" in sys.version:
        raise BuildError(
            "golibx: free-threaded builds of Python are not supported, since they have no stable "
            "ABI. Install golibx with one that has its global lock."
        )
    triple = os.environ.get("GOLIBX_ZIG_TARGET") or host_triple()
    if triple not in TARGETS:
        raise BuildError(
            f"golibx: cannot build for {triple!r}. "
            f"Set GOLIBX_ZIG_TARGET to one of: {', '.join(TARGETS)}"
        )
    return TARGETS[triple]


def host_triple() -> str:
    """This machine's target, in Zig's words; what golibx does not support is not in TARGETS."""
    machine = platform.machine().lower()
    system = _SYSTEMS.get(sys.platform, sys.platform)
    if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        system = "linux-musl"
    return f"{_MACHINES.get(machine, machine)}-{system}"


def build_library(target: Target, *, to_ship: bool = False) -> Path:
    """Builds the library and returns its path, in build/.

    One `to_ship` has no symbols but those that it exports, which are five sixths of it, unless its
    mode is one that finds faults.
    """
    optimize = os.environ.get("GOLIBX_ZIG_OPTIMIZE") or "fast"
    if optimize not in OPTIMIZE_MODES:
        raise BuildError(
            f"golibx: there is no mode {optimize!r}. "
            f"Set GOLIBX_ZIG_OPTIMIZE to one of: {', '.join(OPTIMIZE_MODES)}"
        )
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(
            "golibx: the native library is compiled by the Python package ziglang, which is not "
            "installed here. Leave out --no-build-isolation, or install what [build-system] in "
            "pyproject.toml requires."
        )
    folder = ROOT / "build" / "zig" / f"{target.triple}-{optimize}"
    folder.mkdir(parents=True, exist_ok=True)
    strip = to_ship and optimize in ("fast", "small")
    if "linux" in target.triple:
        with locked(folder):
            return build_directly(target, optimize, folder, strip=strip)
    if strip:
        folder /= "stripped"
    command = [*ZIG, "build", f"-Dtarget={target.triple}", f"-Doptimize={optimize}"]
    command += ["-Dstrip"] if strip else []
    command += ["--prefix", str(folder), "--cache-dir", str(CACHE)]
    zig(command, target)
    return folder / "lib" / target.library


def build_directly(target: Target, optimize: str, folder: Path, *, strip: bool) -> Path:
    """Compiles and links without build.zig: to compile that takes longer than the library does.

    Nothing is done where the library is of these sources; what is stripped is linked of the same
    object. The commands are those that build.zig
    makes, but for the compiler of a debug build: Zig's own backend for x86-64 takes 3 s, LLVM 30.
    """
    version = folder / "version.zig"
    unlinked = folder / "golibx.o"
    product = folder / "stripped" if strip else folder
    library = product / target.library
    quick = optimize == "debug" and target.triple.startswith("x86_64")
    common = ["-target", target.triple, f"-O{optimize}", "--name", "golibx", "-lc"]
    common += ["--cache-dir", str(CACHE)]
    # A module's options are those before its -M.
    compile_command = [*ZIG, "build-obj", *common, "-mcpu", "baseline", "-fPIC"]
    compile_command += ["-fno-llvm" if quick else "-fllvm", "-fno-omit-frame-pointer"]
    compile_command += ["-fno-strip"] if optimize == "debug" else []
    compile_command += ["--dep", "version", "--dep", "schema"]
    compile_command += [f"-Mroot={ROOT / 'zsrc' / 'root.zig'}"]
    compile_command += [f"-Mversion={version}", f"-Mschema={SCHEMA}", f"-femit-bin={unlinked}"]
    link_command = [*ZIG, "build-lib", *common, "-dynamic", "-fallow-shlib-undefined"]
    link_command += ["-fstrip"] if strip else []
    link_command += [f"-fsoname={target.library}", str(unlinked), f"-femit-bin={library}"]

    text = f'pub const text: [:0]const u8 = "{own_version()}";\n'
    words = [*compile_command, metadata.version("ziglang"), text]
    with made_of(words, unlinked) as outdated:
        if outdated:
            version.write_text(text)
            zig(compile_command, target)
    product.mkdir(exist_ok=True)
    with made_of(words + link_command, library) as outdated:
        if outdated:
            zig(link_command, target)
    return library


@contextmanager
def made_of(words: list[str], product: Path) -> Iterator[bool]:
    """Whether a file has to be made anew: it is of other sources, or by other commands.

    After the block it is of these, unless that raises.
    """
    note = product.with_name(f"{product.name}.inputs")
    digest = digest_of(words)
    if product.exists() and note.exists() and note.read_text() == digest:
        yield False
        return
    note.unlink(missing_ok=True)
    yield True
    note.write_text(digest)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One build at a time works in the folder; others wait. Not on Windows, which has no flock."""
    try:
        from fcntl import LOCK_EX, flock
    except ImportError:
        yield
        return
    with open(folder / "lock", "w") as lock:
        flock(lock, LOCK_EX)
        yield


def digest_of(words: list[str]) -> str:
    """Of those and of all sources of the library's."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in [*sorted((ROOT / "zsrc").rglob("*.*")), SCHEMA]:
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def own_version() -> str:
    """What golibx/version.py says."""
    found = re.search(r'^__version__ = "(.*)"$', VERSION.read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"golibx: {VERSION} says no version")
    return found[1]


def zig(command: list[str], target: Target) -> None:
    """Runs a command of the compiler's."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(
            f"{result.stdout}{result.stderr}\n"
            f"golibx: the native library does not compile for {target.triple}; the reason is "
            f"above. Zig's command, run in {ROOT}, was:\n    {' '.join(command)}"
        )


def put_into_tree(library: Path) -> None:
    """Puts the library into golibx/, in one step: a process that uses the old one keeps it."""
    destination = ROOT / "golibx" / library.name
    new = destination.with_name(library.name + ".new")
    shutil.copyfile(library, new)
    new.chmod(0o755)
    new.replace(destination)


if __name__ == "__main__":
    put_into_tree(build_library(chosen_target()))
