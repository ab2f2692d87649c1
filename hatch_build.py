"""The build of the native library, for wheels, for editable installs and for the Makefile.

hatchling calls BuildHook for each wheel. `python hatch_build.py` builds the library for this
machine and puts it into golibx/, as an editable install does, without the rest of the install.

Two environment variables change what is built:
    GOLIBX_ZIG_OPTIMIZE   fast (the default), debug, safe or small
    GOLIBX_ZIG_TARGET     a target of TARGETS: a wheel for another platform

Zig keeps its cache in build/, so that the next build compiles only what changed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
HEADER = ROOT / "zsrc" / "golibx.h"
OPTIMIZE_MODES = ("fast", "debug", "safe", "small")


class Target(NamedTuple):
    """A platform that golibx is built for."""

    triple: str
    platform_tag: str
    library: str


TARGETS = {
    target.triple: target
    for target in (
        Target("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", "_core.abi3.so"),
        Target("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", "_core.abi3.so"),
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
        library = build_library(target)
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{target.platform_tag}"
        if version == "editable":
            put_into_tree(library)
        else:
            build_data["force_include"][str(library)] = f"golibx/{target.library}"
            build_data["force_include"][str(HEADER)] = f"golibx/include/{HEADER.name}"


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


def build_library(target: Target) -> Path:
    """Builds the library and returns its path, in build/."""
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
    prefix = ROOT / "build" / "zig" / f"{target.triple}-{optimize}"
    command = [sys.executable, "-m", "ziglang", "build"]
    command += [f"-Dtarget={target.triple}", f"-Doptimize={optimize}"]
    command += ["--prefix", str(prefix), "--cache-dir", str(ROOT / "build" / "zig-cache")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(
            f"{result.stdout}{result.stderr}\n"
            f"golibx: the native library does not compile for {target.triple}; the reason is "
            f"above. Zig's command, run in {ROOT}, was:\n    {' '.join(command)}"
        )
    return prefix / "lib" / target.library


def put_into_tree(library: Path) -> None:
    """Puts the library into golibx/, in one step: a process that uses the old one keeps it."""
    destination = ROOT / "golibx" / library.name
    new = destination.with_name(library.name + ".new")
    shutil.copyfile(library, new)
    new.chmod(0o755)
    new.replace(destination)


if __name__ == "__main__":
    put_into_tree(build_library(chosen_target()))
