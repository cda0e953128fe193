#!/usr/bin/env python3
"""The job engine: how soon it takes over, starts and cancels, how much it gets through, and what a full ledger costs.

`./run bench engine [--only NAME…] [--work DIR]`. Steps do nothing, so all the time is the engine's. PostgreSQL is the embedded
one with its durable settings. With `--only` nothing is recorded.
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import measure
import report
from report import Number
from service import Broken, Service, binary, run, start, work_directory

IDLE_SECONDS = 20
FILL = Path(__file__).resolve().parent / "million_runs.sql"
MEASUREMENTS = ["idle", "takeover", "pickup", "cancel", "fanout", "steps", "together", "plain", "full"]
# What people look for in a list of runs; none of the last two is there.
FILTERS = [{}, {"workflow": "scrub"}, {"state": "failed"}, {"state": "failed", "workflow": "nightly"}, {"since": "2020-01-01T00:00:00Z"},
           {"text": "disk full"}, {"state": "cancelled,queued"}, {"text": "no such text"}]
PAGES = 20


def say(message):
    print(f"bench: {message}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(prog="./run bench engine", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=MEASUREMENTS, help="measure these alone, record nothing")
    parser.add_argument("--work", type=Path, help="directory to use and to keep")
    return parser.parse_args()


def p95(values):
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


class Bench:
    """A service whose servers are used, and what was found."""

    def __init__(self, service, harness, plain):
        self.service, self.harness, self.apalis = service, harness, plain
        self.found, self.cpu = {}, {}
        for database in ["bench", "plain"]:
            service.sql(f"create database {database} template template0", database="postgres")

    def values(self, what, count, database="bench"):
        """Numbers that the harness printed, and the CPU seconds of PostgreSQL and of the harness meanwhile."""
        output, self.cpu[what] = self.cost(self.harness, what, count, database)
        self.found[what] = json.loads(output)
        say(f"{what}: " + " ".join(f"{value:.3g}" for value in self.found[what][:12]))

    def cost(self, program, what, count, database):
        env = self.service.env | {"DATABASE_URL": self.service.database_url(database), "RUST_LOG": "error"}
        meter = measure.Meter({"postgres": self.service.postmaster})
        return meter.cost(lambda: run(program, what, count, env=env))

    def plain(self):
        """The same runs on plain apalis-workflow."""
        self.found["plain"] = {}
        for what, count in [("pickup", 30), ("fanout", 2), ("steps", 1)]:
            output, _ = self.cost(self.apalis, what, count, "plain")
            self.found["plain"][what] = statistics.median(json.loads(output))
            say(f"plain apalis-workflow, {what}: {self.found['plain'][what]:.3g}")

    def idle(self):
        time.sleep(3)
        _, cost = measure.Meter(self.service.servers).cost(lambda: time.sleep(IDLE_SECONDS))
        self.found["idle"] = {name: 100 * seconds / cost.wall for name, seconds in cost.cpu.items()}
        say("idle: " + ", ".join(f"{name} {share:.2f} %" for name, share in self.found["idle"].items()))

    def full(self):
        """A million finished runs in the service's own ledger: claims beside them, and pages of them."""
        start = time.monotonic()
        run(self.service.pg("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.service.database_url(), "-f", FILL)
        # A ledger that has grown to this over months has long been vacuumed, and its pages are on the disk.
        self.service.sql("vacuum (analyze) snapshots.run, snapshots.step, snapshots.attempt")
        self.service.sql("checkpoint")
        os.sync()
        say(f"a million runs written in {time.monotonic() - start:.0f} s")
        # Its own workers would answer the same doorbells: this is about one claim that nobody competes with.
        self.service.process.send_signal(signal.SIGSTOP)
        try:
            self.values("claim", 100, database="secondlayer")
        finally:
            self.service.process.send_signal(signal.SIGCONT)
        self.found["pages"] = {urlencode(query) or "(none)": self.pages(query) for query in FILTERS}

    def pages(self, query):
        """Milliseconds of each page of a walk through the list, from asking to the last byte."""
        server = http.client.HTTPConnection(urlsplit(self.service.url).netloc)
        took, cursor = [], None
        for _ in range(PAGES):
            start = time.monotonic()
            server.request("GET", "/runs?" + urlencode(query | {"limit": 50} | ({"cursor": cursor} if cursor else {})))
            answer = server.getresponse()
            body = answer.read()
            took.append((time.monotonic() - start) * 1000)
            if answer.status != 200:
                raise Broken(f"GET /runs answered {answer.status}: {body[:500]}")
            cursor = json.loads(body).get("nextCursor")
        server.close()
        say(f"GET /runs?{urlencode(query)}: p50 {statistics.median(took):.1f}, p95 {p95(took):.1f} ms")
        return took

    def measure(self, names):
        counts = {"takeover": 5, "pickup": 100, "cancel": 5, "fanout": 5, "steps": 3, "together": 3}
        for name in names:
            if name in counts:
                self.values(name, counts[name])
            else:
                getattr(self, name)()


def numbers(found):
    pages = [took for walk in found["pages"].values() for took in walk]
    return [
        Number("engine.takeover_s", max(found["takeover"]), 5, "kill -9 of a worker to the next attempt in another process, longest"),
        Number("engine.pickup_p50_ms", statistics.median(found["pickup"]), 50, "asking for a run to the claim of its step by an idle worker, median"),
        Number("engine.cancel_s", max(found["cancel"]), 3, "cancelling a run whose step is deaf on a blocking thread to the run's end, longest"),
        Number("engine.fanout_1000_s", statistics.median(found["fanout"]), 3, "a run of 1,000 children and their join, from asking to its end, median"),
        Number("engine.steps_per_s", statistics.median(found["steps"]), 400, "short steps a second, 5,000 children, a doorbell a step, median", at_least=True),
        Number("engine.steps_together_per_s", statistics.median(found["together"]), 1000, "the same, claimed and completed up to 64 at a time, median", at_least=True),
        Number("engine.claim_ms_1m", p95(found["claim"]), 5, "one claim beside a million finished runs, p95"),
        Number("engine.runs_page_p95_ms_1m", p95(pages), 50, "`GET /runs`, 50 a page, a million finished runs, all filters below, p95"),
        Number("engine.idle_cpu_pct", found["idle"]["service"], 1, "CPU of an idle `serve` process (all roles) in percent of a core"),
    ]


def spread(values, digits=2):
    return f"{min(values):.{digits}f} · {statistics.median(values):.{digits}f} · {max(values):.{digits}f}"


def text(bench):
    found = bench.found
    rows = [
        ["takeover, s", len(found["takeover"]), spread(found["takeover"])],
        ["pickup, ms", len(found["pickup"]), spread(found["pickup"], 1)],
        ["cancel, s", len(found["cancel"]), spread(found["cancel"])],
        ["fan-out of 1,000, s", len(found["fanout"]), spread(found["fanout"])],
        ["steps a second", len(found["steps"]), spread(found["steps"], 0)],
        ["steps a second, together", len(found["together"]), spread(found["together"], 0)],
        ["claim beside 1 M runs, ms", len(found["claim"]), spread(found["claim"], 1)],
    ]
    pages = [[f"`{query}`", f"{statistics.median(took):.1f}", f"{p95(took):.1f}"] for query, took in found["pages"].items()]
    steps, together = bench.cpu["steps"], bench.cpu["together"]
    plain = found["plain"]
    ours = {what: statistics.median(found[what]) for what in plain}
    beside = [
        ["pickup, ms", f"{ours['pickup']:.1f}", f"{plain['pickup']:.1f}", f"{plain['pickup'] / ours['pickup']:.1f} ×"],
        ["1,000 children and their join, s", f"{ours['fanout']:.2f}", f"{plain['fanout']:.2f}", f"{plain['fanout'] / ours['fanout']:.1f} ×"],
        ["steps a second (5,000 children; plain 2,000)", f"{ours['steps']:.0f}", f"{plain['steps']:.0f}", f"{ours['steps'] / plain['steps']:.1f} ×"],
    ]
    idle = found["idle"]
    return f"""## Engine: `./run bench engine`

Steps do nothing, so the time is the engine's: doorbell, claim, lease, record, what follows. PostgreSQL is the embedded one with
`fsync` and `synchronous_commit` on, on {report.machine()}.

{report.targets(numbers(found))}
{report.table(["", "times", "least · median · most"], rows)}
{report.table(["`GET /runs` with", "p50 ms", "p95 ms"], pages)}
- Takeover: worker A runs a step, worker B is idle; A gets SIGKILL at a random moment, B's claim is read from the ledger. A lease is 4 s.
- Steps a second: {steps.total:.0f} CPU seconds in {steps.wall:.0f} s, of them PostgreSQL {steps.cpu['postgres']:.0f}; the rest is the worker. Every step is
  rung for, claimed, completed and acknowledged in transactions of its own.
- A claim beside a million runs is measured while the service's own process sleeps, whose workers would answer the same doorbells.
- Idle: `serve` with all roles {idle['service']:.2f} % of a core, its PostgreSQL {idle['postgres']:.2f} %.
- Together: {together.total:.0f} CPU seconds in {together.wall:.0f} s, of them PostgreSQL {together.cpu['postgres']:.0f}.

{report.table(["medians", "ours", "plain apalis-workflow", "ours is better by"], beside)}
Plain: apalis-workflow 1.0.0 on apalis-postgres 1.0.0 (`bench/apalis`), its default settings, notified and polling every second, 16 steps
at once. It does less for it: no fence, no backoff, no row that says what a run does; what takes over after a crash does so after
five minutes, and a cancelled step runs on, so those two have nothing beside them.
"""


def main():
    args = arguments()
    harness, plain = binary("ENGINE_BENCH_BIN"), binary("APALIS_BENCH_BIN")
    with work_directory(args.work) as work:
        service = Service(binary(), work)
        try:
            bench = Bench(service, harness, plain)
            bench.measure(args.only)
            if args.only == MEASUREMENTS:
                print(text(bench))
                report.publish("engine", numbers(bench.found), text(bench))
        finally:
            service.stop()


if __name__ == "__main__":
    start(main)
