"""Statistics of a run's samples: `python -m cleaner.data.pass_rates RUN --rows FILE --out FILE`.

The run is an evaluation of the training rows (`recipe/cleaner/collect_pass_rates.sh`), which goes on where it was
stopped; this only counts its samples, so it can be run at any time, and gives the same file for the same samples.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleaner.data.row_ids import read_ids, read_sources
from cleaner.data.statistics import PassRate, write_rates
from cleaner.errors import ConfigError
from cleaner.evaluation.sample_log import SAMPLES_FILE

_SHOWN = 5
RowKey = tuple[str, str]  # data source and id


@dataclass(frozen=True)
class Counted:
    """What a run's samples say of a file's rows.

    Attributes:
        rates: of the rows that have a scored sample, in the order of the file.
        incomplete: ids of rows with fewer scored samples than others.
        missing: ids of rows without any.
    """

    rates: list[PassRate]
    incomplete: list[str]
    missing: list[str]


def count(samples: Path, rows: Path) -> Counted:
    """Count the samples of each row.

    Args:
        samples: a samples.jsonl, or the folder that holds one. Of equal samples the later counts; one that is left
            out of the scores (a fault of the judge) is no attempt.
        rows: the parquet file whose rows were sampled.

    Raises:
        ConfigError: a file cannot be read, a line cannot be used, or no sample is of these rows.
    """
    found: dict[RowKey, dict[int, tuple[int, float] | None]] = {}
    step: int | None = None
    for number, line in _lines(samples / SAMPLES_FILE if samples.is_dir() else samples):
        try:
            key = (str(line["data_source"]), str(line["id"]))
            scored = line.get("left_out") is None
            value = (_success(line["acc"]), float(line["score"])) if scored else None
            sample, this_step = int(line["sample"]), int(line.get("step", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{samples}, line {number}: no usable sample ({error!r})") from error
        if step not in (None, this_step):
            raise ConfigError(
                f"{samples}: samples of steps {step} and {this_step}; pass rates are of one model. Give the output of "
                "collect_pass_rates.sh."
            )
        step = this_step
        found.setdefault(key, {})[sample] = value
    keys = list(zip(read_sources(rows), read_ids(rows), strict=True))
    rates = [_rate(key, found[key].values()) for key in keys if key in found]
    rates = [rate for rate in rates if rate.attempts]
    if not rates:
        raise ConfigError(f"{samples}: holds no scored sample of the rows of {rows}")
    most = max(rate.attempts for rate in rates)
    there = {(rate.data_source, rate.uid) for rate in rates}
    return Counted(
        rates,
        [rate.uid for rate in rates if rate.attempts < most],
        [uid for source, uid in keys if (source, uid) not in there],
    )


def _rate(key: RowKey, samples: Any) -> PassRate:
    scored = [sample for sample in samples if sample is not None]
    successes, attempts = sum(success for success, _ in scored), len(scored)
    share = successes / max(1, attempts)
    score = sum(score for _, score in scored) / max(1, attempts)
    return PassRate(key[1], key[0], successes, attempts, share, score, share < 1)


def _success(acc: Any) -> int:
    if acc not in (0, 1):
        raise ValueError(f"acc is {acc!r}, not 0 or 1")
    return int(acc)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The samples with their line numbers; a last line that is half written is left out."""
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                try:
                    line = json.loads(text)
                except ValueError as error:
                    if text.endswith(b"\n"):
                        raise ConfigError(f"{path}, line {number}: not JSON ({error})") from error
                    continue
                if not isinstance(line, dict):
                    raise ConfigError(f"{path}, line {number}: must be an object")
                yield number, line
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 with one line on standard error where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m cleaner.data.pass_rates", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="an output directory, or a samples.jsonl")
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE", help="the rows, parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the statistics, JSON lines")
    options = parser.parse_args(arguments)
    try:
        counted = count(options.run, options.rows)
        write_rates(counted.rates, options.out)
    except ConfigError as error:
        print(f"pass_rates: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"pass_rates: cannot write {options.out}: {error.strerror or error}", file=sys.stderr)
        return 2
    attempts = max(rate.attempts for rate in counted.rates)
    mean = sum(rate.success_rate for rate in counted.rates) / len(counted.rates)
    print(
        f"{options.out}: {len(counted.rates):,} rows, {attempts} attempts each, mean success rate {mean:.3f}"
    )
    for uids, what in (
        (
            counted.incomplete,
            "rows have fewer scored attempts (failed trajectories); the same command tries again",
        ),
        (
            counted.missing,
            "rows have none: prompts that are too long, failed trajectories, or not sampled yet",
        ),
    ):
        if uids:
            listed = ", ".join(uids[:_SHOWN]) + (", …" if len(uids) > _SHOWN else "")
            print(f"warning: {len(uids):,} {what}: {listed}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
