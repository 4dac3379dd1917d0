"""Ours and a peer's measurements in turns, for `language.py`, `asking.py` and `bridge.py`."""

import resource
import statistics
from collections.abc import Callable
from pathlib import Path

Found = dict[str, float]


def peak_memory_mb() -> float:
    """The most this process has held, in MB of a million bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def pairs(ours: Callable[[], Found], theirs: Callable[[], Found], count: int, what: str) -> tuple:
    """`count` pairs, ours first in every second one: both medians of `what`, the ratios ours over theirs (median, least,
    most), and both medians of `memory`."""
    found = []
    for number in range(count):
        ways = [ours, theirs]
        order = [0, 1] if number % 2 == 0 else [1, 0]
        pair = {side: ways[side]() for side in order}
        found.append((pair[0], pair[1]))
    values = [[pair[side][what] for pair in found] for side in (0, 1)]
    ratios = [a / b for a, b in zip(*values)]
    medians = [statistics.median(side) for side in values]
    memory = [statistics.median(pair[side]["memory"] for pair in found) for side in (0, 1)]
    return medians, (statistics.median(ratios), min(ratios), max(ratios)), memory
