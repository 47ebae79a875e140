"""`Intervals`: a set of byte positions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Intervals:
    """A set of byte positions as sorted, disjoint, non-adjacent ranges. Not thread-safe."""

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def __iter__(self) -> zip[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> int:
        """Add the positions [start, end); return how many of them are new."""
        if start >= end:
            return 0
        ends = self._ends
        if ends and start == ends[-1]:  # the usual case: one writer that goes on
            ends[-1] = end
            self.total += end - start
            return end - start
        if not ends:
            self._starts.append(start)
            ends.append(end)
            self.total = end - start
            return self.total
        first = bisect_left(ends, start)  # the first range that touches or follows
        last = bisect_right(self._starts, end)  # one past the last range that touches
        before = self.total
        if first < last:
            self.total -= sum(ends[i] - self._starts[i] for i in range(first, last))
            start = min(start, self._starts[first])
            end = max(end, ends[last - 1])
        self._starts[first:last] = [start]
        ends[first:last] = [end]
        self.total += end - start
        return self.total - before

    def count_missing(self, start: int, end: int) -> int:
        """Return how many of the positions [start, end) are not there."""
        if not self._ends or start >= self._ends[-1]:
            return end - start
        return sum(last - first for first, last in self.missing(start, end))

    def count_touching(self, start: int, end: int) -> int:
        """Return how many ranges overlap [start, end) or touch it."""
        return bisect_right(self._starts, end) - bisect_left(self._ends, start)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps within [start, end), in order."""
        gaps = []
        for i in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[i] >= end:
                break
            if self._starts[i] > start:
                gaps.append((start, self._starts[i]))
            start = self._ends[i]
        if start < end:
            gaps.append((start, end))
        return gaps

    def remove(self, start: int, end: int) -> int:
        """Drop the positions [start, end); return how many were there."""
        first = bisect_right(self._ends, start)  # the first range that reaches beyond
        last = bisect_left(self._starts, end)
        if start >= end or first >= last:
            return 0
        before = self.total
        kept = [(self._starts[first], start), (end, self._ends[last - 1])]
        kept = [(left, right) for left, right in kept if left < right]
        self.total -= sum(self._ends[i] - self._starts[i] for i in range(first, last))
        self.total += sum(right - left for left, right in kept)
        self._starts[first:last] = [left for left, _ in kept]
        self._ends[first:last] = [right for _, right in kept]
        return before - self.total

    @property
    def end(self) -> int:
        """One past the last position."""
        return self._ends[-1] if self._ends else 0

    @property
    def prefix(self) -> int:
        """The end of the range that starts at 0."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0
