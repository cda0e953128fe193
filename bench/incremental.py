#!/usr/bin/env python3
"""Daily snapshots of a growing chain against a full cut, and the splice of the archive against tar and zstd.

`./run bench incremental [--blocks N] [--days N] [--work DIR]`. The chain grows by 2 % a day; the last day is cut once more in
full, on the same data and the same bucket. It writes docs/benchmarks.* only for a chain of the size that the targets are about.
"""

import argparse
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import measure
import report
from daily import numbers, text
from service import Broken, Service, binary, run, start, work_directory
from snapshot import FULL_BLOCKS, epoch, idle, say

SHARE = 0.02
# A run after so many days' blocks shows what grows with them.
BUSY_DAYS = 4
# Steps that make the archive of the chunks; all others read the database and store chunks and manifest.
ARCHIVE_STEPS = ["checksum", "upload"]
TABLES = [("blocks", "height"), ("transactions", "block_height"), ("events", "block_height")]


@dataclass
class Cut:
    """One run of the snapshot workflow."""

    height: int
    whole: measure.Cost
    chunks: measure.Cost
    archive: measure.Cost
    # Bytes of chunks and manifest that were not in the bucket before.
    stored_bytes: int
    ranges_cut: int
    ranges: int
    decided_by: str = ""


@dataclass
class Drill:
    """A whole snapshot restored by both ways, and proved."""

    wall: float
    machine_cpu: float
    # {way: seconds until the database is there}
    ways: dict


@dataclass
class Findings:
    """All that was measured."""

    chain: dict
    idle: measure.Cost
    days: list
    full: list
    splice: list = field(default_factory=list)
    stock: list = field(default_factory=list)
    archive_bytes: int = 0
    # One run after as many blocks as several days bring.
    busy: Cut = None
    drill: Drill = None


def arguments():
    parser = argparse.ArgumentParser(prog="./run bench incremental", description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=FULL_BLOCKS, help=f"length of the first day's chain; below {FULL_BLOCKS} nothing is recorded")
    parser.add_argument("--days", type=int, default=10, help="daily runs")
    parser.add_argument("--rounds", type=int, default=2, help="full cuts, and archives made by each side")
    parser.add_argument("--work", type=Path, help="directory to use and to keep")
    return parser.parse_args()


def prepare(service, args):
    """Loads a chain that is long enough for all days, and lets what belongs to later days wait in a schema of its own."""
    service.sql("alter system set autovacuum = off")
    service.sql("select pg_reload_conf()")
    daily = round(args.blocks * SHARE)
    blocks = args.blocks + daily * (args.days + BUSY_DAYS)
    say(f"generating {blocks} blocks")
    service.command("chain", "generate", "--blocks", blocks, "--into", "env", env={"DATABASE_URL": service.database_url()})
    service.sql("create schema waiting")
    for table, height in TABLES:
        service.sql(f"create table waiting.{table} as select * from public.{table} where {height} >= {args.blocks}")
        service.sql(f"create index on waiting.{table} ({height})")
    for table, height in reversed(TABLES):
        service.sql(f"delete from public.{table} where {height} >= {args.blocks}")
    service.sql("vacuum (full, analyze) public.events, public.transactions, public.blocks")
    service.sql("vacuum (analyze)")
    counts = {table: int(service.sql(f"select count(*) from public.{table}")) for table, _ in TABLES}
    return counts | {"daily": daily, "database_bytes": int(service.sql("select pg_database_size(current_database())"))}


def grow(service, low, high):
    """A day passes: as an indexer does, rows are inserted block by block's worth, parents first."""
    for table, height in TABLES:
        service.sql(f"insert into public.{table} select * from waiting.{table} where {height} >= {low} and {height} < {high} order by {height}")
    # What autovacuum would have done meanwhile, were it not switched off.
    service.sql("vacuum (analyze) public.events, public.transactions, public.blocks")
    settle(service)


def settle(service):
    """A night begins with nothing left to be written, and with PostgreSQL's counters handed over."""
    service.sql("checkpoint")
    os.sync()
    time.sleep(1)


def objects(service):
    root = service.dir / "s3/objects/snapshots"
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def cut(service, meter, full=False):
    before = objects(service)
    params = '{"full": true}' if full else "{}"
    with measure.Sampler(service.servers) as sampler:
        started, whole = meter.cost(lambda: start_and_watch(service, params))
    found = service.get(f"/runs/{started['runId']}")
    if found["state"] != "succeeded":
        raise Broken(f"the run {found['state']}: {found.get('error')}")
    new = {key: size for key, size in objects(service).items() if key not in before}
    reuse = service.sql(f"select data from snapshots.event where run_id = '{started['runId']}' and kind = 'snapshot.reuse'")
    return describe(sampler, found, whole, new, reuse)


def start_and_watch(service, params):
    started = service.command("run", "start", "snapshot", "--params", params, "--url", service.url)
    service.command("run", "watch", started["runId"], "--url", service.url)
    return started


