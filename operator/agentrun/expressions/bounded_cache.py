"""A cache that is bounded by what its entries take up, not by their number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The entries used last, of at most ``most`` bytes altogether. Safe to share between threads.

    Losing an entry must cost time only.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes that the entries take up."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The entry of ``key``, which counts as used; None: there is none."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep ``value``, which takes up ``size`` bytes, if that is possible at all; others make room for it."""
        with self._lock:
            before = self._entries.pop(key, None)
            self._size += size - (before[1] if before is not None else 0)
            self._entries[key] = value, size
            while self._size > self._most:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._size -= dropped

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0
