"""The algorithm stays usable without verl, torch or ray."""

import os
import subprocess
import sys
from pathlib import Path

import cleaner

SAAR = Path(cleaner.__file__).parent / "saar"


def test_saar_imports_nothing_of_verl_torch_or_ray():
    modules = [f"cleaner.saar.{path.stem}" for path in SAAR.glob("*.py") if path.stem != "__init__"]
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'verl', 'torch', 'ray', 'transformers', 'numpy', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": str(SAAR.parent.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
