"""Reads a run directory and shows it: summary, terminal, plots. Imports neither torch, ray nor verl."""
