"""What can be set in golib.toml: every key with its kind, default, range and description, as data.

The parser, the environment variables, `--set`, the error messages and the reference in
docs/configuration.md all follow from SCHEMA. Plugins describe the keys of their own table with the
same Key class (see Config.plugin). How a value of each kind is written is golibx.values' subject,
where values come from golibx.config's.

The native library is compiled with this file: zsrc/core/tunables.zig has a field for each key that
is `tunable`, and takes its default and range from here. zsrc/core/schema.zig reads the text, in the
form that `ruff format` gives it.

`python -m golibx.schema` prints the reference; with the path of docs/configuration.md it updates
that file.
"""

from __future__ import annotations

from types import MappingProxyType

from golibx.errors import toml_value

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Final

    from golibx.rules import Rule

__all__ = [
    "KINDS",
    "SCHEMA",
    "Key",
    "Section",
    "Table",
    "reference",
    "with_reference",
]


KINDS: Final = (
    "bool",
    "int",
    "duration",
    "size",
    "choice",
    "choices",
    "string",
    "strings",
    "path",
    "program",
    "plugins",
    "limits",
    "rules",
)
"""What a Key may be; docs/plugins.md says how each is written, and what Python has of it."""


class Key:
    """One setting: how it is written, its default and range, and what it does.

    Args:
        name: the key as written in TOML.
        kind: "bool", "int", "duration", "size", "choice", "choices" (true for
            all, false for none, or a list of them), "string", "strings" (a list of strings),
            "path", "program" (a script's path or package.module:function), "plugins" (a list of
            plugin references), or "limits" and "rules", which are [tune]'s own.
        default: as it would be written in TOML.
        description: what the key does, one sentence or two; Markdown.
        low: the least that an "int", "duration" or "size" may be, written as the default is.
        high: the most that it may be.
        zero: what 0 means, where it is allowed besides the range.
        choices: the allowed strings of a "choice" or "choices".
        option: the option of the native core that the value becomes; empty if only Python uses it.
        tunable: whether the value may change while a run goes on: _core.tune().
        at_most: the key of the same table that it must not exceed; empty: none.

    Raises:
        ValueError: there is no such kind, or it needs a range or choices that are not given.
    """

    __slots__ = (
        "at_most",
        "choices",
        "default",
        "description",
        "high",
        "kind",
        "low",
        "name",
        "option",
        "tunable",
        "zero",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        default: object,
        description: str,
        *,
        low: int | str = 0,
        high: int | str = 0,
        zero: str = "",
        choices: tuple[str, ...] = (),
        option: str = "",
        tunable: bool = False,
        at_most: str = "",
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"key {name}: {kind!r} is not a kind (allowed: {', '.join(KINDS)})")
        if kind in ("int", "duration", "size") and low == high:
            raise ValueError(f"key {name}: {kind} needs a range, low= and high=")
        if kind in ("choice", "choices") and not choices:
            raise ValueError(f"key {name}: {kind} needs choices=")
        self.name = name
        self.kind = kind
        self.default = default
        self.description = description
        self.low = low
        self.high = high
        self.zero = zero
        self.choices = choices
        self.option = option
        self.tunable = tunable
        self.at_most = at_most

    @property
    def attribute(self) -> str:
        """The attribute of a Section that holds the value: the name, and the unit of a duration."""
        if self.kind == "duration":
            return f"{self.name}_ns"
        return "async_" if self.name == "async" else self.name  # the one that is a Python keyword

    @property
    def allowed(self) -> str:
        """What may be written, in words; empty where anything of the right type may."""
        if self.kind == "choice":
            return ", ".join(toml_value(choice) for choice in self.choices)
        if self.kind == "choices":
            some = ", ".join(toml_value(choice) for choice in self.choices)
            return f"true, false, or a list of {some}"
        if self.kind not in ("int", "duration", "size"):
            return {
                "bool": "true, false",
                "path": "a path",
                "strings": 'a list of strings, such as ["a", "b"]',
                "program": '"path/to/script.py", "package.module:function"',
                "plugins": 'a list of names, modules, files, such as ["schedtrace", "./mine.py"]',
                "limits": "{ KEY = { min = VALUE, max = VALUE }, … }",
                "rules": '[{ when = "METRIC > VALUE", set = { KEY = VALUE, … } }, …]',
            }.get(self.kind, "a string")
        text = f"{self.low} to {self.high}"
        return f"{text}, or 0: {self.zero}" if self.zero else text


