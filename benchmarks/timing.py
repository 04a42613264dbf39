"""How benchmarks take times and print them."""

import time

import numpy as np


def seconds(function) -> float:
    """CPU seconds of a call in one thread: what else the machine does counts less than by the clock."""
    start = time.process_time()
    function()
    return time.process_time() - start


def report(name, fast, slow):
    """Print two lists of seconds of the same work, measured pair by pair, and the ratios slow/fast."""
    fast, slow = np.array(fast), np.array(slow)
    low, middle, high = np.percentile(slow / fast, [16, 50, 84])
    print(f"{name}: {1e3 * fast.mean():.2f} ms against {1e3 * slow.mean():.2f} ms; ratio of the means "
          f"{slow.mean() / fast.mean():.1f}, of a pair {middle:.1f} ({low:.1f} to {high:.1f}, "
          f"lowest {(slow / fast).min():.1f}), n = {len(fast)}")


def wall(function) -> float:
    """Seconds by the clock: for several processes, and for the disk."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
