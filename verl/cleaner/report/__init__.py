"""Reads a run directory and shows it: summary, terminal, plots, HTML page. Imports neither torch, ray nor verl."""
