#!/usr/bin/env python3
"""Counts the instructions of hot functions under valgrind, and compares with the committed counts.

    count.py BENCH-INSTRUCTIONS [--update]

Exits 1 if a scenario costs more than 3 % more than `reference.json` says; one that costs less should
be committed with --update, so that it stays so. The counts belong to one version of the compiler
and one kind of processor (callgrind sees the vector instructions that it has): elsewhere they are
shown and not judged.
"""
import json
import os
import platform
import re
import subprocess
import sys

REFERENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference.json")
TOLERANCE = 0.03
FEW, MANY = 200, 1200


def instructions(binary, scenario, times):
    """All that the process executes."""
    argv = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, scenario, str(times)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"count.py: {scenario}: {done.stderr.strip()[-300:]}")
    return int(found.group(1))


def here():
    """What the counts depend on."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    flags = ""
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^flags\s*:(.*)$", file.read(), re.M)
        flags = found.group(1).split() if found else []
    vectors = [name for name in ("avx2", "sse4_2") if name in flags]
    return {"rustc": rustc, "machine": platform.machine(), "vectors": vectors}


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    binary, update = sys.argv[1], "--update" in sys.argv
    names = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    known = {"on": {}, "instructions": {}}
    if os.path.exists(REFERENCE):
        with open(REFERENCE) as file:
            known = json.load(file)
    place = here()
    judged = known["on"] == place and not update
    counts, worse = {}, []
    for name in names:
        counts[name] = (instructions(binary, name, MANY) - instructions(binary, name, FEW)) // (MANY - FEW)
        before = known["instructions"].get(name)
        change = f"{counts[name] / before - 1:+.1%}" if before else "new"
        if judged and (not before or counts[name] > before * (1 + TOLERANCE) + 5):
            worse.append(name)
            change += "  <- more than committed"
        print(f"{name:26} {counts[name]:>8} {change}", flush=True)
    if update:
        with open(REFERENCE, "w") as file:
            json.dump({"on": place, "instructions": counts}, file, indent=2)
            file.write("\n")
    elif not judged:
        print(f"not judged: the committed counts are of {known['on']}, this is {place}")
    if worse:
        raise SystemExit(f"count.py: more instructions than committed: {', '.join(worse)}; "
                         "if that is meant: benches/instructions/count.py BINARY --update")


if __name__ == "__main__":
    main()
