"""Ours and a peer's measurements in turns, each in a process of its own, for `language.py`, `asking.py` and `bridge.py`."""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Found = dict[str, float]


def peak_memory_mb() -> float:
    """The largest resident size this process has had, in MB of a million bytes."""
    # ru_maxrss would count what the parent held when it forked; VmHWM is this program's own.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def apart(*command: str, limit: float | None = None) -> dict:
    """What a process of its own prints on its last line: one JSON object. One that takes more than `limit` seconds is
    ended, and `subprocess.TimeoutExpired` raised."""
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=limit).stdout
    return json.loads(printed.splitlines()[-1])


def itself(script: str, *arguments: str, limit: float | None = None) -> dict:
    """The same of a script of Python."""
    return apart(sys.executable, script, *arguments, limit=limit)


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
