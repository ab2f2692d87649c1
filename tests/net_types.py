"""What type checkers are told of golibx.net: mypy reads this file, test_net_edges.py runs it."""

from __future__ import annotations

import io
from typing import assert_type

from golibx.net import Conn


def files(conn: Conn) -> None:
    """As typeshed says it of socket.makefile()."""
    assert_type(conn.makefile(), io.TextIOWrapper)
    assert_type(conn.makefile("rw", 100), io.TextIOWrapper)
    assert_type(conn.makefile("rb"), io.BufferedReader)
    assert_type(conn.makefile("wb", -1), io.BufferedWriter)
    assert_type(conn.makefile("rwb"), io.BufferedRWPair)
    assert_type(conn.makefile("rwb", 0), io.RawIOBase)
    assert_type(conn.makefile("rb", 4096), io.IOBase)
    assert_type(conn.makefile("rb").readline(), bytes)
    assert_type(conn.makefile().readline(), str)
