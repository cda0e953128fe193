"""What the incremental benchmark says about its findings: numbers with targets, and a page."""

from measure import Cost
from report import Number, machine, table, targets


def _mean(costs):
    total = sum(costs, Cost())
    return Cost(total.wall / len(costs), {name: seconds / len(costs) for name, seconds in total.cpu.items()})


def _without_idle(findings, cost):
    """The service idles all the time, runs or not: that is taken off both sides alike."""
    return cost.total - findings.idle.total / findings.idle.wall * cost.wall


def numbers(findings):
    """The numbers that have targets."""
    day = _mean([day.chunks for day in findings.days])
    full = _mean([full.chunks for full in findings.full])
    cpu = _without_idle(findings, day) / _without_idle(findings, full)
    stored = sum(day.stored_bytes for day in findings.days) / len(findings.days)
    whole = sum(full.stored_bytes for full in findings.full) / len(findings.full)
    archive = _mean(findings.splice).total / _mean(findings.stock).total
    return [
        Number("incremental.cpu_ratio", cpu, 0.10, "CPU seconds of a daily run ÷ a full cut's, chunks and manifest, all processes, idling taken off both"),
        Number("incremental.bytes_ratio", stored / whole, 0.05, "bytes of chunks and manifest stored by a daily run ÷ by a full cut"),
        Number("archive.ratio", archive, 0.5, "CPU seconds of checking, splicing and uploading the archive ÷ tar and zstd -3 -T2 alone"),
    ]


def _cells(cost):
    parts = [cost.cpu.get(name, 0) for name in ("clients", "service", "postgres")]
    return [f"{cost.wall:.2f}", f"{cost.total:.2f}"] + [f"{part:.2f}" for part in parts]


HEADER = ["", "wall s", "CPU s", "clients", "service", "PostgreSQL"]
DAYS = ["day", "height", "CPU s", "PostgreSQL CPU s", "stored, MB", "ranges cut", "of", "unchanged ranges known by"]


def _day(number, day):
    return [number, f"{day.height:,}", f"{day.chunks.total:.2f}", f"{day.chunks.cpu.get('postgres', 0):.2f}", f"{day.stored_bytes / 1e6:.2f}",
            day.ranges_cut, day.ranges, day.decided_by]


def text(findings):
    """The section of docs/benchmarks.md."""
    chain, days, full = findings.chain, findings.days, findings.full
    rows = [
        ["daily run: chunks and manifest", *_cells(_mean([day.chunks for day in days]))],
        ["full cut: chunks and manifest", *_cells(_mean([cut.chunks for cut in full]))],
        ["daily run: archive (check, splice, upload)", *_cells(_mean([day.archive for day in days]))],
        ["full cut: archive (check, splice, upload)", *_cells(_mean(findings.splice))],
        ["drill of the whole snapshot: both ways, and each proved", f"{findings.drill.wall:.2f}", f"{findings.drill.machine_cpu:.2f}", "", "", ""],
        ["`tar \\| zstd -3 -T2` of the same directory", *_cells(_mean(findings.stock))],
    ]
    return f"""## Daily snapshots: `./run bench incremental`

A synthetic chain of {chain['blocks']:,} blocks, {chain['transactions']:,} transactions and {chain['events']:,} events
({chain['database_bytes'] / 1e6:,.0f} MB in PostgreSQL, later days included) grows by {chain['daily']:,} blocks a day for {len(days)} days,
with a snapshot each day; then the whole is cut anew into an empty bucket, {len(full)} times. On {machine()}.

{targets(numbers(findings))}
{table(HEADER, rows)}
{table(DAYS, [_day(number + 1, day) for number, day in enumerate(days)] + [_day("four days at once", findings.busy)])}
### How it is measured

- CPU seconds are user and system time of every process: the commands, `snapshots serve` with its S3 server, and all of PostgreSQL.
- *Chunks and manifest* is a run without its steps `checksum` and `upload`, which make the archive; those are interpolated between
  samples taken every 50 ms, the whole run is exact. The service idles at {findings.idle.total / findings.idle.wall * 1000:.0f} ms of CPU a second (with PostgreSQL).
- A day's rows are inserted as an indexer inserts them, and vacuumed, before the run. Autovacuum is off, so that it works for neither.
- A day stores its new blocks, the partly filled range of the day before again, and each 5,000 blocks once more when they are sealed.
- What the database does grows with the new blocks: {_mean([day.chunks for day in days]).cpu['postgres']:.2f} CPU seconds on a day of {chain['daily']:,},
  {findings.busy.chunks.cpu['postgres']:.2f} where four times as many are new, {_mean([cut.chunks for cut in full]).cpu['postgres']:.2f} where all {full[0].height:,} are read.
- The drill is run alone, as at night, by a service of its own (`--drill full`): download, restore by stock tools ({findings.drill.ways['stock']:.1f} s until the
  database is there) and by `snapshots restore` ({findings.drill.ways['own']:.1f} s), and every row of both read again. Its server is a scratch one, so its CPU is the whole machine's.
- Archive: {findings.archive_bytes / 1e6:,.0f} MB. Ours reads every chunk back, checks it, digests the archive and uploads it; the other side only
  runs tar and zstd, over files that are in the page cache.
"""
