"""The asyncio echo server with uvloop's loop.  usage: uvloop_echo.py PORT"""

# The peers are optional, and not all are typed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import asyncio_echo
import uvloop

if __name__ == "__main__":
    uvloop.run(asyncio_echo.main())
