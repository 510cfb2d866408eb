"""The zygote: one a worker. It enters the namespaces, then forks one program process after the other.

It is process 1 of its own pid namespace, so that it can kill everything a program started in one call, and
its own
death kills them too. It never receives a job: the next program process is forked ahead and takes the job
itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import traceback
from dataclasses import replace
from functools import partial
from typing import NoReturn

from app.sandbox import census, cgroup, kernel, landlock, program, rootfs, seccomp
from app.sandbox.isolation import drop_groups, drop_uid_calls, enter_user_namespace, job_uid
from app.sandbox.protocol import (
    INTERRUPT,
    KEEP,
    KILL,
    MEASURE,
    MEASURE_WHOLE,
    MESSAGE_LIMIT,
    Ending,
    NurseryConfig,
    parse_command,
)
from app.sandbox.seeds import Seeds


def become(config: NurseryConfig, control: socket.socket) -> NoReturn:
    """Turn this freshly forked process into the zygote of the worker behind `control`; never returns.

    The worker's first message is {"slot": int} with its end of the job socket; "memory_mib" and "spare_mib" in it
    replace the configured limits. The answer is {"pid": int} with a pidfd of the zygote, or {"error": str}.
    """
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        hello, descriptors, _, _ = socket.recv_fds(control, MESSAGE_LIMIT, 1)
        if not hello:
            os._exit(0)
        zygote = Zygote(config, control, socket.socket(fileno=descriptors[0]), **json.loads(hello))
        zygote.enter()
    except BaseException as error:
        frames = traceback.format_exc(limit=-2)
        with contextlib.suppress(OSError):
            control.send(json.dumps({"error": f"{error}\n{frames}"}).encode()[:MESSAGE_LIMIT])
        os._exit(1)
    try:
        zygote.serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


class Zygote:
    """The state of one zygote: its sockets, its place in the file system, and the program it is watching."""

    def __init__(
        self,
        config: NurseryConfig,
        control: socket.socket,
        jobs: socket.socket,
        slot: int,
        memory_mib: int | None = None,
        spare_mib: int = program.SPARE_MIB,
    ) -> None:
        self.config = config if memory_mib is None else replace(config, memory_mib=memory_mib)
        self.spare_mib = spare_mib
        self.plan = config.plan
        self.control = control
        self.jobs = jobs
        self.jobs_descriptor = jobs.fileno()
        self.uid = job_uid(slot) if self.plan.uid else os.geteuid()
        self.below = rootfs.below_scratch(config.toolchain) if self.plan.mount else []
        self.scratch = f"{config.folder}/scratch{slot}-{os.getpid()}"
        self.folders = [self.scratch, rootfs.SHARED_MEMORY]
        if self.plan.mount:
            self.scratch, self.folders = rootfs.home(self.below), rootfs.folders(self.below)
        self.ruleset: int | None = None
        self.proc = True
        self.sequence = 0
        self.over_memory = False
        self.keep = False
        self.limit = self.config.memory_mib << 20
        self.baseline = 0
        self.events: int | None = None
        self.preference: cgroup.Preference | None = None
        self.doors: list[kernel.Call] = []
        self.counters = b""
        self.kills = 0

    def enter(self) -> None:
        """Close the doors that can be closed once for all jobs. Raises OSError if one does not close."""
        plan = self.plan
        room = len(self.folders) * self.config.disk_mib << 20  # of the scratch folders, which live in memory
        self.events = cgroup.join(self.config.groups, self.limit + room, self.config.processes)
        if plan.user:
            enter_user_namespace()
            self.uid = 1000
        if plan.namespaces():
            kernel.unshare(plan.namespaces())
        if plan.pid and os.fork() != 0:
            os._exit(0)  # the child is process 1; the nursery inherits and reaps it
        own = os.pidfd_open(os.getpid())
        if self.events is not None:
            with contextlib.suppress(OSError):
                self.preference = cgroup.Preference()
        if not plan.pid:
            kernel.become_subreaper()
        if plan.mount:
            self.proc = rootfs.enter(
                f"{self.config.folder}/root", self.uid, self.config.disk_mib, self.config.toolchain
            )
        else:
            self._make_scratch()
        kernel.set_no_new_privs()
        if plan.uid:
            drop_groups()
        self._make_ruleset()
        if plan.seccomp:
            seccomp.install(unix_sockets=plan.mount)
        if plan.uid or plan.user:
            kernel.drop_bounding_set()
        program.limit_resources(self.config, self.spare_mib)
        kernel.set_dumpable(False)
        self.baseline = census.resident(os.getpid())
        program.prepare()
        self._prepare_doors()
        socket.send_fds(self.control, [json.dumps({"pid": os.getpid()}).encode()], [own])
        os.close(own)

    def serve(self) -> None:
        """Fork programs until the worker hangs up."""
        seeds = Seeds()
        while True:
            seeds.renew()
            child = self._fork()
            if child == 0:
                self._become_program()
            try:
                served = self._watch(child)
            except (BrokenPipeError, ConnectionResetError):
                served = False  # the worker died as its program ended
            if not served:
                self._kill_all(child)
                self._remove_scratch()
                return
            self.sequence += 1

    def _fork(self) -> int:
        if self.preference is None:
            return kernel.fork()
        self.preference.offer()
        child = kernel.fork()
        if child:
            self.preference.withdraw()
        return child

    def _watch(self, child: int) -> bool:
        """Follow the worker's commands until `child` has ended, then clean up after it. False if the worker
        left.
        """
        self.over_memory = self.keep = False
        ended = os.pidfd_open(child)
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        poller.register(self.control, select.POLLIN)
        try:
            while True:
                ready = poller.poll()  # commands first: one says what stays after the end
                if len(ready) == 1 and ready[0][0] == ended:
                    break
                message = self.control.recv(MESSAGE_LIMIT)
                if not message:
                    return False
                letter, sequence, limit = parse_command(message)
                if sequence == self.sequence:
                    self._obey(letter, limit, child)
        finally:
            os.close(ended)
        _, status = os.waitpid(child, 0)
        self._kill_all(None)
        if self._kernel_killed() and os.WIFSIGNALED(status):
            self.over_memory = True
        if not self.keep:
            self._clean_scratch()
        self.control.send(Ending(self.sequence, status, self.over_memory).to_bytes())
        return True

    def _obey(self, letter: bytes, limit: int, child: int) -> None:
        if letter == INTERRUPT:
            os.kill(child, signal.SIGXCPU)
        elif letter == KEEP:
            self.keep = True
        elif letter in (MEASURE, MEASURE_WHOLE) and not self.over_memory:
            limit = limit or self.limit
            baseline = self.baseline if letter == MEASURE else 0
            tree = census.others() if self.plan.pid and self.proc else census.descendants()
            if self._kernel_killed() or census.memory(tree, baseline, limit) > limit:
                self.over_memory = True
                letter = KILL
        if letter == KILL:
            self._kill_tree(child)

    def _kernel_killed(self) -> bool:
        """Whether the kernel has killed a process of the group for its memory since the last call."""
        before = self.kills
        if self.events is not None and (data := os.pread(self.events, 4096, 0)) != self.counters:
            self.counters = data
            self.kills = cgroup.kills(data)
        return self.kills > before

    def _kill_tree(self, child: int) -> None:
        if self.plan.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all of the namespace but us
            return
        os.kill(child, signal.SIGKILL)  # still our unreaped child, so the number is its own
        for pid in census.descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _kill_all(self, child: int | None) -> None:
        """Return only when no process of the program is left. Orphans come to us, as process 1 or as
        subreaper.
        """
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                if self.plan.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(-1, signal.SIGKILL)
                else:
                    for descendant in census.descendants():
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.kill(descendant, signal.SIGKILL)
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)

    def _make_scratch(self) -> None:
        os.mkdir(self.scratch, 0o700)
        os.chown(self.scratch, self.uid, -1)
        os.chdir(self.scratch)

    def _make_ruleset(self) -> None:
        if self.ruleset is not None:
            os.close(self.ruleset)
        if self.plan.landlock:
            readable = ["/"] if self.plan.mount else rootfs.readable(self.config.toolchain)
            self.ruleset = landlock.ruleset(self.plan.landlock, readable, rootfs.writable(self.folders))

    def _clean_scratch(self) -> None:
        if self.plan.mount:
            renewed = rootfs.renew(self.uid, self.config.disk_mib, self.below)
        elif renewed := bool(os.listdir(self.scratch)):
            self._remove_scratch()
            self._make_scratch()
        if renewed:
            self._make_ruleset()  # a rule holds on to the folder itself, not to its name
            self._prepare_doors()

    def _remove_scratch(self) -> None:
        if self.plan.mount:
            return
        import shutil  # here: every program would carry its compression libraries along

        os.chdir("/")
        for folder, names, _ in os.walk(self.scratch):
            for name in names:
                with contextlib.suppress(OSError):
                    os.chmod(os.path.join(folder, name), 0o700)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _prepare_doors(self) -> None:
        """Put together what each program process does before it takes a job."""
        plan = self.plan
        doors: list[kernel.Call] = []
        if plan.uid:
            doors += drop_uid_calls(self.uid)
        if not plan.pid:  # the end of process 1 ends its whole namespace
            # after the change of user, which would clear it
            doors.append(("die with parent", partial(kernel.die_with_parent, os.getpid())))
        if plan.user or (os.geteuid() == 0 and not plan.uid):
            doors += kernel.drop_capabilities_calls()
        # Only our own memory counts from here; a sibling of the same job may look, the domain keeps others out.
        doors.append(kernel.dumpable_call(True))
        if self.ruleset is not None:
            doors.append(landlock.restrict_self_call(self.ruleset))
        if plan.uid or plan.user:
            doors.append(program.limit_processes_call(self.config.processes))
        preference = None if self.preference is None else self.preference.file
        ours = [self.ruleset, self.events, preference, self.control.fileno()]
        doors += [("close", partial(os.close, file)) for file in ours if file is not None]
        self.doors = doors

    def _become_program(self) -> NoReturn:
        """Close the remaining doors, wait for a job, run it."""
        try:
            kernel.perform(self.doors)
            program.main(self.jobs, self.jobs_descriptor, self.scratch)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
