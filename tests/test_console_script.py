"""golibx as its users have it: the console script that an installation brings.

The script is `__main__` when it begins, as `python -m golibx` is not, and its arguments, its path
and its exit code are what a shell sees.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

GOLIBX = Path(sysconfig.get_path("scripts")) / ("golibx.exe" if os.name == "nt" else "golibx")
Result = subprocess.CompletedProcess[str]


def execute(command: list[str | Path], folder: Path, variables: dict[str, str]) -> Result:
    own = {name: text for name, text in os.environ.items() if not name.startswith("GOLIB")}
    return subprocess.run(
        command,
        cwd=folder,
        env={**own, **variables},
        text=True,
        timeout=60,
        capture_output=True,
        check=False,
    )


def golibx(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Result:
    return execute([GOLIBX, *arguments], folder, env or {})


NO_FRAMES = {
    "syntax error": ("x = = 1\n", "SyntaxError: invalid syntax"),
    "null byte": ("x = '\0'\n", "null bytes"),
    "encoding": ("# coding: no-such\n", "unknown encoding: no-such"),
    "not UTF-8": ("\udcff\n", "SyntaxError"),
    "indentation": ("if 1:\nx = 1\n", "IndentationError"),
}


@pytest.mark.parametrize("name", NO_FRAMES)
def test_an_error_without_frames_of_the_program(tmp_path: Path, name: str) -> None:
    """The interpreter ended with a use of what was not held any more, until 3.12."""
    text, message = NO_FRAMES[name]
    (tmp_path / "program.py").write_text(text, errors="surrogateescape")
    result = golibx(tmp_path, "run", "program.py")
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    assert message in result.stderr
    assert "golibx/" not in result.stderr


def test_a_program_that_has_no_frames_because_it_has_no_code(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "folder").mkdir()
    assert golibx(tmp_path, "run", "empty.py").returncode == 0
    for arguments in (["folder"], ["none.py"], ["-m", "none"]):
        result = golibx(tmp_path, "run", *arguments)
        assert result.returncode in (1, 2), result.stderr


# ---- what runs code, and what does not ----

EVIL = """\
print("evil has run")
from golibx.hookspec import hookimpl
@hookimpl
def golib_configure(config): print("configured")
@hookimpl
def golib_cli(group): print("asked")
"""


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder whose ./golib.toml names code, as do modules that golibx might import."""
    (tmp_path / "golib.toml").write_text('[plugins]\nenabled = ["./evil.py", "evil2"]\n')
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "evil2.py").write_text(EVIL)
    for name in ("difflib", "click", "pluggy", "golibx_plugin", "rich", "tomli", "code"):
        (tmp_path / f"{name}.py").write_text(EVIL)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--version"],
        ["plugins"],
        ["plugins", "--set", "preempt.slice=5ms"],
        ["check-config"],
        ["check-config", "golib.toml"],
        ["config"],
        ["config", "--show"],
        ["rnu"],
        ["greet", "--help"],
        ["run", "--help"],
        ["run", "--no-such-option"],
        ["run", "--set", "preempt.slize=1ms", "evil.py"],
        ["info"],
        ["dump", "1"],
        [],
    ],
    ids=" ".join,
)
def test_what_runs_no_code_of_the_folder(evil: Path, arguments: list[str]) -> None:
    result = golibx(evil, *arguments)
    assert "evil has run" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "golib.toml", "--help"],
        ["plugins", "--config=golib.toml"],
        ["plugins", "--set", "plugins.enabled=./evil.py"],
        ["check-config", "--config", "golib.toml"],
        ["run", "evil.py"],
        ["run", "-c", "pass"],
    ],
    ids=" ".join,
)
def test_what_runs_it(evil: Path, arguments: list[str]) -> None:
    for name in ("difflib", "click", "pluggy", "rich", "tomli", "code"):
        (evil / f"{name}.py").unlink()
    result = golibx(evil, *arguments)
    assert "evil has run" in result.stdout, result.stderr


def test_run_says_which_configuration_it_has_found(evil: Path) -> None:
    (evil / "pluggy.py").unlink()  # a program's own modules come first, as under python
    result = golibx(evil, "run", "-c", "print('on')")
    assert (result.returncode, result.stderr) == (0, "golibx: using ./golib.toml\n")
    result = golibx(evil, "run", "--no-config", "-c", "print('on')")
    assert (result.returncode, result.stdout, result.stderr) == (0, "on\n", "")


# ---- isolated ----

SHOWS = "import golibx, golibx.config as c; print(c.Config.load().preempt.slice_ns)"


@pytest.mark.parametrize("option", ["-I", "-E"])
def test_no_variable_counts_for_an_isolated_python(tmp_path: Path, option: str) -> None:
    if "PYTHONPATH" in os.environ:
        pytest.skip("golibx is not installed, and an isolated Python does not find it")
    (tmp_path / "evil.py").write_text(EVIL)
    variables = {
        "GOLIB_PLUGINS_ENABLED": str(tmp_path / "evil.py"),
        "GOLIB_PREEMPT_SLICE": "1ms",
        "GOLIBX_PREEMPT_SLICE": "1ms",
        "GOMAXPROCS": "7",
        "GOLIB_ASYNCPREEMPT_OFF": "1",
    }
    code = f"{SHOWS}; print(golibx.run(golibx.gomaxprocs), c.Config.load().preempt.async_)"
    python = [sys.executable, option]
    result = execute([*python, "-c", code], tmp_path, variables)
    cpus = str(len(os.sched_getaffinity(0)))
    assert (result.stderr, result.stdout.split()) == ("", ["10000000", cpus, "True"])
    for arguments in (["--help"], ["plugins"], ["run", "-c", "print('on')"], ["rnu"]):
        result = execute([*python, "-m", "golibx", *arguments], tmp_path, variables)
        assert "evil" not in result.stdout
        assert "Traceback" not in result.stderr


