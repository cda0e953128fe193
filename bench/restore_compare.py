#!/usr/bin/env python3
"""Restoring a snapshot with `snapshots restore`, side by side with stock `pg_restore -j2` of the same rows.

`./run bench restore [--blocks N] [--rounds N] [--work DIR]`. Same server, alternating in one run; ratios of CPU seconds are the
comparable number. Both sides load rows, build indexes and add keys; neither vacuums, analyzes or verifies. It writes docs/benchmarks.*
only for a chain of the size that the targets are about.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import measure
import memory
import report
from report import Number, machine, table, targets
from service import Broken, Service, binary, last_result, run, start, work_directory
from snapshot import FULL_BLOCKS, prepare, say

JOBS = 2
TABLES = ("blocks", "transactions", "events", "index_progress", "kysely_migration")


@dataclass
class Round:
    """One side, once."""

    cost: measure.Cost
    wal_mb: float
    rss_mb: float = 0.0
    steps: dict = field(default_factory=dict)


def arguments():
    parser = argparse.ArgumentParser(prog="./run bench restore", description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=FULL_BLOCKS, help=f"length of the chain; below {FULL_BLOCKS} nothing is recorded")
    parser.add_argument("--rounds", type=int, default=4, help="how often each side runs")
    parser.add_argument("--work", type=Path, help="directory to use and to keep; a chain that is in it already is used again")
    parser.add_argument("--perf", type=Path, help="one restore of ours under `perf record` into this file, and nothing else")
    return parser.parse_args()


class Bench:
    """The server, what is restored, and how each side restores it."""

    def __init__(self, service, work, rounds):
        self.service, self.work, self.rounds = service, work, rounds
        self.dump = work / "dump"
        self.objects = service.dir / "s3/objects/snapshots"
        self.counts = {}

    def target(self):
        self.service.sql("drop database if exists restored with (force)", database="postgres")
        self.service.sql("create database restored template template0", database="postgres")

    def ours(self, *flags, wrapper=()):
        """`snapshots restore` as a child of ours; returns (its result, its peak memory in MB)."""
        command = [*wrapper, self.service.binary, "restore", "--json", "--from", self.objects, "--jobs", JOBS, "--skip-vacuum",
                   "--skip-verify", "--data-dir", self.service.dir, *flags]
        env = self.service.env | {"DATABASE_URL": self.service.database_url("restored")}
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen([str(part) for part in command], env=env, stdout=said, stderr=subprocess.DEVNULL, text=True)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            result = last_result(said.read().splitlines())
        self.service.sql("checkpoint", database="restored")
        return result, used.ru_maxrss * 1024 / 1e6

    def stock(self):
        run(self.service.pg("pg_restore"), f"-j{JOBS}", "--no-owner", "-d", self.service.database_url("restored"), self.dump)
        # Pages that one side left to a later checkpoint are its work too.
        self.service.sql("checkpoint", database="restored")

    def dump_same_rows(self):
        """Stock's input: pg_dump of what ours restored, so that both load the same rows."""
        self.target()
        self.ours()
        shutil.rmtree(self.dump, ignore_errors=True)
        run(self.service.pg("pg_dump"), "-Fd", "-j2", "-Z0", "-N", "snapshots_restore", "-f", self.dump, "-d", self.service.database_url("restored"))
        self.counts = self.count()

    def count(self):
        return {name: int(self.service.sql(f"select count(*) from public.{name}", database="restored")) for name in TABLES}

    def lsn(self):
        return int(self.service.sql("select pg_current_wal_lsn() - '0/0'", database="postgres").split(".")[0])

    def measured(self, action):
        """One restore into a fresh database, from rest to the checkpoint after it."""
        self.target()
        self.service.sql("checkpoint", database="postgres")
        os.sync()
        wal = self.lsn()
        done, cost = measure.Meter({"postgres": self.service.postmaster}).cost(action)
        found = Round(cost, (self.lsn() - wal) / 1e6)
        if done:
            result, found.rss_mb = done
            found.steps = {step["name"]: step["seconds"] for step in result["outcome"]["steps"]}
        if self.count() != self.counts:
            raise Broken(f"the restored database has {self.count()} rows instead of {self.counts}")
        return found

    def alternate(self, sides, numbers=None):
        """{name: action} → {name: [Round]}; which goes first changes every round."""
        done = {name: [] for name in sides}
        for number in numbers or range(self.rounds):
            names = list(sides) if number % 2 == 0 else list(reversed(sides))
            for name in names:
                found = self.measured(sides[name])
                done[name].append(found)
                say(f"round {number + 1}, {name}: {found.cost.total:.1f} CPU s, {found.cost.wall:.1f} s, {found.wal_mb:.0f} MB of WAL")
        return done


def ratio(ours, stock):
    return sum(r.cost.total for r in ours) / sum(r.cost.total for r in stock)


def wall(ours, stock):
    return statistics.median(o.cost.wall / s.cost.wall for o, s in zip(ours, stock))


