"""Which goroutine a log record is of."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from golibx import go, logrecords, run


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def logger_to(stream: io.StringIO) -> logging.Logger:
    logger = logging.getLogger("goroutines")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(goroutine)d %(goroutineName)s: %(message)s"))
    logger.addHandler(handler)
    return logger


def test_records_have_the_goroutine() -> None:
    logging.setLogRecordFactory(logrecords.factory())
    out = io.StringIO()
    logger = logger_to(out)

    def main() -> None:
        logger.info("main")
        worker = go(logger.info, "worker")
        worker.name = "w-1"
        worker.join()

    logger.info("before")
    run(main)
    assert out.getvalue() == "0 : before\n1 main: main\n2 w-1: worker\n"


def test_a_factory_around_another() -> None:
    class Record(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Record)
    logging.setLogRecordFactory(logrecords.factory())
    record = logging.getLogger("x").makeRecord("x", 20, "f", 1, "text", (), None)
    assert isinstance(record, Record)
    assert (vars(record)["goroutine"], vars(record)["goroutineName"]) == (0, "")
    record = logrecords.factory(logging.LogRecord)("x", 20, "f", 1, "text", (), None)
    assert type(record) is logging.LogRecord
