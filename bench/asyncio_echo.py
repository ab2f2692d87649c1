"""An echo server on asyncio, as a Protocol: its quickest way.  usage: asyncio_echo.py PORT"""

from __future__ import annotations

import asyncio
from typing import cast

import harness

# asyncio reads into a fresh buffer of this many bytes.
_BUFFER = 256 * 1024


class Echo(asyncio.Protocol):
    """Sends back what comes; a message of one byte is a command first."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer at once, on the loop."""
        if len(data) == 1:
            harness.disturb(data)
        self._transport.write(data)


def raise_mmap_threshold() -> None:
    """Let malloc serve asyncio's read buffers from the heap, as in a process that has run a while.

    glibc maps blocks of 128 KiB and more one by one, which makes a request up to four times as
    dear, until the program has freed a mapped block of that size: then it uses the heap for them.
    """
    bytes(2 * _BUFFER)


async def main() -> None:
    """Serve until the process is ended."""
    raise_mmap_threshold()
    loop = asyncio.get_running_loop()
    port = harness.echo_port()
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=harness.BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
