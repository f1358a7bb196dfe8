#!/usr/bin/env python3
"""Finds out where the binary spends its time, for the compiler (profile-guided optimisation).

    benches/profile.py [--secs 3]

Builds a binary that counts, lets it do the work of bench.py and writes what it counted to
benches/profile/tulle.profdata.gz, which `make build` gives to the compiler. To be done anew when a hot
path has changed: what no longer fits is ignored, so an old profile is never wrong, only of less use.
Needs what bench.py needs, and llvm-profdata (rustup component add llvm-tools, or Debian's llvm-19).
"""
import argparse
import glob
import gzip
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
OUT = os.path.join(HERE, "profile", "tulle.profdata.gz")
WORK = "h1,h1-large,h2,grpc,pair,l4-pair,handshake,tcp"
# The oldest that knows the compiler's format, and the oldest compilers that know this one's.
OLDEST = 19


def profdata():
    """The tool that merges counts: the compiler's own, or another that is new enough."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    own = glob.glob(os.path.join(sysroot, "lib", "rustlib", "*", "bin", "llvm-profdata"))
    if own:
        return own[0]
    for path in [*sorted(glob.glob("/usr/lib/llvm-*/bin/llvm-profdata"), reverse=True), shutil.which("llvm-profdata") or ""]:
        if not path:
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        found = re.search(r"version (\d+)", version)
        if found and int(found.group(1)) >= OLDEST:
            return path
    raise SystemExit("profile.py: there is no llvm-profdata; rustup component add llvm-tools, or apt-get install llvm-19")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secs", type=int, default=3, help="of each workload")
    options = parser.parse_args()
    merge = profdata()
    target = os.path.join(TARGET, "counting")
    counts = os.path.join(target, "counts")
    shutil.rmtree(counts, ignore_errors=True)
    flags = f"{os.environ.get('RUSTFLAGS', '')} -Cprofile-generate={counts}".strip()
    print("profile.py: building the binary that counts", file=sys.stderr)
    # As `make build` does it: with other features of a library its functions have other names.
    subprocess.run(["cargo", "build", "--release", "--workspace", "--bin", "tulle", "--target-dir", target],
                   cwd=ROOT, env=os.environ | {"RUSTFLAGS": flags}, check=True)
    # What the compiler's own plugins have counted meanwhile is of no use.
    shutil.rmtree(counts, ignore_errors=True)
    env = os.environ | {
        "TULLE_BIN": os.path.join(target, "release", "tulle"),
        "LLVM_PROFILE_FILE": os.path.join(counts, "%p-%m.profraw"),
    }
    bench = [sys.executable, os.path.join(HERE, "bench.py"), "--peers", "tulle", "--reference", "tulle", "--rounds", "1"]
    subprocess.run([*bench, "--secs", str(options.secs), "--work", WORK], env=env, check=True)
    merged = os.path.join(target, "tulle.profdata")
    raw = glob.glob(os.path.join(counts, "*.profraw"))
    if not raw:
        raise SystemExit("profile.py: the binary has counted nothing")
    subprocess.run([merge, "merge", "--sparse", "-o", merged, *raw], check=True)
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(merged, "rb") as file, open(OUT, "wb") as out:
        # Without a time in it: the same counts are the same file.
        out.write(gzip.compress(file.read(), 9, mtime=0))
    print(f"profile.py: {os.path.relpath(OUT, ROOT)}: {os.path.getsize(OUT) // 1024} KiB of {len(raw)} processes", file=sys.stderr)


if __name__ == "__main__":
    main()
