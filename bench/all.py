"""Runs every benchmark one after the other and prints one page of Markdown, or JSON.

Run: ``python bench/all.py [--quick] [--only throughput …] [--write docs/benchmarks.md] [--json]``
``--write`` renews what stands between the two marks in that file and leaves the rest as it is.
The planner's and the runtime's own commands (``planner.py``, ``runtime.py``) are run as well;
``kill_anything.py`` takes minutes and only runs with ``--only kill_anything``.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from measure import verdict

HERE = Path(__file__).resolve().parent
BEGIN = "<!-- measured: written by bench/all.py -->\n"
END = "<!-- /measured -->\n"
ARGUMENTS = {
    "throughput": ([], ["--jobs", "600"]),
    "latency": ([], ["--jobs", "60"]),
    "footprint": ([], ["--idle", "5", "--no-install"]),
    "planner": ([], ["--nodes", "1000", "--repeat", "3"]),
    "runtime": ([], ["--count", "300"]),
    "agents": ([], ["--agents", "200", "--seconds", "4"]),
    "submit": ([], ["--nodes", "500", "--jobs", "2000", "--seconds", "2"]),
    "memory": ([], ["--jobs", "50000"]),
    "queues": ([], ["--jobs", "100000"]),
    "kueue_shape": ([], ["--queues", "20", "--nodes", "20"]),
    "seeds": (["--seeds", "200"], ["--seeds", "4"]),
    "kill_anything": ([], ["--jobs", "10", "--kills", "3"]),
}
"""Benchmark → its arguments, and those of a quick look."""
BY_DEFAULT = [name for name in ARGUMENTS if name != "kill_anything"]
LIMIT_S = 1800


def measured(name, quick):
    """What a benchmark says with ``--json``; what it says on stderr goes to ours."""
    command = [sys.executable, str(HERE / f"{name}.py"), *ARGUMENTS[name][quick], "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(f"{name} could not be measured; it ended with {done.returncode}") from None
    shown = " ".join(command[2:-1])
    return {"command": f"python bench/{name}.py {shown}".strip(), **found}


# -- the benchmarks that have a form of their own --------------------------------------------------


def planner_rows(found):
    for row in found["rows"]:
        nodes = f", {row['nodes']:,} nodes" if row["nodes"] else ""
        p99 = f" (p99 {row['p99_us']:.0f} wall)" if "p99_us" in row else ""
        value = f"{row['cpu_us']:,.1f}"
        yield {"figure": f"{row['what']}{nodes}", "value": value, "unit": f"µs of CPU{p99}"}


def flat_rows(found):
    for name, value in found.items():
        if isinstance(value, int | float):
            yield {"figure": name.replace("_", " "), "value": value, "unit": ""}


def rows_of(name, found):
    if name == "planner":
        return list(planner_rows(found))
    return list(flat_rows(found)) if name in ("runtime", "kill_anything") else found["rows"]


# -- the page --------------------------------------------------------------------------------------


def page(results):
    told = next((r for r in results.values() if "load_before" in r), None)
    if told is not None:
        where = told["machine"]
        yield f"Machine: {where['cores']} cores of {where['cpu']}, Linux {where['kernel']}, "
        yield f"Python {where['python']}. Measured on {time.strftime('%Y-%m-%d', time.gmtime())}.\n"
    for name, found in results.items():
        yield f"\n### {name}\n\n`{found['command']}`"
        if "load_before" in found:
            loads = (found["load_before"][0], found["load_after"][0])
            yield f", {found['machine']['at']}, load average {loads[0]} before and {loads[1]} after"
        yield f".\n\n{found.get('method', '').replace('|', '/')}\n\n".replace("\n\n\n", "\n")
        yield "| figure | value | goal |\n|---|---:|---|\n"
        for row in rows_of(name, found):
            goal = verdict(row).removeprefix("goal ")
            yield f"| {row['figure']} | {row['value']} {row['unit']}".rstrip() + f" | {goal} |\n"


def write(path, text):
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path} lacks the lines {BEGIN.strip()} and {END.strip()}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--only", nargs="+", choices=ARGUMENTS, default=BY_DEFAULT)
    arguments.add_argument("--quick", action="store_true", help="small numbers, to see it work")
    arguments.add_argument("--write", type=Path, metavar="FILE", help="renew the tables in FILE")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args()
    results = {}
    for name in options.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        results[name] = measured(name, options.quick)
    text = "".join(page(results))
    if options.write:
        write(options.write, text)
    print(json.dumps(results, indent=1) if options.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