def test_an_isolated_run_uses_no_configuration_of_the_folder(evil: Path) -> None:
    if "PYTHONPATH" in os.environ:
        pytest.skip("golibx is not installed, and an isolated Python does not find it")
    result = execute([sys.executable, "-I", "-m", "golibx", "run", "-c", "print(1)"], evil, {})
    assert (result.stdout, result.stderr) == ("1\n", "")


# ---- what is said, and how it ends ----


def test_all_mistakes_are_said(tmp_path: Path) -> None:
    (tmp_path / "golib.toml").write_text(
        '[preempt]\nslice = 5\nslize = "5ms"\n[program]\nentry = "none.py"\n'
        '[plugins]\nenabled = ["schedtrce", "schedtrace"]\n[plugins.schedtrace]\nintervall = 1\n'
    )
    for arguments in (["check-config"], ["check-config", "--config", "golib.toml"]):
        result = golibx(tmp_path, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        lines = result.stderr.splitlines()
        assert all(line.startswith("golibx: golib.toml:") for line in lines)
        numbers = [line.split(":")[2] for line in lines]
        assert numbers[:4] == ["2", "3", "5", "7"]
    assert (
        golibx(tmp_path, "check-config")
        .stderr.splitlines()[4]
        .startswith("golibx: golib.toml:9: plugins.schedtrace.intervall = 1: unknown key")
    )


def test_config_show(tmp_path: Path) -> None:
    (tmp_path / "golib.toml").write_text('\n[preempt]\nslice = "5ms"\n')
    environment = {"GOLIB_RETAKE_ENABLED": "no", "GOMAXPROCS": "3"}
    arguments = ["config", "--show", "--set", "debug.leaks=on"]
    result = golibx(tmp_path, *arguments, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert 'preempt.slice = "5ms" # file golib.toml:3' in lines
    assert "retake.enabled = false # environment GOLIB_RETAKE_ENABLED" in lines
    assert "runtime.gomaxprocs = 3 # environment GOMAXPROCS" in lines
    assert "debug.leaks = true # command line --set" in lines
    assert 'stack.size = "1MiB" # default' in lines
    assert tomllib.loads(result.stdout)["preempt"] == {"async": True, "slice": "5ms"}
    assert golibx(tmp_path, "config").stdout == "golib.toml\n"
    (tmp_path / "golib.toml").unlink()
    assert golibx(tmp_path, "config").stdout.startswith("no file")
    result = golibx(tmp_path, *arguments, env={"GOMAXPROCS": "abc"})
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith('golibx: GOMAXPROCS: runtime.gomaxprocs = "abc": not an int')


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["rnu"], "Did you mean run?"),
        (["program.py"], "To run it: golibx run program.py"),
        (["run", "--confg=x", "p.py"], "Did you mean --config?"),
        (["run", "--config", "x", "--no-config", "p.py"], "give one of them"),
        (["run", "-c"], "Option '-c' requires an argument"),
        (["check-config", "a", "--config", "b"], "Name the file once"),
        (["dump", "x"], "'x' is not a valid integer"),
        (["dump", "1", "--timeout", "0"], "0.0 is not in the range"),
        (["config", "--shw"], "--show"),
    ],
)
def test_a_hint_for_what_is_mistyped(tmp_path: Path, arguments: list[str], hint: str) -> None:
    result = golibx(tmp_path, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments", [["info"], ["plugins"], ["config", "--show"], ["--help"], ["run", "--help"]]
)
def test_a_reader_that_has_seen_enough(tmp_path: Path, arguments: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = subprocess.run(
            [GOLIBX, *arguments], stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(write_end)
    assert result.stderr == b""
    assert result.returncode == 1


def test_a_name_that_the_terminal_lacks(tmp_path: Path) -> None:
    (tmp_path / "golib.toml").write_text('[program]\ncwd = "‰"\n', encoding="utf-8")
    result = golibx(tmp_path, "config", "--show", env={"PYTHONIOENCODING": "latin-1"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "\\u2030" in result.stdout


def test_colours(tmp_path: Path) -> None:
    """Only on a terminal, and not with NO_COLOR or on one that is dumb."""
    script = f"exec {GOLIBX} run --set x=1 -c pass"
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        terminal, other = os.openpty()
        env = {"TERM": "xterm", **os.environ, **variables}
        env = {name: text for name, text in env.items() if text != "1" or name == "NO_COLOR"}
        if "NO_COLOR" not in variables:
            env.pop("NO_COLOR", None)
        env.setdefault("TERM", "xterm")
        result = subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, env=env, stderr=other, check=False
        )
        text = os.read(terminal, 1000)
        os.close(terminal)
        os.close(other)
        assert result.returncode == 2
        assert (b"\x1b" in text) == coloured, text
    assert "\x1b" not in golibx(tmp_path, "run", "--set", "x=1", "-c", "pass").stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["golibx", "ch"], "check-config"),
        (["golibx", "run", "--s"], "--set"),
        (["golibx", "config", "--"], "--show"),
    ],
)
def test_completion(tmp_path: Path, words: list[str], expected: str) -> None:
    variables = {
        "_GOLIBX_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    result = golibx(tmp_path, env=variables)
    assert f"plain,{expected}" in result.stdout.splitlines()
    for shell in ("bash", "zsh", "fish"):
        result = golibx(tmp_path, env={"_GOLIBX_COMPLETE": f"{shell}_source"})
        assert "_GOLIBX_COMPLETE" in result.stdout, result.stderr
