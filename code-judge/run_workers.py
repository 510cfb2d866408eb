"""Start the workers of this machine: `REDIS_URI=redis://host:6379 MAX_WORKERS=64 python run_workers.py`."""

import sys

from app.cli import main

if __name__ == "__main__":
    sys.exit(main(["workers", *sys.argv[1:]]))
