"""`python -m cleaner.report RUN_DIR`: write summary.json, plots/*.png and report.html, then print the closing
table and a repair.
"""

from __future__ import annotations

import argparse
import sys

from cleaner.report.closing import close_run
from cleaner.report.run_dir import NotARunDirectory


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 2 where the path is no run directory or cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m cleaner.report", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder that holds metrics.jsonl")
    options = parser.parse_args(arguments)
    try:
        close_run(options.run_dir)
    except NotARunDirectory as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: the report could not be written: {error}. Free the disk or check the rights.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
