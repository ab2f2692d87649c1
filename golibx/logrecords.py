"""Which goroutine wrote a line of a log.

    logging.setLogRecordFactory(logrecords.factory())
    logging.basicConfig(format="%(asctime)s [%(goroutine)d %(goroutineName)s] %(message)s")

Records have a thread's number and name, which are the goroutine's as far as threading knows it. An
id that is short, in the order of starting and the same in dumps is of more use. And the labels of
golibx.labels() say what the goroutine works on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from golibx import _core
from golibx.labels import labels

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["factory"]


def factory(
    inner: Callable[..., logging.LogRecord] | None = None,
) -> Callable[..., logging.LogRecord]:
    """A log record factory, for logging.setLogRecordFactory(), that notes the goroutine.

    Its records have `goroutine`, the id, and `goroutineName`; outside of goroutines 0 and "". They
    have `goroutineLabels`, a dict of the labels, which may be empty, also outside of goroutines.

    Args:
        inner: makes the records; None for the factory that is set now.
    """
    make = logging.getLogRecordFactory() if inner is None else inner

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        goroutine = _core.current()
        record.goroutine = 0 if goroutine is None else goroutine.id
        record.goroutineName = "" if goroutine is None else goroutine.name
        # A dict of its own, since records are pickled.
        record.goroutineLabels = dict(labels.current())
        return record

    return make_record
