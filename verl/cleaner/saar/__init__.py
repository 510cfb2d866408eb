"""Similarity-aware adaptive rollback (arXiv 2601.15141): the decisions and the token bookkeeping.

Pure Python: nothing here imports verl, torch or ray. `cleaner.agent_loop` drives it.
"""
