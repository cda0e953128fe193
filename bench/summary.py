"""What the snapshot benchmark says about its findings: numbers with targets, and a page."""

import statistics

from measure import Cost
from report import Number, machine, table, targets


def _sum(costs):
    return sum(costs, Cost())


def _script_cpu(findings):
    """The script needs no service while it runs: what ours uses idling beside it is taken off."""
    idle = findings.idle.total / findings.idle.wall
    return sum(r.cost.total - idle * r.cost.wall for r in findings.script)


def numbers(findings):
    """The four numbers that have targets (three without restores)."""
    cpu = sum(r.cost.total for r in findings.ours) / _script_cpu(findings)
    wall = statistics.median(o.cost.wall / s.cost.wall for o, s in zip(findings.ours, findings.script))
    rss = max(r.rss_mb for r in findings.ours)
    found = [
        Number("snapshot.cpu_ratio", cpu, 1.15, "CPU seconds, clients and servers, ours ÷ the script's, of sums over all rounds"),
        Number("snapshot.wall_ratio", wall, 0.9, "wall time, ours ÷ the script's, median of the rounds"),
        Number("snapshot.rss_mb", rss, 256, "peak resident memory of our process in MB (API, worker and S3 server), highest round"),
    ]
    if findings.restores:
        pairs = zip(findings.restores["ours"], findings.restores["script"])
        ratio = statistics.median(ours.restore.wall / script.restore.wall for ours, script in pairs)
        found.append(Number("snapshot.stock_restore_ratio", ratio, 1.0, "wall time of `pg_restore -j8`, our archive ÷ the script's, median of the rounds"))
    return found


def _restore_cpu_ratio(restores):
    used = {name: sum(r.restore.total for r in rounds) for name, rounds in restores.items()}
    return used["ours"] / used["script"]


def _mean(costs, count):
    total = _sum(costs)
    return Cost(total.wall / count, {name: seconds / count for name, seconds in total.cpu.items()})


def _cells(cost):
    parts = [cost.cpu.get(name, 0) for name in ("clients", "service", "postgres")]
    return [f"{cost.wall:.1f}", f"{cost.total:.1f}"] + [f"{part:.1f}" for part in parts]


def _side(name, rounds):
    """Rows of one side: its phases, then the whole."""
    count = len(rounds)
    rows = [[f"{name}: {phase}", *_cells(_mean([r.phases[phase] for r in rounds], count))] for phase in rounds[0].phases]
    return rows + [[f"**{name}**", *_cells(_mean([r.cost for r in rounds], count))]]


def _restore_rows(restores):
    rows = []
    for name, rounds in restores.items():
        for what in ("extract", "restore"):
            rows.append([f"{name}: {what}", *_cells(_mean([getattr(r, what) for r in rounds], len(rounds)))])
    return rows


def _sizes(findings):
    ours, script = findings.ours[-1], findings.script[-1]
    rows = [
        ["archive, MB", f"{ours.archive_bytes / 1e6:.1f}", f"{script.archive_bytes / 1e6:.1f}"],
        ["scratch disk, MB", f"{max(r.scratch_bytes for r in findings.ours) / 1e6:.1f}", f"{script.scratch_bytes / 1e6:.1f}"],
        ["CPU seconds of each round", _each(findings.ours, "total"), _each(findings.script, "total")],
        ["wall seconds of each round", _each(findings.ours, "wall"), _each(findings.script, "wall")],
        ["peak memory of our process, MB", " · ".join(f"{r.rss_mb:.0f}" for r in findings.ours), "–"],
    ]
    return table(["", "ours", "script"], rows)


def _each(rounds, what):
    return " · ".join(f"{getattr(r.cost, what):.1f}" for r in rounds)


HEADER = ["means of all rounds", "wall s", "CPU s", "clients", "service", "PostgreSQL"]


def text(findings):
    """The section of docs/benchmarks.md."""
    chain = findings.chain
    idle = findings.idle.total / findings.idle.wall
    return f"""## Snapshot: `./run bench snapshot`

A synthetic chain of {chain['blocks']:,} blocks, {chain['transactions']:,} transactions and {chain['events']:,} events
({chain['database_bytes'] / 1e6:,.0f} MB in PostgreSQL), {findings.rounds} rounds on {machine()}.

{targets(numbers(findings))}
The script is the original's: `pg_dump -Fd -j2 -Z0` → `tar | zstd -3 -T2` → `sha256sum` → upload. Ours is `snapshots create --wait`,
from the command to the moved `latest`, with everything the script does not do: the audit of every row, reading back and
checking what was stored, the manifest, and chunks stored beside the archive.

{table(HEADER, _side('script', findings.script) + _side('ours', findings.ours))}
{_sizes(findings)}
{_restores(findings)}### How it is measured

- Both sides use the same database and the same bucket, both embedded; the scratch directory of the script lies on the same disk.
  They alternate, and which goes first changes every round. Before each round of ours the bucket and the catalog are emptied, so
  no chunk is found there already; before every round there is a checkpoint and the disk is synced. Autovacuum is off.
- CPU seconds are user and system time of every process: the commands (*clients*), `snapshots serve` (*service*: our worker, and the
  S3 server, which the script's upload uses too) and all of PostgreSQL. Kernel threads that write pages back are not counted.
- The service idles at {idle * 1000:.0f} ms of CPU a second (with PostgreSQL); this is taken off the script's side, not off ours.
- The script uploads with `curl` in one PUT, headers signed and body not, as ours are. It leaves out our own schemas, which the original has not.
- Per-step numbers of ours are interpolated between samples taken every 50 ms; the whole is exact. What is missing between the
  steps and the whole is the client, the engine, and waiting between steps.
- Ours holds the blocks that are final, the script's everything: the difference is the last few Bitcoin blocks' worth.
- Scratch disk of ours is what was seen in its temporary directory plus what PostgreSQL spilled while sorting.
- On a shared machine wall times vary, and CPU seconds too, by up to a half from minute to minute with what its neighbours do to
  caches and clock. Ratios of sides that alternate are comparable, numbers of two runs are not.
"""


def _restores(findings):
    if not findings.restores:
        return ""
    return f"""Restoring each archive: `tar --zstd -xf`, then `pg_restore -j8` into a fresh database of the same server, with the checkpoint that
writes its pages. Row counts are compared with the source afterwards.

{table(HEADER, _restore_rows(findings.restores))}
CPU seconds of `pg_restore -j8` and PostgreSQL, ours ÷ the script's: {_restore_cpu_ratio(findings.restores):.2f}. Eight connections
load one table of ours at once, which uses all cores, and leaves its rows in pieces: indexes over heights then have something to sort.

"""
