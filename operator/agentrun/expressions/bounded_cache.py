"""A cache that is limited by the memory of its entries, not by their number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The most recently used entries, of at most ``most`` bytes together. Safe to share between threads.

    Entries are dropped at any time, so a lost entry must cost only time.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    @property
    def size(self) -> int:
        """The bytes of all entries."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The entry of ``key``, or None. The entry counts as used."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep ``value``, which takes ``size`` bytes. The least recently used entries are dropped to make room.

        A ``value`` larger than the whole cache is dropped too, after all other entries.
        """
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
