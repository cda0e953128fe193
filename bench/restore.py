"""Restores two archives with stock `tar` and `pg_restore -j8`, alternating, into fresh databases of one server."""

import os
import shutil
from dataclasses import dataclass

import measure
from service import Broken, run

JOBS = 8


@dataclass
class Restore:
    """One archive, once."""

    extract: measure.Cost
    restore: measure.Cost


def restore_both(service, archives, directory, rounds, say):
    """{name: archive} → {name: [Restore]}; which goes first changes every round."""
    meter = measure.Meter(service.servers)
    done = {name: [] for name in archives}
    # Whoever comes first pays for the server's first writes of this kind; so that is neither side.
    _restore(service, meter, next(iter(archives.values())), directory)
    for number in range(rounds):
        names = list(archives) if number % 2 == 0 else list(reversed(archives))
        for name in names:
            found = _restore(service, meter, archives[name], directory)
            done[name].append(found)
            say(f"restore {number + 1}, {name}: {found.restore.total:.1f} CPU s, {found.restore.wall:.1f} s")
    return done


def _restore(service, meter, archive, directory):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    _, extract = meter.cost(lambda: run("tar", "--zstd", "-xf", archive, "-C", directory))
    service.sql("create database restored template template0", database="postgres")
    try:
        service.sql("checkpoint")
        os.sync()
        _, restore = meter.cost(lambda: _load(service, directory / "snapshot"))
        _check(service)
    finally:
        service.sql("drop database restored with (force)", database="postgres")
        shutil.rmtree(directory, ignore_errors=True)
    return Restore(extract, restore)


def _load(service, dump):
    run(service.pg("pg_restore"), f"-j{JOBS}", "--no-owner", "-d", service.database_url("restored"), dump)
    # Pages that one side left to a later checkpoint are its work too.
    service.sql("checkpoint", database="restored")


def _check(service):
    """Every canonical block up to the restored height has arrived with all its rows."""
    for table, height in [("blocks", "height"), ("transactions", "block_height"), ("events", "block_height")]:
        top = service.sql("select max(height) from public.blocks", database="restored")
        count = f"select count(*) from public.{table} where {height} <= {top}"
        restored, source = service.sql(count, database="restored"), service.sql(count)
        if restored != source:
            raise Broken(f"the restored database has {restored} rows of {table} instead of {source}")
