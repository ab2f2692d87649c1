"""The application that tests/test_serve.py has served: a path for each thing that is tried."""

import io
import json
import os
import sys
import threading
import time
from pathlib import Path
from wsgiref.validate import validator

import golibx

PATTERN = bytes(range(256)) * 1024

hogging = threading.Event()
stop = threading.Event()
lock = threading.Lock()  # made at import
counts = {"closed": 0, "made": 0}
here = Path(__file__).parent
paths = {}


def path(function):
    """The function answers the path that begins with its name."""
    paths[function.__name__] = function
    return function


def app(environ, start_response):
    return paths.get(environ["PATH_INFO"].split("/")[1], hello)(environ, start_response)


def make():
    counts["made"] += 1
    return app


config = {"not": "an application"}


async def asgi(scope, receive, send):
    pass


def text(start_response, body, *headers, status="200 OK"):
    start_response(status, [("Content-Type", "text/plain"), *headers])
    return [body.encode() if isinstance(body, str) else body]


class Blocks:
    """An iterable with a close() that is counted."""

    def __init__(self, *blocks, error=None):
        self.blocks = iter(blocks)
        self.error = error

    def __iter__(self):
        return self

    def __next__(self):
        for block in self.blocks:
            return block
        if self.error is not None:
            raise self.error
        raise StopIteration

    def close(self):
        counts["closed"] += 1


class Endless(Blocks):
    def __next__(self):
        return PATTERN


# ---- what comes in ----


def hello(environ, start_response):
    return text(start_response, "hello")


@path
def environ(environ, start_response):
    plain = {key: value for key, value in environ.items() if isinstance(value, str | bool)}
    return text(start_response, json.dumps(plain))


def checked(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


paths["validated"] = validator(checked)


@path
def echo(environ, start_response):
    return text(start_response, environ["wsgi.input"].read())


@path
def lines(environ, start_response):
    read = environ["wsgi.input"]
    return text(start_response, repr([read.readline(), read.readlines()]))


@path
def parts(environ, start_response):
    read = environ["wsgi.input"]
    return text(start_response, repr([read.read(3), next(iter(read)), read.read()]))


@path
def ignored(environ, start_response):
    return text(start_response, "ignored")


# ---- what goes out ----


@path
def write(environ, start_response):
    write = start_response("200 OK", [])
    write(b"one ")
    write(b"")
    write(b"two ")
    return [b"three"]


@path
def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Blocks(b"one ", b"", b"two ", b"three")


@path
def none(environ, start_response):
    start_response("204 No Content", [])
    return Blocks(b"dropped")


@path
def same(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"'), ("Content-Length", "5")])
    return []


@path
def empty(environ, start_response):
    start_response("200 OK", [])
    return []


@path
def hop(environ, start_response):
    headers = [("Transfer-Encoding", "chunked"), ("Keep-Alive", "x"), ("Connection", "close")]
    return text(start_response, "hop", *headers)


@path
def date(environ, start_response):
    return text(start_response, "own", ("Date", "today"), ("Server", "mine"))


@path
def big(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(PATTERN) * 8))])
    return [PATTERN] * 8


def pattern_from(at):
    file = (here / "pattern").open("rb")
    file.seek(at)
    return file


@path
def file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](pattern_from(1))


@path
def range_(environ, start_response):
    start_response("206 Partial Content", [("Content-Length", "512")])
    return environ["wsgi.file_wrapper"](pattern_from(256), 100)


@path
def memory(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](io.BytesIO(PATTERN), 1000)


@path
def endless(environ, start_response):
    start_response("200 OK", [])
    return Endless()


# ---- what is wrong ----


@path
def twice(environ, start_response):
    start_response("200 OK", [])
    return text(start_response, "not to be seen")


@path
def anew(environ, start_response):
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("a reason")
    except ValueError:
        start_response("503 Busy", [("X-Second", "2")], sys.exc_info())
    return [b"busy"]


@path
def late(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "10")])
    write(b"12345")
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("500 Oops", [], sys.exc_info())
    return [b"67890"]


@path
def long(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"12345"]


@path
def short(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return Blocks(b"12345")


SPLITTING = {"cr": "a\rb", "lf": "a\nX: y", "nul": "a\0b", "euro": "\u20ac"}


@path
def split(environ, start_response):
    name = environ["PATH_INFO"].removeprefix("/split/")
    return text(start_response, "split", ("X-Name", SPLITTING[name]))


@path
def name(environ, start_response):
    return text(start_response, "split", ("X Name\r\nX-Other: 1", "a"))


@path
def status(environ, start_response):
    return text(start_response, "split", status="200 OK\r\nX: y")


@path
def raises(environ, start_response):
    raise ValueError("a secret")


@path
def exits(environ, start_response):
    sys.exit("a secret")


@path
def breaks(environ, start_response):
    start_response("200 OK", [])
    return Blocks(b"one ", error=ValueError("in the midst"))


@path
def nothing(environ, start_response):
    return [b"no start_response"]


@path
def wrong(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


# ---- what waits, and what does not ----


@path
def count(environ, start_response):
    return text(start_response, json.dumps(counts))


@path
def stats(environ, start_response):
    return text(start_response, json.dumps({**golibx.stats(), "pid": os.getpid()}))


@path
def sleep(environ, start_response):
    with lock:
        time.sleep(0.0001)
    time.sleep(0.2)
    return text(start_response, "slept")


@path
def hog(environ, start_response):
    hogging.set()
    while not stop.is_set():
        sum(range(1000))
    return text(start_response, "the hog ended")


@path
def slow(environ, start_response):
    hogging.set()
    stop.wait()
    return text(start_response, "slow")


@path
def begun(environ, start_response):
    hogging.wait()
    return text(start_response, "begun")


@path
def finish(environ, start_response):
    stop.set()
    return text(start_response, "finished")