class Table:
    """A table of golib.toml: its name, what it is about, its keys, and the type of its Section."""

    __slots__ = ("description", "keys", "name", "view")

    def __init__(self, name: str, description: str, view: type[Section], *keys: Key) -> None:
        self.name = name
        self.description = description
        self.view = view
        self.keys = keys


class Section:
    """The values of one table, read-only, each under its key's attribute (Key.attribute).

    Durations are integers in nanoseconds and end in `_ns`; sizes are integers in bytes; lists are
    tuples; paths are absolute.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        object.__setattr__(self, "_values", MappingProxyType(dict(values)))

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(self._values)
            raise AttributeError(f"no setting {name!r}; there are: {known}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"can't set {name!r}: a configuration is read-only")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"can't delete {name!r}: a configuration is read-only")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"{type(self).__name__}({values})"


class Program(Section):
    __slots__ = ()
    entry: str
    args: tuple[str, ...]
    cwd: str


class Runtime(Section):
    __slots__ = ()
    gomaxprocs: int
    max_threads: int
    on_panic: str
    shutdown_timeout_ns: int
    seed: int
    switch_interval_ns: int
    offer_interval_ns: int
    spin_ns: int
    swap: str
    foreign: str
    foreign_movable: tuple[str, ...]


class Sysmon(Section):
    __slots__ = ()
    sleep_min_ns: int
    sleep_max_ns: int
    idle_rounds: int


class Preempt(Section):
    __slots__ = ()
    async_: bool
    slice_ns: int


class Retake(Section):
    __slots__ = ()
    enabled: bool
    threshold_ns: int
    threshold_idle_ns: int
    reserves: int


class Netpoll(Section):
    __slots__ = ()
    backend: str
    interval_ns: int


class Native(Section):
    __slots__ = ()
    steal_rounds: int
    spinning: int


class Stack(Section):
    __slots__ = ()
    size: int
    main_size: int
    native_size: int
    keep: int


class Patch(Section):
    __slots__ = ()
    stdlib: tuple[str, ...]
    threads: bool


class Hooks(Section):
    __slots__ = ()
    flush_interval_ns: int
    ring_size: int
    budget_ns: int
    tune_interval_ns: int
    share: int
    share_interval_ns: int
    over_share: str
    gil_wait_min_ns: int


class Tune(Section):
    __slots__ = ()
    limits: Mapping[str, tuple[int, int]]
    rules: tuple[Rule, ...]
    confirm: int
    cooldown_ns: int


class Serve(Section):
    __slots__ = ()
    app: str
    bind: tuple[str, ...]
    workers: int
    connections: int
    backlog: int
    target_size: int
    headers: int
    header_size: int
    header_timeout_ns: int
    body_size: int
    io_timeout_ns: int
    keep_alive_ns: int
    graceful_timeout_ns: int
    access_log: str


class Debug(Section):
    __slots__ = ()
    leaks: bool
    dump_signal: str
    control: bool


class Plugins(Section):
    __slots__ = ()
    enabled: tuple[str, ...]
    autoload: bool


# The scheduler's constants are those of Go's runtime (proc.go: forcePreemptNS, sysmon's usleep
# schedule, retake's 20 us and 10 ms) as the Rust crate go-lib 0.5.2 has them too.
SCHEMA: Final = (
    Table(
        "program",
        "What `golibx run` starts when its command line names no program. With a program on the "
        "command line this table is not used.",
        Program,
        Key(
            "entry",
            "program",
            "",
            "The program: a script, or a function that is imported and called without arguments.",
        ),
        Key(
            "args",
            "strings",
            [],
            "The program's arguments, `sys.argv[1:]`. Those after `golibx run --` are appended.",
        ),
        Key(
            "cwd",
            "path",
            "",
            "The directory to change to before the program starts; empty: the current directory.",
        ),
    ),
    Table(
        "runtime",
        "The runtime as a whole: its size, and how it ends.",
        Runtime,
        Key(
            "gomaxprocs",
            "int",
            0,
            "How many processors (P) run native goroutines in parallel, and Python's where the "
            "interpreter has no GIL. The environment's `GOMAXPROCS` sets it too.",
            low=1,
            high=1024,
            zero="as many as there are CPUs this process may use",
            option="gomaxprocs",
        ),
        Key(
            "max_threads",
            "int",
            10_000,
            "The most OS threads (M) the runtime may start. Where all of them block in C code, "
            "goroutines wait for one to come back; after a second of that golibx says so, once a "
            "run.",
            low=4,
            high=1_000_000,
            option="max_threads",
        ),
        Key(
            "on_panic",
            "choice",
            "report",
            "What an exception that ends a goroutine, and that no code collects by `result()`, "
            "does after it was printed: nothing more, or end the program with exit code 2.",
            choices=("report", "exit"),
        ),
        Key(
            "shutdown_timeout",
            "duration",
            "5s",
            "How long the goroutines that are left when the main one returns may take to end "
            "after they were cancelled: their `finally` blocks run.",
            low="1us",
            high="24h",
            zero="cancel them and do not wait",
        ),
        Key(
            "seed",
            "int",
            0,
            "Seed of the scheduler's random choices, such as which ready case a select takes.",
            low=1,
            high=2**63 - 1,
            zero="a new one each run",
            option="seed",
        ),
        Key(
            "switch_interval",
            "duration",
            "0s",
            "The interpreter's switch interval (`sys.setswitchinterval`) during the run: how long "
            "a goroutine that comes back from a blocking call may wait for the GIL.",
            low="1us",
            high="1s",
            zero="leave it as it is (5ms unless changed)",
        ),
        Key(
            "offer_interval",
            "duration",
            "0s",
            "How often goroutines that switch all the time let threads that wait for the GIL have "
            "it. Needed only where a switch is the interpreter's own on Python 3.12 and later "
            "(`swap`): elsewhere the interpreter sees to that.",
            low="100us",
            high="10s",
            zero="at each switch interval, but each millisecond at most",
            option="offer_interval_ns",
            tunable=True,
        ),
        Key(
            "spin",
            "duration",
            "30us",
            "How long a thread that waits for work may look for it on its CPU before it sleeps. It "
            "does so only where there are several CPUs and its last waits were that short.",
            low="1us",
            high="1ms",
            zero="sleep at once",
            option="spin_ns",
            tunable=True,
        ),
        Key(
            "swap",
            "choice",
            "auto",
            "How a switch changes the interpreter's thread state: with the GIL kept, where a way "
            "was found that does what the interpreter does; or always by its own function, which "
            "lets the GIL go and takes it again from Python 3.12 on. `golibx info` says which it "
            "is.",
            choices=("auto", "interpreter"),
            option="swap",
        ),
        Key(
            "foreign",
            "choice",
            "keep",
            "What a goroutine does that is switched out in Python code which C code of others "
            "called, an extension's or a library's: keep its thread to itself until it goes on, "
            "since such code may hold something of the thread's; or move to any thread, as it "
            "does where only the interpreter's own C code lies between.",
            choices=("keep", "move"),
        ),
        Key(
            "foreign_movable",
            "strings",
            [],
            "Modules with C code that is known to hold nothing of the thread's, such as "
            "`numpy.random` or, by its file, `libsqlite3.so.0`: goroutines that are switched out "
            "in what it calls may move.",
        ),
    ),
    Table(
        "sysmon",
        "The thread that polls the network, preempts and retakes when no other thread does. It "
        "sleeps between its rounds.",
        Sysmon,
        Key(
            "sleep_min",
            "duration",
            "20us",
            "Its sleep between two rounds while there is something to do.",
            low="1us",
            high="1s",
            option="sysmon_sleep_min_ns",
            tunable=True,
            at_most="sleep_max",
        ),
        Key(
            "sleep_max",
            "duration",
            "10ms",
            "The longest sleep: after `idle_rounds` without work the sleep doubles each round up "
            "to here.",
            low="1us",
            high="10s",
            option="sysmon_sleep_max_ns",
            tunable=True,
        ),
        Key(
            "idle_rounds",
            "int",
            50,
            "Rounds without work before the sleep starts to double.",
            low=1,
            high=1_000_000,
            option="sysmon_idle_rounds",
            tunable=True,
        ),
    ),
    Table(
        "preempt",
        "Preemption: taking the processor from a goroutine that computes for long without a wait.",
        Preempt,
        Key(
            "async",
            "bool",
            True,
            "Whether goroutines are preempted. `false` is the kill switch, "
            "`GOLIB_ASYNCPREEMPT_OFF=1` the same from outside: a goroutine then runs until it "
            "waits or calls `gosched()`.",
            option="preempt_async",
        ),
        Key(
            "slice",
            "duration",
            "10ms",
            "How long a goroutine may run before others get their turn. On Python 3.11 a goroutine "
            "that computes gives way after one switch interval (5ms) at the earliest.",
            low="10us",
            high="1m",
            option="preempt_slice_ns",
            tunable=True,
        ),
    ),
    Table(
        "retake",
        "Retake: taking the processor from a goroutine that sits in a blocking call which "
        "released the GIL.",
        Retake,
        Key(
            "enabled",
            "bool",
            True,
            "Whether processors are retaken. If not, a blocking call stops all goroutines until "
            "it returns.",
            option="retake_enabled",
        ),
        Key(
            "threshold",
            "duration",
            "20us",
            "How long a call may block before its processor is taken, while other goroutines are "
            "ready to run.",
            low="1us",
            high="10s",
            option="retake_threshold_ns",
            tunable=True,
            at_most="threshold_idle",
        ),
        Key(
            "threshold_idle",
            "duration",
            "10ms",
            "The same while none is ready: taking the processor then helps only the network and "
            "timers.",
            low="1us",
            high="10s",
            option="retake_threshold_idle_ns",
            tunable=True,
        ),
        Key(
            "reserves",
            "int",
            16,
            "How many threads at most wait for the GIL in case the running goroutine blocks again, "
            "where other threads compute and it is hard to get.",
            low=1,
            high=1024,
            zero="none",
            option="retake_reserves",
            tunable=True,
        ),
    ),
    Table(
        "netpoll",
        "Waiting for sockets.",
        Netpoll,
        Key(
            "backend",
            "choice",
            "auto",
            'The mechanism. `"auto"` takes the best one of the platform; `"epoll"` is Linux only.',
            choices=("auto", "epoll"),
        ),
        Key(
            "interval",
            "duration",
            "10ms",
            "How long sockets may go unlooked at while goroutines compute. sysmon sees to that in "
            "its rounds, and may be late by as long as it sleeps.",
            low="10us",
            high="10s",
            option="netpoll_interval_ns",
            tunable=True,
        ),
    ),
    Table(
        "native",
        "How the threads of native goroutines look for work.",
        Native,
        Key(
            "steal_rounds",
            "int",
            4,
            "How often a thread looks at all other processors, for goroutines to steal, before it "
            "gives up.",
            low=1,
            high=64,
            option="native_steal_rounds",
            tunable=True,
        ),
        Key(
            "spinning",
            "int",
            50,
            "How many threads may look for work in this way, in percent of the processors that are "
            "busy. One always may.",
            low=1,
            high=100,
            option="native_spinning",
            tunable=True,
        ),
    ),
    Table(
        "stack",
        "The goroutines' C stacks. They are reserved address space: memory is used as the stack "
        "grows into it.",
        Stack,
        Key(
            "size",
            "size",
            "1MiB",
            "Stack of a goroutine, a multiple of the page size. Deep recursion through C code "
            "(json, re, copy, `__repr__`, chained iterators) is what needs more. From 2MiB on a "
            "goroutine takes 2 to 2.4 KiB more, for page tables.",
            low="64KiB",
            high="1GiB",
            option="stack_size",
        ),
        Key(
            "main_size",
            "size",
            "8MiB",
            "Stack of the main goroutine, a multiple of the page size.",
            low="64KiB",
            high="4GiB",
            option="stack_main_size",
        ),
        Key(
            "native_size",
            "size",
            "256KiB",
            "Stack of a native goroutine (`golibx.native`), guard included, a power of two. Python "
            "code that C code calls back into runs on it too.",
            low="16KiB",
            high="64MiB",
            option="stack_native_size",
        ),
        Key(
            "keep",
            "size",
            "64MiB",
            "How much memory of ended goroutines' stacks is kept for the next ones; what exceeds "
            "it goes back to the operating system.",
            low="1B",
            high="1TiB",
            zero="keep none",
            option="stack_keep",
        ),
    ),
    Table(
        "patch",
        "What `golibx run` makes park goroutines before it imports the program, where it would "
        "block a thread otherwise; `golibx.patch_all()` does it at any time.",
        Patch,
        Key(
            "stdlib",
            "choices",
            True,
            "The modules whose functions park goroutines: all that there are, none, or these. It "
            "is for speed only: what is left as it is blocks its thread, and another goes on with "
            "the other goroutines.",
            choices=("time", "threading", "queue", "socket", "select", "ssl", "io", "os"),
        ),
        Key(
            "threads",
            "bool",
            True,
            "Whether threads that the program starts are goroutines of its run. Only `golibx run` "
            "does that, and `golibx.patch_all()` does not.",
        ),
    ),
    Table(
        "hooks",
        "How the scheduler's events reach the plugins' hooks. Nothing is recorded that no plugin "
        "has a hook for.",
        Hooks,
        Key(
            "flush_interval",
            "duration",
            "10ms",
            "Events are delivered in batches, at most this long after the first of a batch "
            "happened.",
            low="100us",
            high="10s",
            option="hooks_flush_interval_ns",
        ),
        Key(
            "ring_size",
            "int",
            16_384,
            "Events that a processor can hold until they are delivered, a power of two. When it "
            "is full further ones are dropped, and counted in `stats()` as `events_dropped`.",
            low=64,
            high=16_777_216,
            option="hooks_ring_size",
        ),
        Key(
            "budget",
            "duration",
            "1ms",
            "How long hooks may run in a row before the goroutine that calls them yields to the "
            "program's.",
            low="10us",
            high="10s",
        ),
        Key(
            "tune_interval",
            "duration",
            "100ms",
            "How often plugins' `tune` is asked, and the rules of `[tune]` are looked at.",
            low="1ms",
            high="1h",
        ),
        Key(
            "share",
            "int",
            0,
            "How much of the wall time the hooks of one plugin may take, in percent: those for "
            "events, and `tune`. Waits in them count, since no other hook is called meanwhile.",
            low=1,
            high=100,
            zero="as much as they take",
        ),
        Key(
            "share_interval",
            "duration",
            "1s",
            "How often shares are looked at, each time that of the time since the last look. A "
            "plugin is over its share that is at two looks in a row.",
            low="10ms",
            high="1h",
        ),
        Key(
            "over_share",
            "choice",
            "warn",
            "What happens to a plugin that takes more, after it was named in a line on stderr: "
            "nothing more, or none of its hooks is called any more but `golib_stop`.",
            choices=("warn", "disable"),
        ),
        Key(
            "gil_wait_min",
            "duration",
            "1ms",
            "How long the Python lane must have waited for the GIL for an event, `on_gil_wait`.",
            low="1us",
            high="10s",
            option="hooks_gil_wait_min_ns",
        ),
    ),
    Table(
        "tune",
        "Changing the scheduler while the program runs: how far plugins may go, and rules that "
        "need no plugin. [tuning.md](tuning.md) has the keys that may change, and the metrics.",
        Tune,
        Key(
            "limits",
            "limits",
            {},
            "For each key the least and the most that plugins and rules may set; either may be "
            "left out.",
        ),
        Key(
            "rules",
            "rules",
            [],
            "What to set when a metric is over or under a value. Of two rules that set the same "
            "key, the first whose `when` holds does.",
        ),
        Key(
            "confirm",
            "int",
            2,
            "At how many looks in a row a rule's `when` has to hold before it sets anything.",
            low=1,
            high=1000,
        ),
        Key(
            "cooldown",
            "duration",
            "1s",
            "How long rules leave a key alone that one of them has set.",
            low="1ms",
            high="24h",
            zero="not at all",
        ),
    ),
    Table(
        "serve",
        "What `golibx serve` serves, where, and within which limits: [serve.md](serve.md). Each "
        "key is an option of that command, too.",
        Serve,
        Key(
            "app",
            "string",
            "",
            "The WSGI application, `module:app`, or `module:factory()` for what a function "
            "returns.",
        ),
        Key(
            "bind",
            "strings",
            ["127.0.0.1:8000"],
            "Where to listen: `host:port`, with an IPv6 host in brackets and port 0 for a free "
            "one, or `unix:path`.",
        ),
        Key(
            "workers",
            "int",
            1,
            "How many processes serve. One that dies is started again.",
            low=1,
            high=1024,
        ),
        Key(
            "connections",
            "int",
            10_000,
            "How many connections a process has at a time. Others wait in the queue of the socket.",
            low=1,
            high=1_000_000,
        ),
        Key(
            "backlog",
            "int",
            4096,
            "How long that queue is; the system has a limit of its own.",
            low=1,
            high=65_535,
        ),
        Key(
            "target_size",
            "size",
            "8KiB",
            "How long the path and query of a request may be. More is answered with 414.",
            low="64B",
            high="1MiB",
        ),
        Key(
            "headers",
            "int",
            100,
            "How many headers a request may have. More is answered with 431.",
            low=1,
            high=10_000,
        ),
        Key(
            "header_size",
            "size",
            "32KiB",
            "How large all headers of a request may be together. More is answered with 431.",
            low="256B",
            high="16MiB",
        ),
        Key(
            "header_timeout",
            "duration",
            "10s",
            "How long the head of a request may take to come, or a new connection to say "
            "something. A part of a head is answered with 408 then.",
            low="10ms",
            high="1h",
        ),
        Key(
            "body_size",
            "size",
            "1GiB",
            "How large the body of a request may be. More is answered with 413.",
            low="1B",
            high="1TiB",
            zero="as large as it is",
        ),
        Key(
            "io_timeout",
            "duration",
            "1m",
            "How long nothing of a body may come, or nothing of an answer be taken, before the "
            "connection is given up.",
            low="10ms",
            high="24h",
        ),
        Key(
            "keep_alive",
            "duration",
            "75s",
            "How long a connection may be idle between two requests. Behind a proxy, longer than "
            "that keeps its own.",
            low="10ms",
            high="24h",
        ),
        Key(
            "graceful_timeout",
            "duration",
            "30s",
            "How long requests may take to end after SIGTERM or SIGINT.",
            low="10ms",
            high="24h",
            zero="they are cut off",
        ),
        Key(
            "access_log",
            "string",
            "",
            "The file that gets a line for each request, in the combined format; `-` for stdout. "
            "Empty: none.",
        ),
    ),
    Table(
        "debug",
        "What the runtime says about a program that goes wrong.",
        Debug,
        Key(
            "leaks",
            "bool",
            False,
            "Whether to print, when the main goroutine returns, the goroutines that still wait: "
            "their stacks, what each waits on, and where it was started.",
        ),
        Key(
            "dump_signal",
            "choice",
            "none",
            "The signal at which the process prints all goroutines' stacks to stderr and goes on. "
            "SIGQUIT (Ctrl-\\) prints them and ends it, whatever is set here.",
            choices=("none", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGVTALRM"),
        ),
        Key(
            "control",
            "bool",
            True,
            "Whether the process answers `golibx dump`, `stats`, `tune` and `ps` of its own user "
            "and root, on a socket of the machine's own (Linux).",
        ),
    ),
    Table(
        "plugins",
        "Which plugins are loaded. Each may have a table of its own, `[plugins.NAME]`, whose keys "
        "it defines.",
        Plugins,
        Key(
            "enabled",
            "plugins",
            [],
            "Plugins to load, in this order: the name of a built-in or installed one, a module, "
            "`module:object`, or a file starting with `./`.",
        ),
        Key(
            "autoload",
            "bool",
            False,
            "Whether to load every installed plugin (entry points of group `golibx`) as well.",
        ),
    ),
)
_BEGIN: Final = "<!-- generated by `python -m golibx.schema FILE` from the schema: begin -->"
_END: Final = "<!-- generated: end -->"


def reference() -> str:
    """Every table and key, as the Markdown that docs/configuration.md holds."""
    return "\n".join(line for table in SCHEMA for line in _reference_of(table))


def _reference_of(table: Table) -> Iterator[str]:
    from textwrap import wrap

    yield f"### [{table.name}]"
    yield ""
    yield from wrap(table.description, 100, break_long_words=False, break_on_hyphens=False)
    yield ""
    yield "| key | default | allowed | |"
    yield "|---|---|---|---|"
    for key in table.keys:
        yield f"| `{key.name}` | `{toml_value(key.default)}` | {key.allowed} | {key.description} |"
    yield ""


def with_reference(document: str) -> str:
    """`document` with what stands between its two marker lines replaced by the reference.

    Raises ValueError when a marker is missing.
    """
    head, begin, rest = document.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"no lines {_BEGIN!r} and {_END!r}")
    return f"{head}{begin}\n{reference()}{end}{tail}"


def _main(arguments: list[str]) -> None:
    if not arguments:
        print(reference(), end="")
    for path in arguments:
        with open(path, encoding="utf-8") as file:
            document = with_reference(file.read())
        with open(path, "w", encoding="utf-8") as file:
            file.write(document)


if __name__ == "__main__":
    import sys

    _main(sys.argv[1:])
