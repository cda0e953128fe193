"""Peak memory of the commands that read snapshots, each run once, beside the restores that are measured often."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from service import Broken


def commands(bench, out):
    """(what it is called, its arguments), in an order in which each finds what it needs."""
    objects, url = bench.objects, bench.service.url
    return [
        ("restore --jobs 8", ["restore", "--from", url, "--jobs", 8]),
        ("verify --database --deep", ["verify", "--database", "--deep", "--jobs", 8]),
        ("verify --deep", ["verify", "--from", objects, "--deep"]),
        ("download", ["download", "--url", url, "--output-dir", out / "archive"]),
        ("download --chunks", ["download", "--url", url, "--chunks", "--output-dir", out / "chunks"]),
        ("list", ["list", "--url", url]),
    ]


def peaks(bench):
    """{command: peak resident memory in MB}."""
    bench.target()
    env = bench.service.env | {"DATABASE_URL": bench.service.database_url("restored"), "SNAPSHOTS_DATA_DIR": str(bench.service.dir)}
    out = Path(tempfile.mkdtemp(dir=bench.work))
    try:
        return {name: peak([bench.service.binary, *arguments, "--json"], env) for name, arguments in commands(bench, out)}
    finally:
        shutil.rmtree(out)


def peak(command, env):
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([str(part) for part in command], env=env, stdout=said, stderr=subprocess.STDOUT, text=True)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise Broken(f"`{' '.join(map(str, command[1:3]))}` ended with {child.returncode}: {said.read()[-1000:]}")
    return used.ru_maxrss * 1024 / 1e6
