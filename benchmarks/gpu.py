"""Everything that needs a GPU, in under nine minutes: tests, exactness, speed, memory.

    python benchmarks/gpu.py --out gpu_results                # all parts; tables in report.md
    python benchmarks/gpu.py --out gpu_results --only mae_l   # some of them
    python benchmarks/gpu.py --out rehearsal --rehearse       # tiny, on the CPU: does it run?

Each part runs in a process of its own with a time of its own, so that one that fails, hangs or
runs out of memory is named and the others go on. The report is written anew after each part: what
was measured before a stop is kept. Nothing is downloaded; packages and memory that are missing are
named. A rehearsal measures nothing, and all that it writes says so.
"""

import argparse
import sys
from pathlib import Path

from gpu_kit import part, runner
from gpu_kit.parts import PARTS

SECONDS = 530.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of tables and logs")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="parts to run (all)")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of all parts ({SECONDS:.0f})"
    )
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU, no result")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)  # a process of ours
    given = parser.parse_args()
    if given.part:
        return part.work(given.part, given.out, given.seconds, given.rehearse)
    names = given.only or list(PARTS)
    return runner.run_all(names, given.out, given.seconds, given.rehearse)


if __name__ == "__main__":
    sys.exit(main())
