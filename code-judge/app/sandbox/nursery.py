"""The nursery: imports the modules once, then forks a zygote for each worker that connects.

One process a layer (`layers.py`): layer 0 listens with the modules that every program may use; a fork of it imports
what layer 1 has, and so on. Started by the manager as a fresh interpreter with an empty environment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING

from app.sandbox import installed, kernel, layers, pages, rootfs, zygote
from app.sandbox.protocol import NurseryConfig

if TYPE_CHECKING:
    import subprocess

# What a package imports and builds only at its first real use, and every program would import and build anew.
_WARM_UPS = {
    "numpy": """
import numpy as np
str(np.linalg.inv(np.eye(2)) @ np.arange(2.0))
""",
    "numpy.random": """
import numpy.random
numpy.random.default_rng(0).random()
""",
    "sympy": """
import sympy as s
x, y = s.symbols("x y")
str(s.solve(x**2 + 2 * x - 3, x)), str(s.solve([x + y - 1, x - y], [x, y])), s.latex(s.Rational(1, 2) + s.sqrt(2))
str(s.factor(x**2 - 1)), s.expand((x + 1) ** 2), s.simplify(s.sin(x) ** 2 + s.cos(x) ** 2), s.diff(x**2, x)
s.integrate(x**2, x), s.limit(s.sin(x) / x, x, 0), s.Matrix([[1, 2], [3, 4]]).det(), s.pi.evalf(), s.N("1/3")
s.factorint(12), s.isprime(7), s.sympify("x + 1"), s.summation(x, (x, 1, 3)), s.Eq(x, 1), s.binomial(4, 2)
""",
    "math_verify": """
import sys
from app.sandbox import final_answer
sys.modules["final_answer"] = final_answer  # whatever is called app is about to go
final_answer.warm_up()
""",
}


def start(config: NurseryConfig) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a nursery and wait until all its layers listen. Returns the process and the socket that keeps
    it alive:
    when the caller closes that, or dies, the nursery and all zygotes end. Raises RuntimeError if it can't start."""
    import subprocess  # here: every module that this file imports is copied into every program

    ours, theirs = socket.socketpair()
    root = os.path.dirname(rootfs.package_folder())
    boot = f"import sys; sys.path.insert(0, {root!r}); from app.sandbox.nursery import main; sys.path.pop(0); main()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", boot, config.to_json(), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        # One thread: a process with more can't be forked safely. Fixed hashes: sets print in the same order
        # everywhere.
        env={
            "LD_BIND_NOW": "1",  # look up every library function here, not in each program anew
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
        },
    )
    theirs.close()
    ours.settimeout(60)
    try:
        for _ in range(layers.math(config.preload)):  # all layers but that one
            if ours.recv(1) != b"\n":
                raise RuntimeError("the sandbox's nursery did not start; its own message is above")
    except OSError as error:
        raise RuntimeError(f"the sandbox's nursery did not start: {error}") from error
    return process, ours


def main() -> None:
    """Entry point of the nursery's interpreter: argv is [_, configuration, descriptor of the manager's
    socket].
    """
    config = NurseryConfig.from_json(sys.argv[1])
    manager = socket.socket(fileno=int(sys.argv[2]))
    sys.argv[:] = [""]
    kernel.die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what we fork
    kernel.become_subreaper()
    _forget_the_service()
    installed.useful()  # looked up once, for all programs
    _serve_layers(config, manager)


def _forget_the_service() -> None:
    sys.path[:] = rootfs.import_path()
    standard = ("importlib", "_frozen_importlib", "zipimport")
    sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__module__", "").startswith(standard)]
    sys.path_importer_cache.clear()
    os.environ.clear()


def _serve_layers(config: NurseryConfig, manager: socket.socket) -> None:
    """Listen with the imports of layer 0; forked children do so with those of the layers above."""
    wanted = layers.modules(config.preload)
    layer = 0
    while True:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(config.socket_path(layer))  # left by a nursery before us
        listener.bind(config.socket_path(layer))
        listener.listen(128)
        if layer == layers.math(config.preload):
            _wait_for_use(listener, manager)
        _import(wanted[layer])
        above: list[int] = []
        for upper in layers.above(layer, config.preload):
            child = os.fork()
            if child == 0:
                kernel.die_with_parent(os.getppid())
                layer = upper
                break
            above.append(os.pidfd_open(child))
        else:
            gc.collect()
            gc.freeze()  # a collection in a job must not touch, and so copy, the pages of the imports
            pages.collapse()
            if layer != layers.math(config.preload):
                manager.send(b"\n")
            _accept_forever(config, listener, manager, above)
            os._exit(0)
        listener.close()
        for other in above:
            os.close(other)


def _wait_for_use(listener: socket.socket, manager: socket.socket) -> None:
    """Return when the first worker connects: most services never need this layer, and it takes a second to build."""
    poller = select.poll()
    for descriptor in (listener.fileno(), manager.fileno()):
        poller.register(descriptor, select.POLLIN)
    if manager.fileno() in [descriptor for descriptor, _ in poller.poll()]:
        os._exit(0)


def _import(names: tuple[str, ...]) -> None:
    """Import modules and use them once; one that is not installed is left out."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            with contextlib.suppress(Exception):
                exec(_WARM_UPS.get(name, ""), {})


def _accept_forever(
    config: NurseryConfig, listener: socket.socket, manager: socket.socket, above: list[int]
) -> None:
    """Fork a zygote for every connection, until the manager goes away or a layer above dies."""
    poller = select.poll()
    for descriptor in (listener.fileno(), manager.fileno(), *above):
        poller.register(descriptor, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poller.poll()]
        if ready != [listener.fileno()]:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            manager.close()
            for upper in above:
                os.close(upper)
            zygote.become(config, connection)
        connection.close()
