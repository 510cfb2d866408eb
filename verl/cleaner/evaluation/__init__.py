"""Evaluation: samples of a validation as JSON lines, and what is made of them: tables, comparisons, exports."""
