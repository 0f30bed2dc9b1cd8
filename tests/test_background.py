"""A stage in a thread of its own: the same items, errors and end; and no thread after closing."""

import itertools
import threading
import time

import pytest

from diffsep_jax.inference.background import in_background


def threads_end(before: int) -> bool:
    """Whether there are soon as many threads as before."""
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    return threading.active_count() <= before


@pytest.mark.parametrize("depth", [1, 3])
def test_the_same_items_in_order(depth: int) -> None:
    items = (i * i for i in range(20))
    assert list(in_background(items, depth)) == [i * i for i in range(20)]


def test_at_most_so_many_are_ahead() -> None:
    computed = []

    def items():
        for i in range(100):
            computed.append(i)
            yield i

    ahead = in_background(items(), 3)
    assert next(ahead) == 0
    time.sleep(0.3)
    # One taken, three waiting, one that waits to be put.
    assert len(computed) == 5
    ahead.close()


def test_an_error_comes_after_the_items_before_it() -> None:
    def items():
        yield 1
        raise ValueError("broken")

    ahead = in_background(items(), 4)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_closing_closes_the_items_through_two_stages() -> None:
    before = threading.active_count()
    closed = threading.Event()

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    def doubled(numbers):
        try:
            for number in numbers:
                yield 2 * number
        finally:
            numbers.close()

    ahead = in_background(doubled(in_background(items(), 2)), 2)
    assert [next(ahead) for _ in range(5)] == [0, 2, 4, 6, 8]
    ahead.close()
    assert closed.wait(10)
    assert threads_end(before)
