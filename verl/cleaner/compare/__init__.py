"""Comparison of strategies: arms x seeds x tasks through the trainer, at equal budgets of generated tokens.

`plan` reads what is to be compared, `rows_and_models` makes what runs start from, `runner` runs, `store` keeps account
on disk, `curves`, `estimates` and `results` compute, `tables` and `plots` show. See `docs/comparison.md`.
"""
