"""CPU seconds, wall time and peak memory of process trees, from /proc. Linux only.

CPU is user + system time of a process, of its live descendants, and of children it has already waited for: what a
server spends in processes that come and go is counted. Kernel threads (writing dirty pages back) are not.
"""

import os
import resource
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """(parent, CPU seconds including waited-for children) of a process, or None once it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold spaces and brackets; fields are counted behind it (proc(5)).
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / TICKS


def _table():
    found = {int(name): _stat(name) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: stat for pid, stat in found.items() if stat}


def _below(table, root):
    """`root` and its live descendants."""
    children = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def trees_cpu(roots):
    """CPU seconds so far of each named tree: {name: pid} → {name: seconds}."""
    table = _table()
    return {name: sum(table[pid][1] for pid in _below(table, root) if pid in table) for name, root in roots.items()}


def children_cpu():
    """CPU seconds of our own children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reset_peak_rss(pid):
    """Makes the peak of a process's memory start at what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss_mb(pid):
    """Peak resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM in /proc/<pid>/status")


def tree_bytes(path):
    """Bytes of the files below a directory; files that vanish meanwhile count nothing."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                pass
    return total


@dataclass
class Cost:
    """What something took."""

    wall: float = 0.0
    cpu: dict = field(default_factory=dict)

    @property
    def total(self):
        return sum(self.cpu.values())

    def __add__(self, other):
        names = list(self.cpu) + [name for name in other.cpu if name not in self.cpu]
        cpu = {name: self.cpu.get(name, 0) + other.cpu.get(name, 0) for name in names}
        return Cost(self.wall + other.wall, cpu)


class Meter:
    """Measures actions against a set of servers that run all the time: {name: pid}."""

    def __init__(self, servers):
        self.servers = servers

    def cost(self, action):
        """Runs `action` and returns (its result, its cost); our children are the `clients`."""
        before, clients, start = trees_cpu(self.servers), children_cpu(), time.monotonic()
        result = action()
        wall = time.monotonic() - start
        after = trees_cpu(self.servers)
        cpu = {"clients": children_cpu() - clients}
        cpu |= {name: after[name] - before[name] for name in self.servers}
        return result, Cost(wall, cpu)


def machine_cpu():
    """CPU seconds of the whole machine so far, kernel threads included: for work of processes that nobody can name beforehand."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Sampler:
    """Follows the servers' CPU while something runs, so that a span of time can be priced afterwards."""

    PERIOD = 0.05

    def __init__(self, servers, watched=None):
        self.servers, self.watched = servers, watched
        self.times, self.seconds, self.watched_bytes = [], [], 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _follow(self):
        while True:
            ended = self._stop.wait(self.PERIOD)
            self.times.append(time.time())
            self.seconds.append(trees_cpu(self.servers))
            if self.watched:
                self.watched_bytes = max(self.watched_bytes, tree_bytes(self.watched))
            if ended:
                return

    def between(self, start, end):
        """Cost of the time from `start` to `end` (seconds since the epoch), interpolated between samples."""
        low, high = self._at(start), self._at(end)
        return Cost(end - start, {name: high[name] - low[name] for name in self.servers})

    def _at(self, when):
        place = min(max(bisect_left(self.times, when), 1), len(self.times) - 1)
        left, right = self.times[place - 1], self.times[place]
        share = min(max((when - left) / (right - left), 0), 1)
        low, high = self.seconds[place - 1], self.seconds[place]
        return {name: low[name] + share * (high[name] - low[name]) for name in self.servers}
