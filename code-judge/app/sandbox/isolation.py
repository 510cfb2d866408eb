"""What this kernel and this user allow, found out by trying, and the plan that follows from it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

from app.sandbox import cgroup, kernel, landlock, seccomp

PRIMITIVES = ("user", "mount", "pid", "net", "ipc", "landlock", "seccomp", "uid", "cgroup")
_FIRST_JOB_UID = 61184  # systemd's range for users that exist only while a service runs
_JOB_UIDS = 4096


@dataclass(frozen=True)
class Plan:
    """The primitives that every job of this host runs under. `landlock` is the ABI version, 0 for none;
    `uid` says that jobs run as an unprivileged user of their own instead of the service's user."""

    user: bool = False
    mount: bool = False
    pid: bool = False
    net: bool = False
    ipc: bool = False
    landlock: int = 0
    seccomp: bool = False
    uid: bool = False
    cgroup: bool = False

    @property
    def files_isolated(self) -> bool:
        """A job sees only the interpreter's files and its scratch folder."""
        return self.mount or self.landlock >= 1

    @property
    def network_isolated(self) -> bool:
        """A job reaches no network, loopback included."""
        return self.net or self.seccomp

    @property
    def safe(self) -> bool:
        """Good enough to run hostile code without being told to."""
        return self.files_isolated and self.network_isolated

    def describe(self) -> dict[str, object]:
        """The plan as JSON-able facts, for /status and `code-judge doctor`."""
        return {
            **asdict(self),
            "files": self.files_isolated,
            "network": self.network_isolated,
            "safe": self.safe,
        }

    def namespaces(self) -> int:
        """The CLONE_NEW* flags of the plan, without the user namespace."""
        flags = kernel.CLONE_NEWNS * self.mount | kernel.CLONE_NEWPID * self.pid
        return flags | kernel.CLONE_NEWNET * self.net | (kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS) * self.ipc


def job_uid(slot: int) -> int:
    """The user (and group) id of the jobs of worker `slot`, where the plan says `uid`."""
    return _FIRST_JOB_UID + slot % _JOB_UIDS


def enter_user_namespace() -> None:
    """Become uid 1000 of a new user namespace, with every capability in it and none outside."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _become_nobody() -> None:
    drop_groups()
    kernel.perform(drop_uid_calls(job_uid(_JOB_UIDS - 1)))


def drop_groups() -> None:
    """Leave all groups but the process's own. Its children have none, either."""
    os.setgroups([])


def drop_uid_calls(uid: int) -> list[kernel.Call]:
    """What makes a process become `uid`, with a group of that number, for ever. Other groups: see `drop_groups`."""
    return [
        ("setresgid", partial(os.setresgid, uid, uid, uid)),
        ("setresuid", partial(os.setresuid, uid, uid, uid)),
    ]


def probe(without: frozenset[str] = frozenset()) -> Plan:
    """Try each primitive in a process of its own and return the strongest plan that works.

    without: primitives (of PRIMITIVES) to leave out although they work.
    """
    wanted = [name for name in PRIMITIVES if name not in without]
    root = os.geteuid() == 0
    user = not root and "user" in wanted and _works(enter_user_namespace)

    def enter(flags: int) -> Callable[[], None]:
        def attempt() -> None:
            if user:
                enter_user_namespace()
            kernel.unshare(flags)

        return attempt

    privileged = root or user
    mount = privileged and "mount" in wanted and _works(lambda: _try_mount(enter(kernel.CLONE_NEWNS)))
    plan = Plan(
        user=user,
        mount=mount,
        pid=privileged and "pid" in wanted and _works(lambda: _try_pid(enter(kernel.CLONE_NEWPID))),
        net=privileged and "net" in wanted and _works(enter(kernel.CLONE_NEWNET)),
        ipc=privileged and "ipc" in wanted and _works(enter(kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)),
        landlock=landlock.abi() if "landlock" in wanted and _works(_try_landlock) else 0,
        seccomp="seccomp" in wanted and seccomp.supported() and _works(_try_seccomp),
        cgroup="cgroup" in wanted and bool(cgroup.parents()),
    )
    can_drop = root and "uid" in wanted and _works(_become_nobody)
    return replace(plan, uid=can_drop and (mount or interpreter_readable_by_all()))


def interpreter_readable_by_all() -> bool:
    """Whether any user of this machine could read the interpreter and its packages (no 0700 folder above
    them).
    """
    for prefix in {sys.prefix, sys.base_prefix}:
        path = os.path.realpath(prefix)
        while True:
            mode = os.stat(path).st_mode
            if not mode & stat.S_IXOTH:
                return False
            if path == "/":
                break
            path = os.path.dirname(path)
    return True


def _try_mount(enter: Callable[[], None]) -> None:
    import tempfile  # here: the sandbox has no use for it, and every program would carry it along

    folder = tempfile.mkdtemp(prefix="code-judge-probe-")
    try:
        enter()
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=700")
        kernel.unmount(folder)
    finally:
        os.rmdir(folder)


def _try_pid(enter: Callable[[], None]) -> None:
    enter()
    child = os.fork()
    if child == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("no process 1 in the new pid namespace")


def _try_landlock() -> None:
    kernel.set_no_new_privs()
    kernel.perform([landlock.restrict_self_call(landlock.ruleset(landlock.abi(), ["/"], []))])


def _try_seccomp() -> None:
    kernel.set_no_new_privs()
    seccomp.install(unix_sockets=True)


def _works(attempt: Callable[[], None]) -> bool:
    """Run `attempt` in a forked process; False if it raised or the process was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            attempt()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0
