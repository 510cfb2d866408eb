"""Datasets: problems with verifiers, rows in verl's format, and checks of parquet files."""
