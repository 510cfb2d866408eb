"""The client of code-judge: `from code_judge.client import JudgeClient`. Imports nothing of the service."""
