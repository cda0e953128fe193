#!/usr/bin/env python3
"""Cutting and publishing a snapshot, side by side with the original's own script, and restoring both with stock tools.

`./run bench snapshot [--blocks N] [--rounds N] [--work DIR] [--profile]`. Same database, same bucket, alternating in one run;
ratios of CPU seconds are the comparable number, since others may use the machine meanwhile. It writes docs/benchmarks.* only for a
chain of the size that the targets are about.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import measure
import report
from restore import restore_both
from service import Service, binary, run, start, work_directory
from summary import numbers, text

# The targets are about at least this many blocks.
FULL_BLOCKS = 80_000
IDLE_SECONDS = 10
# Steps that run side by side are priced together.
STEPS = [["plan"], ["dump"], ["compress"], ["checksum", "upload"], ["publish"], ["promote"]]


def say(message):
    print(f"bench: {message}", file=sys.stderr, flush=True)


@dataclass
class Round:
    """One side, once."""

    cost: measure.Cost
    phases: dict = field(default_factory=dict)
    archive_bytes: int = 0
    scratch_bytes: int = 0
    rss_mb: float = 0.0
    archive: Path = None


@dataclass
class Findings:
    """All that was measured."""

    chain: dict
    rounds: int
    idle: measure.Cost
    ours: list
    script: list
    restores: dict


def arguments():
    parser = argparse.ArgumentParser(prog="./run bench snapshot", description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=FULL_BLOCKS, help=f"length of the chain; below {FULL_BLOCKS} nothing is recorded")
    parser.add_argument("--rounds", type=int, default=7, help="how often each side runs")
    parser.add_argument("--restores", type=int, default=3, help="how often each archive is restored; 0 leaves it out")
    parser.add_argument("--work", type=Path, help="directory to use and to keep; a chain that is in it already is used again")
    parser.add_argument("--profile", action="store_true", help="one round of ours under `perf record`, and nothing else")
    return parser.parse_args()


def prepare(service, blocks):
    """Loads the chain unless it is there, and brings the database to rest. Returns what is in it."""
    # Autovacuum would work for whichever side happens to run.
    service.sql("alter system set autovacuum = off")
    service.sql("select pg_reload_conf()")
    if service.sql("select count(*) from public.blocks") == "0":
        say(f"generating {blocks} blocks")
        service.command("chain", "generate", "--blocks", blocks, "--into", "env", env={"DATABASE_URL": service.database_url()})
        service.sql("vacuum (analyze)")
    counts = {table: int(service.sql(f"select count(*) from public.{table}")) for table in ("blocks", "transactions", "events")}
    size = int(service.sql("select pg_database_size(current_database())"))
    say(", ".join(f"{count} {table}" for table, count in counts.items()) + f", {size / 1e6:.0f} MB")
    return counts | {"database_bytes": size}


def rest(service):
    """Both sides start with nothing left to be written."""
    service.sql("checkpoint")
    os.sync()


def epoch(stamp):
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def step_costs(sampler, run):
    """Cost of each step of a run; children of one name count as one, from the first's start to the last's end."""
    costs = {}
    for names in STEPS:
        same = [step for step in run["steps"] if step["name"] in names]
        start = min(epoch(step["startedAt"]) for step in same if step["startedAt"])
        costs[", ".join(names)] = sampler.between(start, max(epoch(step["doneAt"]) for step in same))
    return costs


def temp_bytes(service):
    """Bytes that PostgreSQL has spilled to temporary files, for sorting, so far."""
    return int(service.sql("select temp_bytes from pg_stat_database where datname = current_database()"))


def ours(service, meter):
    """`snapshots create --wait`: from the wish to the moved `latest`."""
    service.forget_snapshots()
    rest(service)
    spilled = temp_bytes(service)
    measure.reset_peak_rss(service.process.pid)
    with measure.Sampler(service.servers, watched=service.tmp) as sampler:
        result, cost = meter.cost(lambda: service.command("create", "--wait", "--url", service.url))
    rss = measure.peak_rss_mb(service.process.pid)
    run = service.get(f"/runs/{result['runId']}")
    snapshot = result["snapshot"]
    archive = service.dir / "s3/objects/snapshots" / snapshot["network"] / snapshot["id"] / f"snapshot-{snapshot['id']}.tar.zst"
    scratch = sampler.watched_bytes + temp_bytes(service) - spilled
    return Round(cost, step_costs(sampler, run), snapshot["sizeBytes"], scratch, rss, archive)


def script(service, meter, directory):
    """The original's: pg_dump, tar and zstd, sha256sum, upload. Its directory is left behind."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    rest(service)
    dump, archive, checksum = directory / "snapshot", directory / "snapshot.tar.zst", directory / "snapshot.sha256"
    key = "script/snapshot.tar.zst"
    # Our own schemas, and the extensions in them, are not the original's to dump.
    pg_dump = [service.pg("pg_dump"), "-Fd", "-j2", "-Z0", "-N", "snapshots", "-N", "apalis", "-e", "plpgsql", "-f", dump, "-d", service.database_url()]
    phases = {
        "pg_dump": lambda: run(*pg_dump),
        "tar, zstd": lambda: run("bash", "-c", 'set -o pipefail; tar -C "$1" -cf - snapshot | zstd -3 -T2 -q -o "$2"', "tar", directory, archive),
        "sha256sum": lambda: checksum.write_text(run("sha256sum", archive)),
        "upload": lambda: (service.s3().put(archive, key), service.s3().put(checksum, f"{key}.sha256")),
    }
    # Watched as ours is, which takes some of the processors' time.
    with measure.Sampler(service.servers, watched=service.tmp):
        costs = {name: meter.cost(phase)[1] for name, phase in phases.items()}
    scratch = measure.tree_bytes(directory)
    return Round(sum(costs.values(), measure.Cost()), costs, archive.stat().st_size, scratch, archive=archive)


