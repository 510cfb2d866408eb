"""Whether CLEANER works on this machine's GPU: `scripts/gpu_check.sh`, or `python -m cleaner.gpu_check` behind it.

Each check runs in processes of its own, with a time limit, and none stops the others:

- ``device_probe``: what torch computes on the device
- ``machine``: device, `cleaner doctor`, judge
- ``training``: a few steps of the quick start with one engine in one number format
- ``run_rows``: what the directory of such a run says
- ``command``: one program with a log and a time limit; nothing that it started outlives it
- ``table``: the rows, as a table and as JSON

The modules import neither torch nor verl, which may be what is broken.
"""