def describe(sampler, found, whole, new, reuse):
    archive = step_cost(sampler, found, ARCHIVE_STEPS)
    names = list(whole.cpu)
    chunks = measure.Cost(whole.wall - archive.wall, {name: whole.cpu[name] - archive.cpu.get(name, 0) for name in names})
    stored = sum(size for key, size in new.items() if key.startswith("chunks/") or key.endswith("manifest.json"))
    children = sum(1 for step in found["steps"] if step["name"] == "dump" and step["kind"] == "child") - 1
    told = json.loads(reuse) if reuse else {}
    ranges = told.get("ranges", children)
    return Cut(found["snapshot"]["blockHeight"], whole, chunks, archive, stored, children, ranges, told.get("decidedBy", "–"))


def step_cost(sampler, found, steps):
    """Cost of some steps, which run side by side: from the first's start to the last's end."""
    same = [step for step in found["steps"] if step["name"] in steps and step["startedAt"]]
    return sampler.between(min(epoch(step["startedAt"]) for step in same), max(epoch(step["doneAt"]) for step in same))


def newest_archive(service):
    root = service.dir / "s3/objects/snapshots"
    return max(root.glob("*/*/snapshot-*.tar.zst"), key=lambda path: path.stat().st_mtime)


def stock(meter, directory):
    """tar and zstd over the directory that the archive holds, which lies there extracted."""
    target = directory / "again.tar.zst"
    _, cost = meter.cost(lambda: run("bash", "-c", 'set -o pipefail; tar -C "$1" -cf - snapshot | zstd -3 -T2 -q -f -o "$2"', "tar", directory, target))
    target.unlink()
    return cost


def extract(archive, directory):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    run("tar", "--zstd", "-xf", archive, "-C", directory)


def benchmark(service, args, work):
    chain = prepare(service, args)
    time.sleep(2)
    meter = measure.Meter(service.servers)
    findings = Findings(chain, idle(service), [], [])
    settle(service)
    first = cut(service, meter)
    say(f"first snapshot: {first.chunks.total:.1f} CPU s for its chunks, {first.stored_bytes / 1e6:.1f} MB stored")
    low = args.blocks
    for day in range(args.days):
        grow(service, low, low + chain["daily"])
        low += chain["daily"]
        found = cut(service, meter)
        findings.days.append(found)
        say(f"day {day + 1}: {found.chunks.total:.2f} CPU s, {found.stored_bytes / 1e6:.2f} MB, {found.ranges_cut} of {found.ranges} ranges, by {found.decided_by}")
    for number in range(args.rounds):
        service.forget_snapshots()
        settle(service)
        found = cut(service, meter, full=True)
        findings.full.append(found)
        findings.splice.append(found.archive)
        archive = newest_archive(service)
        findings.archive_bytes = archive.stat().st_size
        extract(archive, work / "extracted")
        settle(service)
        findings.stock.append(stock(meter, work / "extracted"))
        say(f"full cut {number + 1}: {found.chunks.total:.1f} CPU s, {found.stored_bytes / 1e6:.1f} MB; archive {found.archive.total:.1f} CPU s, tar and zstd {findings.stock[-1].total:.1f}")
    grow(service, low, low + BUSY_DAYS * chain["daily"])
    findings.busy = cut(service, meter)
    say(f"{BUSY_DAYS} days at once: {findings.busy.chunks.total:.2f} CPU s, PostgreSQL {findings.busy.chunks.cpu['postgres']:.2f}")
    return findings


def drilled(service):
    """The nightly drill, which is the step before `latest` moves, alone."""
    settle(service)
    before, begun = measure.machine_cpu(), time.monotonic()
    started = service.command("run", "start", "restore_drill", "--url", service.url)
    service.command("run", "watch", started["runId"], "--url", service.url)
    spent, wall = measure.machine_cpu() - before, time.monotonic() - begun
    records = sorted((service.dir / "s3/objects/snapshots").glob("*/*/drill.json"), key=lambda path: path.stat().st_mtime)
    record = json.loads(records[-1].read_text())
    if not record["proved"]:
        raise Broken(f"the drill disproved its snapshot: {record}")
    return Drill(wall, spent, {path["way"]: path["rto_seconds"] for path in record["paths"]})


def publish(findings, args):
    print(text(findings))
    if args.blocks >= FULL_BLOCKS and args.days >= 10:
        report.publish("incremental", numbers(findings), text(findings))
    else:
        say("a trial: docs/benchmarks.* stay as they are")


def main():
    args = arguments()
    with work_directory(args.work) as work:
        service = Service(binary(), work)
        try:
            findings = benchmark(service, args, work)
            service.stop()
            service = Service(binary(), work, drill="full")
            findings.drill = drilled(service)
        finally:
            service.stop()
        publish(findings, args)


if __name__ == "__main__":
    start(main)
