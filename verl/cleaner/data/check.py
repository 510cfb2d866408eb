"""`python -m cleaner.data.check FILE ...`: can a run use these files, and what will it ask the model?"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cleaner.data.row_files import read_rows
from cleaner.errors import ConfigError
from cleaner.report.visible_text import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 where a file cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m cleaner.data.check", description=__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="parquet, of any form that runs read"
    )
    parser.add_argument("--no-tool", action="store_true", help="as a run without a tool reads them")
    parser.add_argument(
        "--show", type=int, default=0, metavar="N", help="print the first N prompts of each source"
    )
    options = parser.parse_args(arguments)
    status = 0
    for file in options.files:
        sources: Counter[str] = Counter()
        try:
            for row in read_rows(file, tool=not options.no_tool):
                source = row["data_source"]
                sources[source] += 1
                if sources[source] <= options.show:
                    print(f"--- {source}, id {row['extra_info']['uid']}")
                    for message in row["prompt"]:
                        print(visible(f"[{message['role']}] {message['content']}"))
                    print(visible(f"[ground truth] {row['reward_model']['ground_truth'][:200]}"))
        except ConfigError as error:
            print(f"check: {error}", file=sys.stderr)
            status = 2
            continue
        counts = ", ".join(f"{source} {count:,}" for source, count in sources.most_common())
        print(f"{file}: {sources.total():,} rows ({counts})")
    return status


if __name__ == "__main__":
    sys.exit(main())