def numbers(done):
    ours, fast, stock = done["ours"], done["ours --fast, wal_level minimal"], done["pg_restore"]
    wal = statistics.median(f.wal_mb for f in fast) / statistics.median(s.wal_mb for s in stock)
    return [
        Number("restore.cpu_ratio", ratio(ours, stock), 1.05, "CPU seconds, client and server, ours ÷ stock, of sums over all rounds"),
        Number("restore.wall_ratio", wall(ours, stock), 0.9, "wall time, ours ÷ stock, median of the rounds"),
        Number("restore.fast_cpu_ratio", ratio(fast, stock), 1.0, "CPU seconds, `--fast` with wal_level minimal ÷ stock with replica"),
        Number("restore.fast_wall_ratio", wall(fast, stock), 0.7, "wall time of the same"),
        Number("restore.fast_wal_ratio", wal, 0.1, "WAL of the same"),
        Number("restore.rss_mb", max(r.rss_mb for r in ours + fast), 256, "peak resident memory of `snapshots restore` in MB, highest round"),
    ]


def rows(done):
    for name, rounds in done.items():
        mean = lambda pick: statistics.mean(pick(r) for r in rounds)
        cells = [mean(lambda r: r.cost.wall), mean(lambda r: r.cost.total), mean(lambda r: r.cost.cpu["clients"]), mean(lambda r: r.cost.cpu["postgres"])]
        yield [name, *(f"{cell:.1f}" for cell in cells), f"{mean(lambda r: r.wal_mb):.0f}"]


def steps(done):
    for name, rounds in done.items():
        if rounds[0].steps:
            times = {step: statistics.mean(r.steps[step] for r in rounds) for step in rounds[0].steps}
            yield f"- {name}: " + ", ".join(f"{step} {seconds:.1f}" for step, seconds in times.items())


def text(chain, done, rounds, peaks):
    header = ["means of all rounds", "wall s", "CPU s", "client", "PostgreSQL", "WAL, MB"]
    return f"""## Restore: `./run bench restore`

The snapshot of a synthetic chain of {chain['blocks']:,} blocks, {chain['transactions']:,} transactions and {chain['events']:,} events
({chain['database_bytes'] / 1e6:,.0f} MB in PostgreSQL), {rounds} rounds on {machine()}.

{targets(numbers(done))}
{table(header, list(rows(done)))}
Seconds of the steps of ours:

{chr(10).join(steps(done))}

Peak memory of other commands, MB: {", ".join(f"`{name}` {megabytes:.0f}" for name, megabytes in peaks.items())}.

### How it is measured

- Stock is `pg_restore -j2` of a directory that `pg_dump -Fd -Z0` made of the very rows that ours restored; ours is
  `snapshots restore --jobs 2` from the chunks, which also checks signature and digests, decompresses, and keeps its ledger. Both build
  all indexes and foreign keys. Both leave out vacuum, analyze and verification (`--skip-vacuum --skip-verify`).
- Both restore into a fresh database of one embedded server and end with a checkpoint. They alternate, and which goes first
  changes every round. Rows are counted afterwards. Autovacuum is off.
- The fast way is measured between two halves of those rounds, after the server was restarted with `wal_level = minimal`, and compared with stock under the server's
  default, `replica`, since an operator chooses that setting for it. What stock gains from the setting is in the table too.
- CPU seconds are user and system time of the client and of all of PostgreSQL. Kernel threads that write pages back are not counted.
"""


def restart(running, settings):
    """The same service with other settings of its server; `running` holds the one to stop in the end."""
    for setting in settings:
        running[0].sql(f"alter system set {setting}")
    running[0].stop()
    running[0] = Service(running[0].binary, running[0].work)
    return running[0]


def benchmark(running, args, work):
    service = running[0]
    chain = prepare(service, args.blocks)
    if not any((service.dir / "s3/objects/snapshots").glob("*/latest.json")):
        service.command("create", "--wait", "--url", service.url)
    bench = Bench(service, work, args.rounds)
    if args.perf:
        bench.target()
        bench.ours(wrapper=("perf", "record", "-q", "-F", "499", "-g", "-o", args.perf))
        return
    bench.dump_same_rows()
    # Half of them before the fast ones and half after: a machine that grows slower meanwhile favours nobody.
    half = (args.rounds + 1) // 2
    sides = {"pg_restore": bench.stock, "ours": bench.ours}
    done = bench.alternate(sides, range(half))
    bench.service = restart(running, ["wal_level = minimal", "max_wal_senders = 0"])
    fast = bench.alternate({"pg_restore, wal_level minimal": bench.stock, "ours --fast, wal_level minimal": lambda: bench.ours("--fast")})
    bench.service = restart(running, ["wal_level = replica", "max_wal_senders = 10"])
    for name, rounds in (bench.alternate(sides, range(half, args.rounds)) if half < args.rounds else {}).items():
        done[name] += rounds
    done |= fast
    told = text(chain, done, args.rounds, memory.peaks(bench))
    print(told)
    if chain["blocks"] >= FULL_BLOCKS:
        report.publish("restore", numbers(done), told)
    else:
        say("a trial: docs/benchmarks.* stay as they are")


def main():
    args = arguments()
    with work_directory(args.work) as work:
        running = [Service(binary(), work)]
        try:
            benchmark(running, args, work)
        finally:
            running[0].stop()


if __name__ == "__main__":
    start(main)
