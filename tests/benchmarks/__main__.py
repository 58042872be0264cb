"""`python -m tests.benchmarks`: run every `bench_*.py` of this folder, one after another, each in its own process.

A benchmark is a script that measures ours beside a baseline in the same run and prints the ratio. Words on
the command line choose benchmarks by a part of their name.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def chosen(words: list[str]) -> list[Path]:
    """The benchmark scripts whose names contain one of the words, or all."""
    scripts = sorted(FOLDER.glob("bench_*.py"))
    return [s for s in scripts if not words or any(word in s.stem for word in words)]


def main(words: list[str]) -> int:
    """Run them and return 1 if one failed or none was chosen, else 0."""
    scripts = chosen(words)
    if not scripts:
        print(f"no benchmark is named like {' or '.join(words) or 'bench_*.py'}")
        return 1
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}", flush=True)
    failed = []
    for script in scripts:
        print(f"\n== {script.stem.removeprefix('bench_')}", flush=True)
        if subprocess.run([sys.executable, str(script)], cwd=FOLDER.parents[1]).returncode:
            failed.append(script.stem)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
