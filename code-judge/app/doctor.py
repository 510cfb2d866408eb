"""`code-judge doctor`: what isolates programs on this machine, tried and not believed."""

from __future__ import annotations

import os

import redis

from app import cpp, embedded, steps
from app.folder import private_folder
from app.job import Job, Steps
from app.sandbox import isolation, nursery
from app.sandbox.capture import Capture
from app.sandbox.cell import Cell, SandboxLost
from app.sandbox.protocol import NurseryConfig, Order
from app.settings import Settings

_MEANING = {
    "user": "user namespace (an ordinary user's way to the other namespaces)",
    "mount": "mount namespace: a root of its own",
    "pid": "pid namespace: no process outlives its job",
    "net": "network namespace: no interface but a dead loopback",
    "ipc": "ipc and uts namespaces",
    "landlock": "Landlock (the number is the ABI version): files, TCP, signals",
    "seccomp": "seccomp: no sockets but Unix ones, no tracing, no mounts",
    "uid": "jobs run as an unprivileged user of their own",
    "cgroup": "control groups: memory and processes counted by the kernel, not only watched",
}
_PROBE = """
import os, socket
def blocked(action):
    try:
        action()
    except OSError:
        return "blocked"
    return "POSSIBLE"
print("read /etc/passwd:", blocked(lambda: open("/etc/passwd").close()))
print("list /home:", blocked(lambda: os.listdir("/home")))
print("write /usr:", blocked(lambda: open("/usr/code-judge-probe", "w").close()))
print("open a TCP connection:", blocked(lambda: socket.create_connection(("127.0.0.1", 1), 1).close()))
"""


_CPP_PROBE = "#include <iostream>\n#include <vector>\nint main() { std::cout << std::vector<int>(1).size(); }"


def examine(settings: Settings) -> int:
    """Print the findings; the exit status is 0 if the service can run programs safely and has a server."""
    plan = isolation.probe(settings.without_primitives)
    facts = plan.describe()
    print(f"user: uid {os.getuid()}")
    for name, meaning in _MEANING.items():
        value = facts[name]
        print(f"{name:9} {'no' if not value else 'yes' if value is True else value:4} {meaning}")
    print(
        f"safe: {'yes' if plan.safe else 'NO, the service refuses to run without CODE_JUDGE_ALLOW_UNSAFE=1'}"
    )
    return 0 if all([_try_out(settings, plan), plan.safe, _find_server(settings)]) else 1


def _try_out(settings: Settings, plan: isolation.Plan) -> bool:
    """Run a program that tries to get out."""
    with private_folder("doctor") as folder:
        os.mkdir(f"{folder}/root")
        limits = (settings.max_memory, settings.max_disk, settings.max_processes)
        toolchain = cpp.find(settings)
        config = NurseryConfig(plan, folder, (), *limits, () if toolchain is None else toolchain.folders)
        try:
            process, alive = nursery.start(config)
        except RuntimeError as error:
            print(f"a program in the sandbox: {error}")
            return False
        try:
            cell = Cell(config.socket_path(0), 0)
            stdout, stderr = Capture(10_000), Capture(10_000)
            seen = cell.run(_PROBE.encode(), b"", Order(5.0, False, None), stdout, stderr)
            cell.close()
            native = _try_compiler(settings, toolchain, config)
        except SandboxLost as error:
            print(f"a program in the sandbox: {error}")
            return False
        finally:
            alive.close()
            process.wait()
    print(f"a program in the sandbox, {seen.seconds * 1000:.1f} ms:")
    print("".join(f"  {line}\n" for line in (stdout.text() + stderr.text()).splitlines()), end="")
    print(f"C++: {native}")
    return seen.status == 0 and "POSSIBLE" not in stdout.text()


def _try_compiler(settings: Settings, toolchain: cpp.Toolchain | None, config: NurseryConfig) -> str:
    """Compile and run a program as a job would; what came of it. Raises SandboxLost."""
    if toolchain is None:
        if settings.cpp_compiler_path:
            return f"no, CPP_COMPILER_PATH={settings.cpp_compiler_path} is no program"
        return "no, neither g++ nor clang++ in PATH"
    memory = cpp.native_memory(settings)
    cell = Cell(config.socket_path(0), 0, memory_mib=memory, spare_mib=steps.SPARE_MIB)
    wish = Steps("cpp", settings.max_compile_time, whole=True)
    job = Job("", "", _CPP_PROBE, "", None, settings.max_execution_time, False, None, None, wish)
    answer = steps.Stepper(settings, toolchain).run(job, cell)
    cell.close()
    if not answer["run_success"]:
        return f"NO, {toolchain.path} does not work in the sandbox: {answer['stderr'].strip() or answer['reason']}"
    seconds = answer["steps"]["compile"]["execution_time"]
    return f"{toolchain.path}, {toolchain.version()}; compiled a program in {seconds:.1f} s"


def _find_server(settings: Settings) -> bool:
    if settings.redis_uri is None:
        try:
            print(f"REDIS_URI is not set; `serve` would start {embedded.binary()}")
        except embedded.NoServer as error:
            print(f"no server: {error}")
            return False
        return True
    where = settings.redis_uri.rpartition("@")[2]
    try:
        redis.Redis.from_url(settings.redis_uri, socket_connect_timeout=3, socket_timeout=3).ping()
    except (redis.RedisError, ValueError, OSError) as error:
        print(f"REDIS_URI ({where}) does not answer: {error}")
        return False
    print(f"REDIS_URI ({where}) answers")
    return True
