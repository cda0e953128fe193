"""Writes docs/benchmarks.json (flat, merged) and this benchmark's section of docs/benchmarks.md."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"

INTRO = """# Benchmarks

Written by `./run bench <name>`; the numbers alone are in [benchmarks.json](benchmarks.json). A benchmark says what it
found and fails only if something did not work: a missed target is a finding, not an error.
"""


@dataclass
class Number:
    """A measured number with its target: at most, or at least."""

    key: str
    value: float
    target: float
    meaning: str
    at_least: bool = False

    @property
    def met(self):
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def bound(self):
        return f"{'≥' if self.at_least else '≤'} {self.target:g}"


def machine():
    """Kind of the machine, without its name."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text()).group(1)) / 2**20
    return f"{os.cpu_count()} × {cpu.group(1).strip() if cpu else os.uname().machine}, {memory:.0f} GiB"


def table(header, rows):
    """A Markdown table; columns are text on the left, numbers on the right."""
    align = ["---:" if str(cell)[:1].isdigit() else "---" for cell in rows[0]]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in [header, align, *rows]) + "\n"


def targets(numbers):
    rows = [(f"`{n.key}`", f"{n.value:.3g}", n.bound, "met" if n.met else "**missed**", n.meaning) for n in numbers]
    return table(["key", "measured", "target", "", "meaning"], rows)


def publish(name, numbers, text):
    """Merges the numbers and replaces the section `name`."""
    path = DOCS / "benchmarks.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known |= {number.key: round(number.value, 3) for number in numbers}
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    _replace_section(DOCS / "benchmarks.md", name, text)


def _replace_section(path, name, text):
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    page = path.read_text() if path.exists() else INTRO
    if begin in page and end in page:
        before, rest = page.split(begin, 1)
        page = before + section.rstrip("\n") + rest.split(end, 1)[1]
    else:
        page = page.rstrip("\n") + "\n\n" + section
    path.write_text(page)
