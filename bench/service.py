"""A running `snapshots serve` with its embedded servers, and the stock programs that talk to them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "snapshots"
REGION = "us-east-1"


class Broken(Exception):
    """Something that a benchmark needs did not work; nothing was measured."""


def binary(variable="SNAPSHOTS_BIN"):
    """Path of a binary that `./run bench` has built."""
    found = os.environ.get(variable)
    if not found:
        raise Broken(f"{variable} is not set: start this with `./run bench`")
    return found


@contextmanager
def work_directory(wanted):
    """`wanted`, which is kept, or a directory that is gone afterwards."""
    work = wanted or Path(tempfile.mkdtemp(prefix="snapshots-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    # Under root PostgreSQL runs as another user, who must be able to pass.
    work.chmod(0o711)
    try:
        yield work.resolve()
    finally:
        if not wanted:
            shutil.rmtree(work, ignore_errors=True)


def start(main):
    """Runs a benchmark's `main`; what did not work is said in words."""
    try:
        main()
    except Broken as problem:
        sys.exit(f"bench: {problem}")


def run(*command, env=None, **options):
    """Runs a program to its end and returns its stdout; its failure ends the benchmark with its own words."""
    done = subprocess.run([str(part) for part in command], env=env, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise Broken(f"{Path(str(command[0])).name} exited with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def last_result(lines):
    """The result among the lines of `snapshots --json`."""
    for line in lines:
        said = json.loads(line)
        if said["type"] == "error":
            raise Broken(said["message"])
        if said["type"] == "result":
            return said["result"]
    raise Broken("`snapshots` ended without a result")


@dataclass
class S3:
    """How to sign for the embedded bucket."""

    endpoint: str
    access_key: str
    secret_key: str

    def put(self, path, key):
        """Uploads a file with stock curl, in one PUT, signed as ours are: the headers, not the body."""
        run("curl", "-fsS", "--aws-sigv4", f"aws:amz:{REGION}:s3", "--user", f"{self.access_key}:{self.secret_key}",
            "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-T", path, f"{self.endpoint}/{BUCKET}/{key}")


class Service:
    """The release binary, serving from a data directory of its own."""

    def __init__(self, binary, work, drill="off"):
        self.binary, self.work, self.dir = binary, Path(work), Path(work) / "data"
        self.tmp = self.work / "tmp"
        self.tmp.mkdir(exist_ok=True)
        self.env = {name: value for name, value in os.environ.items() if not _names_a_server(name)} | {"TMPDIR": str(self.tmp)}
        self._log = open(self.work / "serve.log", "w")
        command = [binary, "serve", "--json", "--data-dir", str(self.dir), "--listen", "127.0.0.1:0", "--no-schedules",
                   "--drill", drill]
        self.process = subprocess.Popen(command, env=self.env, text=True, stdout=subprocess.PIPE, stderr=self._log)
        try:
            self.url = last_result(self.process.stdout)["url"]
            threading.Thread(target=lambda: self.process.stdout.read(), daemon=True).start()
            self._find_postgres()
        except BaseException:
            self.stop()
            raise

    def _find_postgres(self):
        # Lines of postmaster.pid: process, data directory, start, port, socket directory (PostgreSQL documentation).
        lines = (self.dir / "postgres/data/postmaster.pid").read_text().splitlines()
        self.postmaster, self.socket_dir = int(lines[0]), lines[4].strip()
        # The server's own directory: on Debian the programs in PATH are wrappers.
        self.pg_bin = Path(os.readlink(f"/proc/{self.postmaster}/exe")).parent

    @property
    def servers(self):
        return {"service": self.process.pid, "postgres": self.postmaster}

    def database_url(self, database="secondlayer"):
        return f"postgres://postgres@localhost:5432/{database}?host={self.socket_dir}"

    def pg(self, program):
        return self.pg_bin / program

    def sql(self, statement, database="secondlayer"):
        """Runs one statement and returns what psql prints."""
        return run(self.pg("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.database_url(database), "-c", statement).strip()

    def command(self, *arguments, env=None):
        """Runs a command of our binary and returns its result."""
        output = run(self.binary, *arguments, "--json", env=self.env | (env or {}))
        return last_result(output.splitlines())

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.load(answer)

    def s3(self):
        identity = json.loads((self.dir / "s3/identity.json").read_text())
        return S3(f"http://127.0.0.1:{identity['port']}", identity["access_key"], identity["secret_key"])

    def forget_snapshots(self):
        """Empties the bucket and the catalog, so that no chunk is found to be stored already."""
        objects = self.dir / "s3/objects"
        for path in objects.iterdir():
            if path.name == BUCKET:
                shutil.rmtree(path)
                path.mkdir()
            elif path.is_file():
                path.unlink()
        self.sql("truncate snapshots.snapshot, snapshots.upload")

    def stop(self):
        """Ends the service and with it its embedded servers."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def _names_a_server(name):
    ours = name.startswith("SNAPSHOTS_") and name != "SNAPSHOTS_PG_BIN"
    return ours or name.startswith(("PG", "S3_", "AWS_")) or name in ("DATABASE_URL", "CONTROL_DATABASE_URL", "PUBLIC_BASE_URL")
