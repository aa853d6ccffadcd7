"""A bounded pipe between two threads, through which errors travel as well as items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Abandoned(Exception):
    """The other end is no longer interested."""


class Pipe(Generic[Item]):
    """One producer puts, one consumer iterates; at most `depth` items wait in between."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._abandoned = False
        self._fault: BaseException | None = None

    def put(self, item: Item) -> None:
        """Wait for room; raises Abandoned when nobody will read."""
        with self._changed:
            while len(self._items) >= self._depth and not self._abandoned:
                self._changed.wait()
            if self._abandoned:
                raise Abandoned
            self._items.append(item)
            self._changed.notify_all()

    def end(self, fault: BaseException | None = None) -> None:
        """No more items will come; the consumer raises `fault` after the last one."""
        with self._changed:
            self._ended = True
            self._fault = fault
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody reads any more: the producer, and a consumer in another thread, get Abandoned."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def items(self, tick_s: float | None = None) -> Iterator[Item | None]:
        """All items in order; with `tick_s`, None whenever that many seconds brought nothing."""
        while True:
            with self._changed:
                arrived = self._changed.wait_for(self._has_news, tick_s)
                if self._abandoned:
                    raise Abandoned
                if self._items:
                    item: Item | None = self._items.popleft()
                    self._changed.notify_all()
                elif not arrived:
                    item = None
                elif self._fault is not None:
                    raise self._fault
                else:
                    return
            yield item

    def _has_news(self) -> bool:
        return bool(self._items) or self._ended or self._abandoned

    def fill_from(self, items: Iterable[Item], name: str) -> threading.Thread:
        """Start a thread that puts all items and then ends the pipe, with the error if there was one."""
        # What it logs belongs to whoever started it.
        thread = threading.Thread(target=copy_context().run, args=(self._fill, items), name=name, daemon=True)
        thread.start()
        return thread

    def _fill(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                self.put(item)
        except Abandoned:
            self.end()
        except BaseException as fault:  # noqa: BLE001 -- whatever it is, the consumer's thread is where it belongs
            self.end(fault)
        else:
            self.end()
