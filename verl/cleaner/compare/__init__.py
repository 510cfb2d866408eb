"""Comparison of strategies: arms x seeds x tasks through the trainer, at equal budgets of generated tokens.

`plan` reads what is to be compared, `rows_and_models` makes what runs start from, `runner` runs, `store` keeps account on
disk, `curves` and `estimates` compute, `tables` and `plots` show. `docs/comparison.md` explains it all to users.
"""
