"""`data_filter.sh`: keep training rows by how often a model solved them.

Writes `filtered_sr.parquet` (the rows, as they were, and their id in a column `uid`) and `filtered_sr.json` (options,
table, what was left out and why). Without the dataset, `filtered_sr.uids.txt` instead of the rows. Neither torch nor
verl is imported, and parquet only where there is a dataset: the command answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleaner.data.filter_table import as_text, count_groups, rate_text
from cleaner.data.rate_filter import DEFAULT_RATIOS, Rates, Selection, parse_ratios, select
from cleaner.data.statistics import read_rates
from cleaner.errors import ConfigError

NAME = "filtered_sr"
_SHOWN = 5


@dataclass
class Notes:
    """What a reader of the table must know: a sentence each, and the uids it is about."""

    entries: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, sentence: str, uids: list[str]) -> None:
        if uids:
            self.entries.append((sentence, uids))

    def lines(self) -> list[str]:
        return [
            f"{len(uids):,} {sentence}: {', '.join(uids[:_SHOWN])}{', …' if len(uids) > _SHOWN else ''}"
            for sentence, uids in self.entries
        ]


def run(options: argparse.Namespace) -> None:
    """Filter as the options say, print the table, write the files.

    Raises:
        ConfigError: an option or a file is wrong, or no row is left.
        OSError: the output cannot be written.
    """
    ratios = parse_ratios(options.success_rate_ratios)
    rates = read_rates(options.stats)
    notes = Notes()
    joined = None
    if options.dataset is not None:
        from cleaner.data.filter_join import join

        joined = join(options.dataset, rates)
        notes.add("rows of the dataset have no statistics and are left out", joined.unmatched)
        notes.add("rows have another data_source in the statistics and are left out", joined.mismatched)
        notes.add("uids of the statistics are not in the dataset", joined.absent)
        rates = {uid: rates[uid] for uid in joined.uids if uid in rates and uid not in joined.left_out}
    selection = select(rates, ratios, options.retain_code, options.seed)
    for rate, uids in selection.without_ratio.items():
        notes.add(f"rows with the rate {rate_text(rate)}, which has no ratio, are left out", uids)
    groups = count_groups(rates, selection.kept)
    print(as_text(groups))
    if not selection.kept:
        raise ConfigError("no row is left; nothing is written. Change --success_rate_ratios.")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    if joined is not None:
        output = options.output_dir / f"{NAME}.parquet"
        joined.write(selection.kept, output)
        print(f"\nids: {joined.id_column}\n{output}: {len(selection.kept):,} rows")
    else:
        output = options.output_dir / f"{NAME}.uids.txt"
        output.write_text("".join(f"{uid}\n" for uid in rates if uid in selection.kept), encoding="utf-8")
        print(f"\n{output}: {len(selection.kept):,} uids; no dataset, so no rows are written")
    report = _report(options, rates, selection, groups, notes)
    (options.output_dir / f"{NAME}.json").write_text(
        json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for line in notes.lines():
        print(f"warning: {line}", file=sys.stderr)


def _report(
    options: argparse.Namespace, rates: Rates, selection: Selection, groups: list[Any], notes: Notes
) -> dict[str, Any]:
    return {
        "stats": str(options.stats),
        "dataset": None if options.dataset is None else str(options.dataset),
        "success_rate_ratios": options.success_rate_ratios,
        "retain_code": options.retain_code,
        "seed": options.seed,
        "before": len(rates),
        "after": len(selection.kept),
        "groups": {
            heading: {label: {"before": before, "after": after} for label, before, after in lines}
            for heading, lines in groups
        },
        "notes": [{"what": sentence, "uids": uids} for sentence, uids in notes.entries],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="data_filter.sh",
        description="Keep training rows by how often a model solved them. Of the n rows of each pass rate int(n x "
        "ratio) are kept, drawn by the seed, of code and of all other rows separately.",
    )
    parser.add_argument(
        "--stats",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON lines with uid, data_source and success_rate; recipe/cleaner/collect_pass_rates.sh makes them",
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="FILE", help="the rows, parquet. Without it: a report and the uids"
    )
    parser.add_argument(
        "--output_dir",
        "--output-dir",
        type=Path,
        metavar="DIR",
        help=f"where {NAME}.parquet goes (default: the folder of the dataset, else of the statistics)",
    )
    parser.add_argument(
        "--success_rate_ratios",
        "--success-rate-ratios",
        default=DEFAULT_RATIOS,
        metavar="RATIOS",
        help="share to keep: nine numbers, for the rates 0/8 to 8/8, or pairs rate:ratio; a rate k/8 that no pair "
        "names is kept whole (default: %(default)s)",
    )
    parser.add_argument(
        "--retain_code", "--retain-code", action="store_true", help="keep all code with a rate above 0"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw (default: 0)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 with one line on standard error where an option or a file is wrong."""
    options = _parser().parse_args(arguments)
    options.output_dir = options.output_dir or (options.dataset or options.stats).parent
    try:
        run(options)
    except ConfigError as error:
        print(f"data_filter: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"data_filter: cannot write to {options.output_dir}: {error.strerror or error}", file=sys.stderr
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
