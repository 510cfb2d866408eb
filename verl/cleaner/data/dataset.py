"""verl's dataset over files of any known form: `data.custom_cls.path=pkg://cleaner.data.dataset`.

verl's `RLHFDataset` reads rows that are in its own format already, all with one schema. This one maps each row as it is
read (`cleaner.data.mapping`), tells the model of a tool only in runs that offer one, and leaves the rest to verl:
tokenisation, chat template, state of the data loader.
"""

from __future__ import annotations

import os
from typing import Any

import datasets
import numpy as np
from verl.utils.dataset.rl_dataset import RLHFDataset

from cleaner.data.row_files import read_rows, table_of
from cleaner.errors import ConfigError


class ProblemDataset(RLHFDataset):
    """Problems of one or more parquet files.

    The keys of the group `data` mean what they mean in verl, with these differences:

    - `filter_overlong_prompts` counts the tokens of the tool's schema, and says how many rows are left out;
    - `train_max_samples`, `val_max_samples`: so many rows are left *after* that filter. With `shuffle` they are drawn
      by `seed`, and a smaller draw is part of a larger one; without, they are the first ones.

    Raises:
        ConfigError: a file or a row cannot be used; the tool cannot be loaded; no prompt is short enough.
    """

    def _read_files_and_tokenize(self) -> None:
        tool = bool(self.tool_config_path or self.function_tool_path)
        if tool and not self.tool_schemas:
            # verl logs it, and would count prompts without the schema that the model is shown.
            raise ConfigError(
                f"the tool of {self.tool_config_path or self.function_tool_path} cannot be loaded; the log above "
                "tells why. Correct the file, or run without a tool."
            )
        # Errors name the files as they were given, not their copies in a cache.
        rows = [row for file in self.original_data_files for row in read_rows(file, tool)]
        dataframe = datasets.Dataset(table_of(rows))
        print(f"dataset: {len(dataframe)} problems {'with' if tool else 'without'} a tool")
        if self.shuffle:
            seed = () if self.seed is None else (self.seed,)
            dataframe = dataframe.select(np.random.default_rng(*seed).permutation(len(dataframe)))
        dataframe = self.maybe_filter_out_long_prompts(dataframe)
        if 0 < self.max_samples < len(dataframe):
            dataframe = dataframe.select(range(self.max_samples))
            print(f"dataset: {self.max_samples} problems are taken")
        self.dataframe = dataframe

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset = None) -> datasets.Dataset:
        """The rows whose prompt has `max_prompt_length` tokens at most, or all where the filter is off."""
        if not self.filter_overlong_prompts:
            return dataframe
        # Only the prompts go to verl's worker processes; tests of programs have megabytes.
        prompts = dataframe.select_columns([self.prompt_key]).add_column("row", range(len(dataframe)))
        environ = os.environ
        try:
            kept = super().maybe_filter_out_long_prompts(prompts)["row"]
        finally:
            # `datasets` puts a copy in its place; who took hold of the first would miss every later change.
            os.environ = environ  # noqa: B003
        left_out = len(dataframe) - len(kept)
        if not len(kept):
            raise ConfigError(
                f"no prompt of {', '.join(map(str, self.original_data_files))} is usable with at most "
                f"{self.max_prompt_length} tokens, the tool's schema included. Raise data.max_prompt_length."
            )
        print(f"dataset: {left_out} problems are longer than {self.max_prompt_length} tokens and left out")
        return dataframe if not left_out else dataframe.select(kept)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """A row for the rollout. Keys of `extra_info` that the row's own source does not have are left out."""
        row: dict[str, Any] = super().__getitem__(item)
        row["extra_info"] = {key: value for key, value in row["extra_info"].items() if value is not None}
        # verl takes what is null in the table for a value.
        for key in ("tools_kwargs", "interaction_kwargs"):
            row[key] = row[key] or {}
        return row
