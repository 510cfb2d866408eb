"""The file system that a job sees where mount namespaces work: the interpreter, read-only, and its scratch folders.

Whoever keeps the interpreter below /tmp, as in a clone just to look, has it shown there, and another folder for home.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from app.sandbox import kernel

_TEMPORARY = "/tmp"
SHARED_MEMORY = "/dev/shm"
_OTHER_HOME = "/scratch"
_ASIDE = "/.aside"  # what lies below a scratch folder, kept for when that is replaced
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LOCKED = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_NOATIME


def package_folder() -> str:
    """The folder of the service's own package, which no job may read."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def import_path() -> list[str]:
    """sys.path as a job has it: the standard library and site-packages. Not the folders of editable installs:
    they are other people's projects (this service among them)."""
    prefixes = tuple(prefix + "/" for prefix in {sys.prefix, sys.base_prefix, "/usr"})
    kept = (entry for entry in sys.path if os.path.isabs(entry) and os.path.exists(entry))
    own = os.path.dirname(package_folder())
    return [
        entry
        for entry in kept
        if os.path.basename(entry) in ("site-packages", "dist-packages")
        or (entry.startswith(prefixes) and entry != own)
    ]


def readable(toolchain: Sequence[str] = ()) -> list[str]:
    """Existing paths that a job may read, none inside another; `toolchain` among them."""
    wanted = {*_SYSTEM, *toolchain, sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), *import_path()}
    wanted.add(os.path.realpath(sys.base_prefix))
    existing = sorted(path for path in wanted if os.path.exists(path))
    kept: list[str] = []
    for path in existing:
        if not any(path == other or path.startswith(other + "/") for other in kept):
            kept.append(path)
    return kept


def below_scratch(toolchain: Sequence[str] = ()) -> list[str]:
    """The readable folders whose place is in a scratch folder."""
    return [path for path in readable(toolchain) if os.path.isdir(path) and _scratch_of(path)]


def home(below: Sequence[str]) -> str:
    """The scratch folder in which a job starts, empty. below: from `below_scratch`."""
    return _OTHER_HOME if any(_scratch_of(path) == _TEMPORARY for path in below) else _TEMPORARY


def folders(below: Sequence[str]) -> list[str]:
    """All folders of a job that live in memory, its home first."""
    return list(dict.fromkeys((home(below), _TEMPORARY, SHARED_MEMORY)))


def writable(scratch: Sequence[str]) -> list[str]:
    """Paths that a job may write, given its scratch folders."""
    return [*scratch, *_DEVICES]


def enter(mountpoint: str, owner: int, disk_mib: int, toolchain: Sequence[str] = ()) -> bool:
    """Build the new root on the empty folder `mountpoint`, make it this process's root and change into
    `home`.

    owner: the uid and gid of the scratch folders. disk_mib: the size of each.
    Returns whether /proc could be mounted (an outer container may forbid it). Needs a mount namespace of our own.
    """
    below = below_scratch(toolchain)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    quiet = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", mountpoint, "tmpfs", quiet, "size=1m,mode=755")
    for path in (*readable(toolchain), *_DEVICES):
        _bind(path, mountpoint + (_ASIDE if path in below else "") + path)
    for path in _masked(toolchain):
        target = mountpoint + (_ASIDE if _scratch_of(path) else "") + path
        kernel.mount("tmpfs", target, "tmpfs", quiet | kernel.MS_RDONLY, "size=4k,mode=755")
    for folder in ("/proc", *folders(below)):
        os.makedirs(mountpoint + folder, exist_ok=True)
    proc = _mount_proc(mountpoint + "/proc")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"{mountpoint}/dev/{name}")
    old = mountpoint + "/.old"
    os.mkdir(old)
    kernel.pivot_root(mountpoint, old)
    os.chdir("/")
    kernel.unmount("/.old")
    os.rmdir("/.old")
    kernel.mount("none", "/", None, quiet | kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)
    for folder in folders(below):
        _mount_scratch(folder, owner, disk_mib, below)
    os.chdir(home(below))
    return proc


def renew(owner: int, disk_mib: int, below: Sequence[str] = ()) -> bool:
    """Replace the scratch folders by empty ones if anything was left in them; whether anything was. No job may be
    alive. below: what `below_scratch` gave before `enter`."""
    touched = [folder for folder, left in _empty(tuple(below)).items() if not _holds(left)]
    if not touched:
        return False
    os.chdir("/")
    for folder in touched:
        kernel.unmount(folder)
        _mount_scratch(folder, owner, disk_mib, below)
    os.chdir(home(below))
    return True


def _mount_scratch(folder: str, owner: int, disk_mib: int, below: Sequence[str]) -> None:
    options = f"size={disk_mib}m,nr_inodes=16384,mode=700,uid={owner},gid={owner}"
    kernel.mount("tmpfs", folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for path in below:
        if _scratch_of(path) == folder:
            os.makedirs(path)
            kernel.mount(_ASIDE + path, path, None, kernel.MS_BIND | kernel.MS_REC)


def _scratch_of(path: str) -> str | None:
    return next((folder for folder in (_TEMPORARY, SHARED_MEMORY) if path.startswith(folder + "/")), None)


@cache
def _empty(below: tuple[str, ...]) -> dict[str, dict[str, list[str]]]:
    """For each scratch folder, what its own and the folders in it hold on the ways to what is shown below it."""
    return {folder: _ways(folder, below) for folder in folders(below)}


def _ways(folder: str, below: Iterable[str]) -> dict[str, list[str]]:
    ways: dict[str, set[str]] = {folder: set()}
    for path in below:
        while _scratch_of(path) == folder:
            parent, _, name = path.rpartition("/")
            ways.setdefault(parent, set()).add(name)
            path = parent
    return {parent: sorted(names) for parent, names in ways.items()}


def _holds(ways: dict[str, list[str]]) -> bool:
    """Whether a scratch folder holds that and nothing else."""
    return all(sorted(os.listdir(parent)) == names for parent, names in ways.items())


def _mount_proc(target: str) -> bool:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    for options in ("subset=pid", None):
        try:
            kernel.mount("proc", target, "proc", flags, options)
            return True
        except OSError:
            continue
    return False


def _bind(source: str, target: str) -> None:
    """Show `source` at `target`, read-only (devices stay devices); symbolic links are copied as links."""
    if os.path.islink(source) and os.path.dirname(source) in ("/", "/etc"):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    # Read-only for devices, too: they can be written to all the same, but a job that runs as root can't change the mode
    # or owner of the machine's own nodes.
    flags = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_NOSUID | kernel.MS_RDONLY
    if source not in _DEVICES:
        flags |= kernel.MS_NODEV
    # A user namespace may not clear what the mount outside has set.
    kernel.mount("none", target, None, flags | _mount_flags(target))


def _mount_flags(path: str) -> int:
    return os.statvfs(path).f_flag & _LOCKED


def _masked(toolchain: Sequence[str]) -> Iterator[str]:
    own = package_folder()
    if any(own.startswith(path + "/") for path in readable(toolchain)):
        yield own
