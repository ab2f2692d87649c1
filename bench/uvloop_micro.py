"""The microbenchmarks on asyncio with uvloop's loop.  usage: uvloop_micro.py CASE OPERATIONS"""

# The peers are optional, and not all are typed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import asyncio_micro
import uvloop

if __name__ == "__main__":
    uvloop.run(asyncio_micro.main())
