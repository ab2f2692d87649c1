"""A WSGI application, as any server runs it, with beside.py's threads in its process.

/WORD     the word, once 100 requests are here at once, and 0.1 s later
POST      what was sent
/state    how far the others have got
/stop     ends them, and tells what the blocked call has returned
"""

import threading
import time

import beside

everybody = threading.Barrier(beside.TASKS, timeout=60)
others = beside.Beside()
begun = threading.Lock()


def app(environ, start_response):
    path = environ["PATH_INFO"]
    with begun:  # in the process that answers, which may be a fork of the one that imports
        if others.turns == 0:
            others.start()
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    elif path == "/state":
        body = b"%d %d" % others.state()
    elif path == "/stop":
        body = repr(others.stop()).encode()
    else:
        everybody.wait()
        time.sleep(0.1)
        body = path[1:].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
