"""The sandbox: everything that runs on the far side of the wall, and the worker's handle to it.

    manager ── exec ─> nursery (imports numpy, sympy, ... once; one process a layer)
                          └─ fork ─> zygote (one a worker: namespaces, own root, seccomp)
                                        └─ fork ─> program (one a job: drops the uid, Landlock, rlimits)
    worker ── Cell ── two sockets ── zygote

The zygote never sees a job: the program process takes it from the worker itself, so nothing of one job can be
found in the memory of the next. The worker reads the output and owns the deadline.
"""
