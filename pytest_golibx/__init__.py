"""pytest's plugin: a test as the main goroutine, with golibx.testing's options.

    @pytest.mark.goroutine
    @pytest.mark.goroutine(timeout=5, seed="random", schedules=50, preempt={"slice": "1ms"})

It is no part of the package golibx, which it imports only when a test has the mark: sessions that
do without golibx do not load the native library, and what measures coverage is there first.
"""

from __future__ import annotations

import inspect
import sys
import threading
from functools import partial

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__: list[str] = []

_ORDERS = ("seed", "schedules", "exhaustive", "schedule")
_OPTIONS = (
    *("timeout", "leaks", *_ORDERS, "preempt_every_call", "virtual_time", "early_timers"),
    "shrink",
)
_MARK = (
    "goroutine(enabled=True, *, timeout, leaks=True, seed, schedules=1, exhaustive, schedule, "
    "preempt_every_call=False, virtual_time=False, early_timers=True, shrink, **config): "
    "run the test as the main goroutine of a golibx.run() with that configuration. "
    "See docs/testing.md of golibx."
)

_CHOSEN = ("--golibx-seed", "--golibx-schedule", "--golibx-exhaustive")

_threads = pytest.StashKey["dict[int, FrameType]"]()
_is_coroutine = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("golibx")
    group.addoption(
        "--golibx-seed",
        metavar="N",
        help="run tests that have a seed, or schedules, under this one alone; or random",
    )
    group.addoption(
        "--golibx-schedule",
        metavar="TEXT",
        help="run them under this one schedule, as the report of a failure shows it",
    )
    group.addoption(
        "--golibx-exhaustive",
        metavar="N",
        help="run them under all schedules with at most N preemptions",
    )
    parser.addini(
        "golibx_timeout",
        "seconds after which a goroutine test fails that has no timeout of its own; 0: never",
        default="60",
    )
    parser.addini(
        "golibx_leaks",
        "whether goroutine tests fail that leave goroutines behind",
        type="bool",
        default=True,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    early_config.stash[_threads] = _threads_now()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)
    config.stash.setdefault(_threads, _threads_now())  # where a conftest.py loads the plugin
    seed = config.getoption("--golibx-seed")
    if seed not in (None, "random") and not (str(seed).isdecimal() and 0 < int(seed) < 1 << 63):
        raise pytest.UsageError(f'--golibx-seed must be 1 to 2**63 - 1, or "random"; not {seed!r}')
    exhaustive = config.getoption("--golibx-exhaustive")
    if exhaustive is not None and not str(exhaustive).isdecimal():
        raise pytest.UsageError(
            f"--golibx-exhaustive must be how many preemptions there may be, not {exhaustive!r}"
        )
    given = [name for name in _CHOSEN if config.getoption(name) is not None]
    if len(given) > 1:
        raise pytest.UsageError(f"{given[0]} and {given[1]} exclude each other: give one")
    timeout = str(config.getini("golibx_timeout"))
    try:
        valid = float(timeout) >= 0
    except ValueError:
        valid = False
    if not valid:
        raise pytest.UsageError(f"golibx_timeout must be a number of seconds, not {timeout!r}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Coroutines are their own plugin's. When they are run it may have made functions of them."""
    test = getattr(item, "obj", None)
    test = getattr(getattr(test, "hypothesis", None), "inner_test", test)
    if inspect.iscoroutinefunction(test) or inspect.isasyncgenfunction(test):
        item.stash[_is_coroutine] = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    unittest = sys.modules.get("unittest")
    cls = getattr(item, "cls", None)
    is_method = unittest is not None and cls is not None and issubclass(cls, unittest.TestCase)
    if is_method and keywords_of(item) is not None:
        pytest.fail(
            "a method of a unittest.TestCase cannot have the mark goroutine: "
            "call golibx.testing.run() in it",
            pytrace=False,
        )
    _tell_threads(item.config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    __tracebackhide__ = True
    keywords = keywords_of(pyfuncitem)
    if keywords is None or pyfuncitem.stash.get(_is_coroutine, False):
        return None
    options, tables = _options(pyfuncitem, keywords)
    from golibx import testing

    names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001  # as pytest's own, which it replaces
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    _tell_threads(pyfuncitem.config)
    try:
        result = testing.run(partial(pyfuncitem.obj, **arguments), config=tables, **options)
    except testing.Leaked as exc:
        _tell_seed(pyfuncitem, exc)
        raise exc.with_traceback(None) from None  # it is about no place in the code
    except BaseException as exc:
        _tell_seed(pyfuncitem, exc)
        raise
    if isinstance(result, testing.Explored):
        pyfuncitem.add_report_section("call", "golibx", f"passed under {result}")
    return True


def _tell_seed(item: pytest.Item, exc: BaseException) -> None:
    lines = []
    for note in getattr(exc, "__notes__", ()):
        if note.startswith("golibx: this was seed "):
            seed = note.split()[4]
            lines.append(f"seed {seed}: run it again with --golibx-seed={seed}")
        elif note.startswith('golibx: schedule="'):
            schedule = note.split('"')[1]
            lines.append(f"schedule {schedule}: run it again with --golibx-schedule={schedule}")
    if lines:
        item.add_report_section("call", "golibx", "\n".join(lines))


def _threads_now() -> dict[int, FrameType]:
    """Those of whatever runs the tests, pytest-xdist or a debugger, with their first frames."""
    threads = {}
    own = (threading.main_thread().ident, threading.get_ident())
    for ident, frame in sys._current_frames().items():  # noqa: SLF001
        while frame.f_back is not None:
            frame = frame.f_back
        if ident not in own:
            threads[ident] = frame
    return threads


def _tell_threads(config: pytest.Config) -> None:
    """They wake no goroutine, so that a test that hangs is a Deadlock in spite of them."""
    if "golibx.patch.threads" in sys.modules:
        from golibx.patch import threads

        threads.bystanders = config.stash[_threads]


def keywords_of(item: pytest.Item) -> dict[str, Any] | None:
    """What the marks say together, the closest last; None if it is not to be a goroutine."""
    keywords: dict[str, Any] = {}
    enabled = False
    for mark in item.iter_markers("goroutine"):
        if mark.args == (False,):
            break
        if mark.args not in ((), (True,)):
            pytest.fail(
                f"the mark goroutine takes True or False, not {mark.args!r}; the rest by keyword",
                pytrace=False,
            )
        enabled = True
        keywords = {**mark.kwargs, **keywords}
    return keywords if enabled else None


def _options(
    item: pytest.Item, keywords: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, object]]:
    """The options of golibx.testing.run(), and the tables of the configuration."""
    options = {name: keywords[name] for name in _OPTIONS if name in keywords}
    tables = {name: value for name, value in keywords.items() if name not in _OPTIONS}
    if "timeout" not in options:
        options["timeout"] = float(item.config.getini("golibx_timeout")) or None
    options.setdefault("leaks", item.config.getini("golibx_leaks"))
    if any(options.get(name, usual) != usual for name, usual in _USUAL.items()):
        _choose(item.config, options)
    return options, tables


_USUAL = {"seed": None, "schedules": 1, "exhaustive": None, "schedule": None}


def _choose(config: pytest.Config, options: dict[str, Any]) -> None:
    """Has a test that is run under schedules be run under those that the session asks for."""
    seed, schedule, exhaustive = map(config.getoption, _CHOSEN)
    limit = {}
    if "exhaustive" in options and "schedules" in options:
        limit = {"schedules": options["schedules"]}
    chosen: dict[str, object] = {}
    if seed is not None:
        chosen = {"seed": seed if seed == "random" else int(seed)}
    elif schedule is not None:
        chosen = {"schedule": schedule}
    elif exhaustive is not None:
        chosen = {"exhaustive": int(exhaustive), **limit}
    if chosen:
        for name in _ORDERS:
            options.pop(name, None)
        options.update(chosen)
