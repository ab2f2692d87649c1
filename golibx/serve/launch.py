"""From the configuration to a server: sockets, processes, the run, the application, and the end.

The sockets are opened before anything else, so that an address in use is told at once, and the
application is imported in the run, when the standard library is patched: what it does at import may
wait, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import stat
from typing import TYPE_CHECKING

import golibx
from golibx import _core, net
from golibx import signal as golibx_signal
from golibx.patch.stdlib import patch_all
from golibx.program import Program
from golibx.runtime import Runtime
from golibx.serve.accesslog import AccessLog
from golibx.serve.application import load
from golibx.serve.processes import Supervisor
from golibx.serve.server import Server, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from golibx.config import Config

__all__ = ["ListenError", "launch", "open_listeners"]

_NS = 1e9
_OTHER_DESCRIPTORS = 256
"""What a process has open besides connections, roughly."""
_IDLE_ROUNDS = 1
"""Of sysmon. A server that waits for sockets all the time looks as if it were about to block, and
on one CPU a fifth of its time went to sysmon's looks. After a call that does block sysmon looks as
often as in any program."""
_LEEWAY_S = 5.0
"""What a worker may take longer to end than it should, before it is killed."""


class ListenError(Exception):
    """An address that can't be listened on; its text names it."""


def launch(config: Config) -> int:
    """Serves until a signal ends that; returns the exit status, 0.

    Raises:
        ListenError: an address can't be listened on, or the access log not be written.
        ConfigError: for what plugins find wrong.
        SystemExit: there is no such application.
        BaseException: what the application's module raises.
    """
    settings = config.serve
    log = _open_log(settings.access_log) if settings.access_log else None
    with contextlib.ExitStack() as stack:
        sockets = open_listeners(settings.bind, settings.backlog, stack)
        lifeline: socket.socket | None = None
        if settings.workers > 1:
            patience = settings.graceful_timeout_ns + config.runtime.shutdown_timeout_ns
            supervisor = Supervisor(settings.workers, patience / _NS + _LEEWAY_S, say)
            status = supervisor.run(lambda: _announce(config, sockets), sockets)
            if status is not None:
                return status
            lifeline = supervisor.lifeline
            stack.pop_all()  # the files of sockets are the supervisor's to remove
        work(config, sockets, log, lifeline)
    return 0


def work(
    config: Config,
    sockets: Sequence[socket.socket],
    log: AccessLog | None,
    lifeline: socket.socket | None,
) -> None:
    """Serves in this process.

    Args:
        config: of the run.
        sockets: that listen.
        log: for requests.
        lifeline: of the supervisor, or None.
    """
    _allow_descriptors(config.serve.connections)
    program = Program("function", config.serve.app)
    program.prepare()
    patch_all(config.patch.stdlib)
    runtime = Runtime(config)
    program.run(lambda: _serve(config, sockets, log, lifeline), runtime)


def _serve(
    config: Config,
    sockets: Sequence[socket.socket],
    log: AccessLog | None,
    lifeline: socket.socket | None,
) -> None:
    """The main goroutine."""
    settings = config.serve
    if config.origin("sysmon.idle_rounds") == "default":
        golibx.tune({"sysmon.idle_rounds": _IDLE_ROUNDS})
    application = load(settings.app)
    listeners = [_core.adopt_socket(net.Listener, each) for each in sockets]
    server = Server(application, settings, listeners, log)
    stop: golibx.Chan[signal.Signals] = golibx.Chan(1)
    numbers = [signal.SIGTERM] if lifeline else [signal.SIGTERM, signal.SIGINT]
    golibx_signal.notify(stop, *numbers)
    server.start()
    if lifeline is None:
        _announce(config, listeners)
        stop.recv()
    else:
        supervisor = _core.adopt_socket(_core.Socket, lifeline)
        supervisor.send(b".")
        golibx.select(stop.on_recv(), supervisor.on_readable())
    # A second one does what it does to any process.
    golibx_signal.stop(stop)
    if lifeline is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    left = server.stop(settings.graceful_timeout_ns / _NS)
    if left:
        say(f"{left} connections were not done in time, and are cut off (process {os.getpid()})")


def _announce(config: Config, sockets: Sequence[socket.socket | net.Listener]) -> None:
    where = ", ".join(_shown(each.getsockname()) for each in sockets)
    workers = config.serve.workers
    processes = f", {workers} workers" if workers > 1 else ""
    say(f"serving {config.serve.app} on {where} (process {os.getpid()}{processes})")


def _shown(address: object) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def _open_log(path: str) -> AccessLog:
    try:
        return AccessLog(path)
    except OSError as exc:
        raise ListenError(f"{path}: can't be written: {exc.strerror}") from None


def _allow_descriptors(connections: int) -> None:
    """Raises the process's own limit to what so many need, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# ---- listening ----


def open_listeners(
    addresses: Sequence[str], backlog: int, stack: contextlib.ExitStack
) -> list[socket.socket]:
    """A listening socket for each "host:port" or "unix:path"; the stack's end removes their files.

    Raises:
        ListenError: one can't be listened on.
    """
    sockets = []
    for address in addresses:
        path = address.removeprefix("unix:")
        try:
            if path != address:
                sockets.append(_unix_listener(path, backlog, stack))
            else:
                sockets.append(net.listening_socket(address, backlog=backlog))
        except ValueError as exc:
            raise ListenError(f"{exc}, or unix:path") from None
        except OSError as exc:
            number = exc.errno or 0
            why = os.strerror(number) if number > 0 else exc.strerror
            hint = ": end who has it, or take another port" if number == errno.EADDRINUSE else ""
            raise ListenError(f"can't listen on {address}: {why}{hint}") from None
    return sockets


def _unix_listener(path: str, backlog: int, stack: contextlib.ExitStack) -> socket.socket:
    """On a file, in the place of one that no process listens on any more."""
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    _remove_dead(path)
    listener.bind(path)
    listener.listen(backlog)
    stack.callback(_remove, path, os.stat(path))
    return listener


def _remove_dead(path: str) -> None:
    """The file of a socket after its server has died. Others are left, and in the way."""
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _remove(path: str, made: os.stat_result) -> None:
    """The file of a socket, unless it is another server's by now."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            os.unlink(path)
