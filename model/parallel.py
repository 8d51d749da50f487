"""The thread pool that reads and decodes photos, and the streams around it: ordered map, batches, prefetch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from model.cores import available_cores

Source = TypeVar("Source")
Result = TypeVar("Result")


@contextmanager
def decode_pool() -> Iterator[ThreadPoolExecutor]:
    """A pool with one thread per core, for reading and decoding; decoders release the interpreter lock.

    Who leaves early waits for what has begun, and not for the photos that are still to be read.
    """
    pool = ThreadPoolExecutor(max_workers=available_cores(), thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def map_in_order(
    pool: ThreadPoolExecutor, function: Callable[[Source], Result], sources: Iterable[Source], buffer_size: int = 64
) -> Iterator[Result]:
    """`map` in a pool: results in the order of the sources, at most `buffer_size` of them in memory."""
    waiting: deque[Future[Result]] = deque()
    iterator = iter(sources)
    try:
        for source in islice(iterator, buffer_size):
            waiting.append(pool.submit(function, source))
        while waiting:
            result = waiting.popleft().result()
            for source in islice(iterator, 1):
                waiting.append(pool.submit(function, source))
            yield result
    finally:
        for future in waiting:
            future.cancel()


def batched(items: Iterable[Result], size: int) -> Iterator[list[Result]]:
    """Cuts a stream into lists of `size`; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def prefetch(items: Iterable[Result], depth: int) -> Iterator[Result]:
    """Yields items in order, each after the `depth` - 1 items behind it have been produced too."""
    waiting: deque[Result] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) >= depth:
            yield waiting.popleft()
    yield from waiting
