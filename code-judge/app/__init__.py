"""code-judge: runs programs written by a model, in a sandbox, and says what came of them."""

__version__ = "0.1.0"
