"""pytest's plugin as others see it: alone, and beside the plugins that tests are run with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conftest import Script


@pytest.fixture
def outcomes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Runs the tests of a file in a process of their own, without the plugins that are installed.

    To import those takes longer than all of the tests.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run_file(source: str, *args: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        plugins = ("-p", "pytest_golibx", "-p", "no:cacheprovider")
        return pytester.runpytest_subprocess(*plugins, "-rA", "--strict-markers", *args)

    return run_file


Outcomes = Callable[..., pytest.RunResult]


def test_a_hang_fails_and_the_next_test_runs(outcomes: Outcomes) -> None:
    result = outcomes("""
        import pytest
        from golibx import Chan, go, sleep

        @pytest.mark.goroutine(timeout=0.1)
        def test_hang():
            go(sleep, 1000)
            Chan().recv(timeout=1000)

        @pytest.mark.goroutine
        def test_next():
            sleep(0)
        """)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        "*TimedOut: the test passed its time limit of 0.1 s",
        "*goroutine 1 [[]chan receive[]]*",
        "*goroutine 2 [[]sleep[]] sleep:",
    ])  # fmt: skip


def test_the_ini_options(pytester: pytest.Pytester, outcomes: Outcomes) -> None:
    pytester.makeini("[pytest]\ngolibx_timeout = 0.1\ngolibx_leaks = false\n")
    result = outcomes("""
        import pytest
        from golibx import go, sleep
        pytestmark = pytest.mark.goroutine

        def test_hang(): sleep(1000)
        def test_leak(): go(sleep, 1000)
        @pytest.mark.goroutine(leaks=True, timeout=1000)
        def test_own_options():
            sleep(0.2)
            go(sleep, 1000)
        """)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*limit of 0.1 s", "*Leaked: 1 goroutine was left behind*"])


def test_fixtures_parameters_capture_and_configuration(outcomes: Outcomes) -> None:
    result = outcomes("""
        import golibx, pytest
        from golibx import _core, current

        pytestmark = pytest.mark.goroutine(preempt={"slice": "1ms"}, runtime={"seed": 5})

        @pytest.fixture
        def seed(request):
            yield request.param
            assert current() is None

        @pytest.mark.parametrize("timeout", ["t"])
        @pytest.mark.parametrize("seed", [1, 2], indirect=True)
        def test_arguments(seed, timeout, tmp_path, capsys):
            assert current().id == 1
            assert tmp_path.exists() and timeout == "t" and seed in (1, 2)
            print("captured")
            assert capsys.readouterr().out == "captured\\n"

        class TestMethods:
            @pytest.mark.goroutine(False)
            def test_off(self): assert current() is None
            def test_on(self): assert current().id == 1

        @pytest.mark.goroutine(preempt={"slize": "1ms"})
        def test_wrong_key(): pass

        @pytest.mark.goroutine(timeuot=1)
        def test_wrong_option(): pass

        def test_skip(): pytest.skip("why")

        @pytest.mark.xfail(raises=golibx.Deadlock, strict=True)
        def test_xfail(): golibx.Chan().recv()
        """)
    result.assert_outcomes(passed=4, failed=2, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*did you mean preempt.slice?*"])


def test_a_failing_seed_is_printed_and_run_again(outcomes: Outcomes) -> None:
    source = """
        import pytest
        from golibx import Chan, go

        @pytest.mark.goroutine(seed="random", schedules=200, preempt_every_call=True)
        def test_race():
            counted = [0]
            ch = Chan(10)
            def increment():
                value = counted[0]
                ch.send(1)
                counted[0] = value + 1
            for g in [go(increment), go(increment)]:
                g.join()
            assert counted[0] == 2

        @pytest.mark.goroutine
        def test_without_a_seed(): pass
        """
    result = outcomes(source)
    result.assert_outcomes(passed=1, failed=1)
    (line,) = [line for line in result.outlines if "--golibx-seed=" in line]
    option = line.split()[-1]
    seed = option.partition("=")[2]
    result.stdout.fnmatch_lines([f"*golibx: this was seed {seed} (schedule *"])
    again = outcomes(source, option)
    again.assert_outcomes(passed=1, failed=1)
    again.stdout.fnmatch_lines([f"*golibx: this was seed {seed}"])


RACE = """
    import pytest
    from golibx import Chan, go

    @pytest.mark.goroutine({mark})
    def test_race():
        counted = [0]
        ch = Chan(10)
        def increment():
            value = counted[0]
            ch.send(1)
            counted[0] = value + {step}
        for g in [go(increment), go(increment)]:
            g.join()
        assert counted[0] == {step} * 2 or not {step}

    @pytest.mark.goroutine
    def test_without_a_seed(): pass
    """


def test_a_failing_schedule_is_printed_and_run_again(outcomes: Outcomes) -> None:
    source = RACE.format(mark="schedules=100, preempt_every_call=True", step=1)
    result = outcomes(source)
    result.assert_outcomes(passed=1, failed=1)
    (line,) = [line for line in result.outlines if "--golibx-schedule=" in line]
    option = line.split()[-1]
    schedule = option.partition("=")[2]
    assert line == f"schedule {schedule}: run it again with {option}"
    again = outcomes(source, option)
    again.assert_outcomes(passed=1, failed=1)
    again.stdout.fnmatch_lines([f"*golibx: this was schedule {schedule}"])
    misfit = outcomes(source.replace("ch.send(1)", "pass"), option)
    misfit.assert_outcomes(passed=1, failed=1)
    misfit.stdout.fnmatch_lines(["*WrongSchedule: *is not one of this program as it is now*"])


def test_all_schedules_of_a_test(outcomes: Outcomes) -> None:
    """By the mark, and by the option for those that have a seed."""
    mark = "seed=1, preempt_every_call=True"
    found = outcomes(RACE.format(mark=mark, step=1), "--golibx-exhaustive=1")
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(["*golibx: this was schedule *, with 1 preemption"])
    passed = outcomes(RACE.format(mark="exhaustive=1, preempt_every_call=True", step=0))
    passed.assert_outcomes(passed=2)
    passed.stdout.fnmatch_lines(["passed under all * schedules with at most 1 preemption"])
    mark = "exhaustive=1, schedules=3, preempt_every_call=True"
    limited = outcomes(RACE.format(mark=mark, step=0))
    limited.assert_outcomes(passed=2, warnings=1)
    limited.stdout.fnmatch_lines(["*golibx: saw the first 3 schedules with at most 1 preemption*"])


@pytest.mark.usefixtures("_asyncio_stub")
def test_coroutines_and_test_cases(outcomes: Outcomes) -> None:
    result = outcomes("""
        import asyncio, unittest, pytest

        pytestmark = pytest.mark.goroutine

        async def test_coroutine(): await asyncio.sleep(0)

        class TestCase(unittest.TestCase):
            def test_method(self): pass
        """,
        "-p", "asyncio_stub",
    )  # fmt: skip
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*TestCase cannot have the mark goroutine*"])


@pytest.fixture
def _asyncio_stub(pytester: pytest.Pytester) -> None:
    """As pytest-asyncio does it."""
    pytester.syspathinsert()
    pytester.makepyfile(
        asyncio_stub="""
        import asyncio, inspect, pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_pyfunc_call(pyfuncitem):
            if inspect.iscoroutinefunction(pyfuncitem.obj):
                test = pyfuncitem.obj
                pyfuncitem.obj = lambda: asyncio.run(test())
            return (yield)
        """
    )


def test_golibx_is_not_loaded_for_others(outcomes: Outcomes) -> None:
    result = outcomes("""
        import sys

        def test_not_loaded():
            assert not [name for name in sys.modules if name.split(".")[0] == "golibx"]
        """)
    result.assert_outcomes(passed=1)


def test_the_plugin_can_be_switched_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_no_plugin(pytestconfig):
            assert not pytestconfig.pluginmanager.has_plugin("pytest_golibx")
            assert "golibx_timeout" not in pytestconfig.inicfg
        """)
    pytester.runpytest_subprocess("-p", "no:golibx").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--golibx-seed=0",), "ERROR: *golibx*seed*not '0'"),
        (("-o", "golibx_timeout=soon"), "*'soon'"),
        (("--golibx-exhaustive=-1",), "ERROR: --golibx-exhaustive must be *not '-1'"),
        (
            ("--golibx-seed=1", "--golibx-exhaustive=1"),
            "ERROR: --golibx-seed and --golibx-exhaustive exclude each other*",
        ),
    ],
)
def test_options_of_the_session_are_checked(
    outcomes: Outcomes, args: tuple[str, ...], message: str
) -> None:
    result = outcomes("def test_nothing(): pass", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_the_lines_of_goroutines_are_covered(script: Script) -> None:
    """By coverage, which pytest-cov uses, though the plugin is there first."""
    pytest.importorskip("coverage")
    test = script.cwd / "test_covered.py"
    test.write_text(
        "import pytest\n"
        "from golibx import go\n"
        "@pytest.mark.goroutine\n"
        "def test_covered():\n"
        "    def body():\n"
        "        return 1\n"
        "    assert go(body).result() == 1\n"
    )
    out = script.passes(
        "import coverage, pytest, sys\n"
        "coverage = coverage.Coverage(source=['golibx'], include=None, data_file=None)\n"
        "coverage.start()\n"
        "options = ['-q', '-p', 'pytest_golibx', '-p', 'no:cacheprovider']\n"
        f"code = pytest.main([*options, {str(test)!r}])\n"
        "coverage.stop()\n"
        "import golibx.testing\n"
        "_, lines, _, missing, _ = coverage.analysis2(golibx.testing.__file__)\n"
        "print(code, len(lines) > 50, min(missing))\n"
    )
    code, measured, first_missing = out.splitlines()[-1].split()
    assert (code.rpartition(".")[2], measured) in (("0", "True"), ("ExitCode.OK", "True"))
    assert int(first_missing) > 20  # what runs at import was seen


# ---- beside other plugins ----


@pytest.fixture
def beside(
    pytester: pytest.Pytester, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> Outcomes:
    """As outcomes, with pytest-xdist, pytest-asyncio, pytest-timeout and anyio's."""
    for module in ("anyio", "hypothesis", "pytest_asyncio", "pytest_timeout", "xdist"):
        pytest.importorskip(module)
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return outcomes


SIDE_BY_SIDE = """
    import asyncio, anyio, pytest, pytest_asyncio
    from golibx import Chan, current, go

    @pytest.fixture(scope="module")
    def anyio_backend(): return "asyncio"

    @pytest.fixture(scope="module")
    def module_fixture():
        assert current() is None
        yield []
        assert current() is None

    @pytest_asyncio.fixture
    async def loop():
        yield asyncio.get_running_loop()
        await asyncio.sleep(0)

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def result():
        yield await asyncio.create_task(asyncio.sleep(0.001, "done"))

    @pytest.mark.goroutine
    def test_goroutine(module_fixture, loop, result, tmp_path, capsys):
        assert current().id == 1 and result == "done"
        ch = Chan()
        go(ch.send, "hello")
        print(ch.recv())
        assert capsys.readouterr().out == "hello\\n"
        assert not loop.is_running() and asyncio.get_event_loop() is loop
        assert loop.run_until_complete(asyncio.sleep(0.001, 3)) == 3

    @pytest.mark.goroutine
    def test_a_loop_of_its_own():
        assert asyncio.run(asyncio.sleep(0.001, 3)) == 3

    @pytest.mark.asyncio
    async def test_coroutine(module_fixture, loop):
        assert current() is None and asyncio.get_running_loop() is loop

    @pytest.mark.asyncio(loop_scope="module")
    async def test_coroutine_of_the_module(result):
        assert current() is None and result == "done"

    @pytest.mark.anyio
    async def test_anyio():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)

    def test_plain(module_fixture):
        assert current() is None

    @pytest.mark.goroutine
    @pytest.mark.parametrize("n", range(4))
    def test_goroutine_again(n, module_fixture):
        assert go(lambda: n).result() == n
    """


@pytest.mark.parametrize(
    "args",
    [(), ("-n", "2"), ("-o", "asyncio_mode=auto"), ("-p", "no:xdist", "-p", "no:timeout")],
    ids=["all", "xdist", "auto", "without"],
)
def test_goroutines_coroutines_and_others(beside: Outcomes, args: tuple[str, ...]) -> None:
    beside(SIDE_BY_SIDE, *args).assert_outcomes(passed=10)


def test_coroutines_of_other_plugins_are_no_goroutines(beside: Outcomes) -> None:
    """In a module with the mark, and whatever these plugins have made of them."""
    result = beside("""
        import asyncio, anyio, pytest
        from golibx import current
        from hypothesis import given, settings, strategies

        pytestmark = pytest.mark.goroutine
        few = settings(max_examples=3)

        @pytest.fixture(params=["one", "two"])
        def anyio_backend(request): return "asyncio"

        @pytest.mark.asyncio
        async def test_asyncio():
            assert current() is None

        @pytest.mark.asyncio
        @few
        @given(strategies.integers())
        async def test_asyncio_examples(number):
            assert current() is None

        @pytest.mark.anyio
        async def test_anyio():
            assert current() is None

        @pytest.mark.anyio
        @few
        @given(strategies.integers())
        async def test_anyio_examples(number):
            assert current() is None

        @few
        @given(strategies.integers())
        def test_examples(number):
            assert current().id == 1
        """)
    result.assert_outcomes(passed=7)


def test_failures_reach_the_report_of_xdist(beside: Outcomes) -> None:
    """The stacks of what hangs, and deadlocks though the worker has threads of its own."""
    result = beside(
        """
        import threading, pytest
        from golibx import Chan, go, sleep

        pytestmark = pytest.mark.goroutine

        @pytest.mark.goroutine(timeout=0.1)
        def test_hang():
            go(sleep, 1000)
            Chan().recv(timeout=1000)

        @pytest.mark.goroutine(timeout=0.1)
        def test_computes():
            def compute():
                while True: pass
            go(compute).join()

        @pytest.mark.goroutine(timeout=None)
        def test_deadlock():
            Chan().recv()

        def test_leak():
            go(sleep, 1000)

        @pytest.mark.goroutine(seed=5)
        def test_seed():
            print("this was printed")
            assert False

        def test_a_thread_of_the_test_is_waited_for():
            ch = Chan()
            began = threading.Event()
            def send():
                began.wait()
                ch.send(1)
            threading.Thread(target=send).start()
            go(began.set)
            assert ch.recv() == 1

        def test_next():
            sleep(0)
        """,
        "-n",
        "2",
        "-v",
    )
    result.assert_outcomes(passed=2, failed=5)
    text = result.stdout.str()
    for line in (
        "TimedOut: the test passed its time limit of 0.1 s",
        "goroutine 1 [chan receive] main:",
        "goroutine 2 [sleep] sleep:",
        "goroutine 2 [running] test_computes.<locals>.compute:",
        "Deadlock: all goroutines are asleep - deadlock! (1 goroutine)",
        "Leaked: 1 goroutine was left behind by the test",
        "this was printed",
        "--golibx-seed=5",
    ):
        assert line in text
    assert "_pytest" not in text


def test_the_limits_of_pytest_timeout(beside: Outcomes) -> None:
    """They end the test wherever they find it, and the stacks of all goroutines are shown."""
    result = beside("""
        import signal, pytest
        from golibx import Chan, go, sleep

        pytestmark = [pytest.mark.goroutine(timeout=1000), pytest.mark.timeout(0.2)]

        def test_hang():
            go(sleep, 1000)
            Chan().recv(timeout=1000)

        def compute():
            while True: pass

        def test_computes():
            compute()

        def test_another_computes():
            go(compute).join()

        @pytest.mark.goroutine(seed=1)
        def test_another_computes_with_a_seed():
            go(compute).join()

        @pytest.mark.timeout(1000)
        @pytest.mark.goroutine(timeout=0.1)
        def test_own_limit():
            go(compute).join()

        @pytest.mark.goroutine(timeout=None)
        def test_passes():
            sleep(0)
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0

        @pytest.mark.timeout(1000)
        def test_the_limit_is_kept(request):
            def left():
                assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 1000
            request.addfinalizer(left)
        """)
    result.assert_outcomes(passed=2, failed=5)
    result.stdout.fnmatch_lines_random([
        "*Failed: Timeout (>0.2s) from pytest-timeout.",
        "*goroutine 2 [[]sleep[]] sleep:",
        "*goroutine 2 [[]running[]] compute:",
        "*TimedOut: the test passed its time limit of 0.1 s",
    ])  # fmt: skip


def test_examples_of_hypothesis(beside: Outcomes) -> None:
    """All of a test's are in one run. What fails is made as small as elsewhere."""
    result = beside("""
        import pytest
        from hypothesis import given, strategies
        from golibx import Chan, go

        pytestmark = pytest.mark.goroutine

        @given(strategies.integers())
        def test_sum(number):
            ch = Chan()
            go(ch.send, number)
            assert ch.recv() < 100

        @given(strategies.integers())
        def test_deadlock(size):
            if size >= 200:
                Chan().recv()
        """)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*number=100,", "*Deadlock: all goroutines*", "*size=200,"])