def compare(service, rounds, directory):
    """Alternates the two sides; which goes first changes every round."""
    meter = measure.Meter(service.servers)
    sides = {"ours": lambda: ours(service, meter), "script": lambda: script(service, meter, directory)}
    done = {"ours": [], "script": []}
    for number in range(rounds):
        names = ["ours", "script"] if number % 2 == 0 else ["script", "ours"]
        for name in names:
            found = sides[name]()
            done[name].append(found)
            say(f"round {number + 1}, {name}: {found.cost.total:.1f} CPU s, {found.cost.wall:.1f} s")
    return done


def idle(service):
    """What the servers use while nothing is asked of them."""
    _, cost = measure.Meter(service.servers).cost(lambda: time.sleep(IDLE_SECONDS))
    return cost


def profile(service, work):
    """Records where the service's CPU goes during one snapshot and prints the symbols that use most."""
    data = work / "perf.data"
    recorder = subprocess.Popen(["perf", "record", "-q", "-F", "499", "-g", "-o", str(data), "-p", str(service.process.pid)])
    try:
        found = ours(service, measure.Meter(service.servers))
    finally:
        recorder.send_signal(2)
        recorder.wait()
    say(f"{found.cost.total:.1f} CPU s: {found.cost.cpu}")
    print(run("perf", "report", "-i", data, "--no-children", "-g", "none", "--percent-limit", "0.5", "--stdio"))


def benchmark(service, args, work):
    chain = prepare(service, args.blocks)
    if args.profile:
        profile(service, work)
        return
    time.sleep(2)
    at_rest = idle(service)
    done = compare(service, args.rounds, work / "script")
    archives = {name: rounds[-1].archive for name, rounds in done.items()}
    restores = restore_both(service, archives, work / "extracted", args.restores, say) if args.restores else {}
    findings = Findings(chain, args.rounds, at_rest, done["ours"], done["script"], restores)
    print(text(findings))
    if chain["blocks"] >= FULL_BLOCKS and args.restores:
        report.publish("snapshot", numbers(findings), text(findings))
    else:
        say("a trial: docs/benchmarks.* stay as they are")


def main():
    args = arguments()
    with work_directory(args.work) as work:
        service = Service(binary(), work)
        try:
            benchmark(service, args, work)
        finally:
            service.stop()


if __name__ == "__main__":
    start(main)
