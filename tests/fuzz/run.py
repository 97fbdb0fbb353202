"""Fuzzes the kernels and the reader of packed files: `python tests/fuzz/run.py [SECONDS] [--corpus DIR]`.

Two libFuzzer targets are built with clang under the address and undefined behaviour sanitizers, then run in turn with a
third of the time each; whole packed files take the rest. `CXX` names a clang; else the newest that is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("matrix", "pack")
MOST_BYTES = 4096


def clang() -> str:
    """A clang++ that is installed.

    Raises:
        SystemExit: There is none.
    """
    named = os.environ.get("CXX", "")
    if "clang" in named:
        return named
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    versions = [
        int(m[1]) for f in folders for p in f.glob("clang++-*") if (m := re.fullmatch(r"clang\+\+-(\d+)", p.name))
    ]
    found = shutil.which("clang++") or (f"clang++-{max(versions)}" if versions else None)
    if found is None:
        sys.exit(
            "fuzzing needs clang with its sanitizers: apt-get install clang libclang-rt-dev (or libclang-rt-NN-dev)"
        )
    return found


def build(folder: Path) -> dict[str, Path]:
    """Build the targets; their programs by name."""
    options = ["-DSPARSEBENCH_FUZZ=ON", "-DSPARSEBENCH_SANITIZE=ON", "-DSPARSEBENCH_AMX_EMULATION=ON"]
    options += [
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        f"-DCMAKE_CXX_COMPILER={clang()}",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *options], check=True, stdout=subprocess.DEVNULL)
    names = [f"fuzz_{target}" for target in TARGETS]
    subprocess.run(
        ["cmake", "--build", folder, "--parallel", "2", "--target", *names], check=True, stdout=subprocess.DEVNULL
    )
    return {name: next(folder.rglob(name)) for name in names}


def main() -> None:
    """Build, fuzz, and end with 1 at the first finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", type=int, nargs="?", default=60)
    parser.add_argument("--corpus", type=Path, help="keep what was found interesting, and go on from there")
    asked = parser.parse_args()
    share = max(1, asked.seconds // (len(TARGETS) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for name, program in build(work / "build").items():
            corpus = (asked.corpus or work / "corpus") / name
            corpus.mkdir(parents=True, exist_ok=True)
            limits = [f"-max_total_time={share}", f"-max_len={MOST_BYTES}", "-timeout=20", "-print_final_stats=1"]
            done = subprocess.run(
                [program, corpus, *limits, f"-artifact_prefix={corpus}/"], capture_output=True, text=True, check=False
            )
            runs = re.findall(r"Done (\d+) runs", done.stderr)
            if done.returncode or not runs:
                print(done.stderr[-6000:], file=sys.stderr)
                kept = f"its input is in {corpus}" if asked.corpus else "give --corpus DIR to keep its input"
                sys.exit(f"{name}: a finding; {kept}")
            print(f"{name}: {runs[-1]} inputs in {share} s, nothing found", flush=True)
    subprocess.run([sys.executable, ROOT / "tests" / "fuzz" / "files.py", str(share)], check=True)


if __name__ == "__main__":
    main()
