"""A server that sends back what it gets, a goroutine per connection.

golibx run examples/echo.py [HOST:PORT]
"""

import sys

from golibx import net


def echo(conn: net.Conn) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


listener = net.listen(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000")
print("listening on {}:{}".format(*listener.address), flush=True)
net.serve(echo, listener)
