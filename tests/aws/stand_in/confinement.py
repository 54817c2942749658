"""A running machine's root, for commands: its disk mounted in namespaces of its own (mounts, processes, host name, IPC), with
`/` turned to it by pivot_root, so that no file of this host can be named in it. The network stays the host's: what a command
fetches comes from the stand-in's own address.

Run as a program, `confinement.py DISK FOLDER NAME`, it is the machine's first process: it says `{"pid": …}` when the root is
there, collects orphans, and ends when it is killed, taking every process of the machine and every mount with it. It ends with
`RESTARTED` or `POWERED_OFF` where a command called reboot(2).

Imports nothing but the standard library, so that it starts quickly."""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

RESTARTED, POWERED_OFF = 101, 102

# <linux/sched.h>, <sys/mount.h>, <linux/prctl.h>
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
MNT_DETACH, MS_REC, MS_PRIVATE, MS_RDONLY = 2, 0x4000, 1 << 18, 1
PR_SET_PDEATHSIG = 1

# What a command of an instance never needs here, and with which it could reach the host's kernel, clock and devices.
# (CAP_SYS_BOOT stays: in a PID namespace of its own, reboot(2) ends that namespace only.)
DROPPED = "-sys_module,-sys_rawio,-sys_time,-syslog,-mknod,-wake_alarm,-mac_admin,-mac_override,-audit_control"

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}

LIBC = ctypes.CDLL(None, use_errno=True)


class NoRoot(Exception):
    """The disk holds no root that could be entered."""


def checked(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags=0, options=None):
    encode = lambda text: text.encode() if text is not None else None
    done = LIBC.mount(encode(source), os.fsencode(target), encode(kind), ctypes.c_ulong(flags), encode(options))
    checked(done, f"mount {source or kind} on {target}")


def partitions_of(disk):
    """(offset, length) in bytes of every partition; of the whole disk where it has no table."""
    found = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True)
    if found.returncode != 0:
        return [(0, os.path.getsize(disk))]
    table = json.loads(found.stdout)["partitiontable"]
    sector = table.get("sectorsize", 512)
    return [(p["start"] * sector, p["size"] * sector) for p in table["partitions"]]


class Partition:
    """One partition behind an offset loop device (a container has no nodes for the partitions of a loop device)."""

    def __init__(self, disk, offset, length):
        probe = ["blkid", "-p", "-O", str(offset), "-S", str(length), "-o", "export", disk]
        lines = subprocess.run(probe, capture_output=True, text=True).stdout.splitlines()
        self.known = dict(line.split("=", 1) for line in lines if "=" in line)
        self.device = None
        self.disk, self.offset, self.length = disk, offset, length

    @property
    def kind(self):
        return self.known.get("TYPE", "")

    def attach(self):
        if self.device is None:
            command = ["losetup", "--show", "-f", "-o", str(self.offset), "--sizelimit", str(self.length), self.disk]
            self.device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        return self.device

    def detach(self):
        """The device goes at once, or, while it is mounted, with its last mount."""
        if self.device is not None:
            subprocess.run(["losetup", "-d", self.device], capture_output=True)
            self.device = None

    def mount(self, target):
        """Mounts it. `nouuid`: another volume of the same image may be mounted on this host."""
        options = {"xfs": "nouuid", "ext4": "noinit_itable"}.get(self.kind)
        mount(self.attach(), target, self.kind, 0, options)

    def is_named(self, spec):
        key, _, value = spec.strip('"').partition("=")
        names = {"UUID": "UUID", "LABEL": "LABEL", "PARTUUID": "PART_ENTRY_UUID", "PARTLABEL": "PART_ENTRY_NAME"}
        return bool(value) and self.known.get(names.get(key, "")) == value.strip('"')


def mount_disk(disk, root):
    """Mounts the partition that has a root, and whatever its fstab wants of the same disk."""
    partitions = [Partition(disk, offset, length) for offset, length in partitions_of(disk)]
    try:
        for found in partitions:
            if found.kind not in ("ext4", "ext3", "ext2", "xfs", "btrfs"):
                continue
            with contextlib.suppress(OSError):
                found.mount(root)
                if os.path.lexists(f"{root}/bin/sh") and os.path.isdir(f"{root}/etc"):
                    break
                checked(LIBC.umount2(os.fsencode(root), 0), f"umount {root}")
        else:
            raise NoRoot(f"no partition of {disk} holds a root with /bin/sh")
        mount_fstab(root, [p for p in partitions if p is not found])
    finally:
        for partition in partitions:
            partition.detach()


def mount_fstab(root, others):
    try:
        with open(f"{root}/etc/fstab", encoding="utf-8") as fstab:
            lines = [line.split() for line in fstab if line.strip() and not line.lstrip().startswith("#")]
    except OSError:
        return
    for spec, point, *_ in sorted((line for line in lines if len(line) >= 3), key=lambda line: line[1]):
        for partition in others:
            if point.startswith("/") and point != "/" and partition.is_named(spec):
                # A kernel without vfat cannot mount /boot/efi; nothing but a change to it fails then.
                with contextlib.suppress(OSError):
                    os.makedirs(root + point, exist_ok=True)
                    partition.mount(root + point)


def furnish(root):
    """/proc, /sys, /dev and /run, as a booted machine has them; its name servers are the host's."""
    for name in ("proc", "sys", "dev", "run"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    mount("proc", f"{root}/proc", "proc")
    with contextlib.suppress(OSError):
        mount("sysfs", f"{root}/sys", "sysfs", MS_RDONLY)
    mount("tmpfs", f"{root}/dev", "tmpfs", 0, "mode=0755")
    mount("tmpfs", f"{root}/run", "tmpfs", 0, "mode=0755")
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"{root}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(f"{root}/dev/{name}", 0o666)
    for name in ("pts", "shm"):
        os.mkdir(f"{root}/dev/{name}")
    mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", 0, "mode=1777")
    for name, target in LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")
    # Nobody types there, and what is written there is read from outside.
    with open(f"{root}/dev/console", "wb"):
        os.chmod(f"{root}/dev/console", 0o600)
    lend_name_servers(root)
    if os.path.lexists(f"{root}/usr/bin/cloud-init"):
        finish_cloud_init(root)


def finish_cloud_init(root):
    """As cloud-init leaves /run when it is done: `cloud-init status --wait` waits for these files."""
    stages = ("init-local", "init", "modules-config", "modules-final")
    done = {name: {"start": 1.0, "finished": 1.0, "errors": []} for name in stages}
    os.makedirs(f"{root}/run/cloud-init", exist_ok=True)
    for name, content in (
        ("status.json", {"stage": None, "datasource": "DataSourceEc2", **done}),
        ("result.json", {"datasource": "DataSourceEc2", "errors": []}),
    ):
        with open(f"{root}/run/cloud-init/{name}", "w", encoding="utf-8") as file:
            json.dump({"v1": content}, file)


def lend_name_servers(root):
    """What DHCP would have told the machine, where a DHCP client would have written it."""
    servers, name = "/etc/resolv.conf", f"{root}/etc/resolv.conf"
    if not os.path.exists(servers):
        return
    if os.path.islink(name):
        target = os.path.normpath(os.path.join("/etc", os.readlink(name)))
        if target.startswith("/run/"):
            os.makedirs(os.path.dirname(root + target), exist_ok=True)
            shutil.copyfile(servers, root + target)
    elif os.path.isfile(name):
        shutil.copyfile(servers, name)


def turn_to(root):
    os.chdir(root)
    checked(LIBC.syscall(155, b".", b"."), "pivot_root")  # SYS_pivot_root of x86_64
    checked(LIBC.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def first_process(disk, root, name, ready):
    """Process 1 of the machine. Never returns."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        checked(LIBC.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC), "unshare")
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount_disk(disk, root)
        furnish(root)
        checked(LIBC.sethostname(name.encode(), len(name)), "sethostname")
        # The folder itself must be a mount: it is.
        turn_to(root)
    except Exception as error:
        os.write(ready, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    os.write(ready, b"{}")
    os.close(ready)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.05)


def main(disk, root, name):
    # Its mounts are its own: this process goes on seeing the host's.
    checked(LIBC.unshare(CLONE_NEWPID), "unshare")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(reader)
        first_process(disk, root, name, writer)
    os.close(writer)
    said = b""
    while chunk := os.read(reader, 4096):
        said += chunk
        with contextlib.suppress(json.JSONDecodeError):
            json.loads(said)
            break
    answer = json.loads(said or b'{"error": "the first process ended"}')
    print(json.dumps(answer or {"pid": child}), flush=True)
    # The stand-in's end closes this standard input, however it ended. (PR_SET_PDEATHSIG would mean a thread of it; and a
    # process that made a PID namespace cannot have threads.)
    ended, status = os.waitpid(child, os.WNOHANG)
    while ended == 0:
        if select.select([0], [], [], 0.02)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            shutil.rmtree(os.path.dirname(root), ignore_errors=True)
            return 0
        ended, status = os.waitpid(child, os.WNOHANG)
    # pid_namespaces(7): reboot(2) in a namespace ends its first process as if by one of these signals.
    if os.WIFSIGNALED(status):
        ended = {signal.SIGHUP: RESTARTED, signal.SIGINT: POWERED_OFF}
        return ended.get(os.WTERMSIG(status), 0)
    return os.waitstatus_to_exitcode(status)


class Confinement:
    """A machine's root and processes, seen from the stand-in."""

    def __init__(self, disk, folder, name, on_end):
        """Enters the root of `disk`. `on_end(code)` is called from a thread of its own when its first process has ended."""
        self.disk = disk
        self.root = os.path.join(folder, "root")
        os.makedirs(self.root, exist_ok=True)
        command = [sys.executable, "-I", "-S", __file__, disk, self.root, name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        said = json.loads(self.process.stdout.readline() or b"{}")
        if "pid" not in said:
            self.process.kill()
            raise NoRoot(said.get("error") or "it did not begin")
        self.pid = said["pid"]

        def watch():
            code = self.process.wait()
            on_end(code)

        threading.Thread(target=watch, daemon=True).start()

    def command(self, words):
        """`words` as a command line of this host that runs them in the root, as its root user."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-p", "-r", "-w", "--"]
        return ["setpriv", f"--bounding-set={DROPPED}", "--inh-caps=-all", *enter, *words]

    def put(self, path, content, mode=0o600):
        """Writes a file in the root. Its own links cannot lead outside, as the root is where they end."""
        script = 'umask 077; mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1"'
        words = ["/bin/sh", "-c", script, "sh", path, format(mode, "o")]
        done = subprocess.run(self.command(words), input=content, capture_output=True, env=ENVIRONMENT, cwd="/")
        if done.returncode != 0:
            raise OSError(f"cannot write {path}: {done.stderr.decode('utf-8', 'replace')}")

    def get(self, path):
        """A file's bytes; None where there is none, or no root any more. Read from inside, where links end."""
        words = self.command(["/bin/sh", "-c", 'test -f "$1" && cat "$1"', "sh", path])
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT, cwd="/")
        return done.stdout if done.returncode == 0 else None

    def has(self, *paths):
        words = ["/bin/sh", "-c", 'for p; do test -e "$p" && exit 0; done; exit 1', "sh", *paths]
        return subprocess.run(self.command(words), capture_output=True, env=ENVIRONMENT, cwd="/").returncode == 0

    def sync(self):
        subprocess.run(self.command(["/bin/sh", "-c", "sync"]), capture_output=True, env=ENVIRONMENT, cwd="/")

    def end(self):
        """Ends every process, unmounts, and waits until the disk's file has everything."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            left = subprocess.run(["losetup", "-j", self.disk], capture_output=True, text=True).stdout
            if not left.strip():
                return
            time.sleep(0.02)
        raise OSError(f"{self.disk} is still in use: {left}")


# What the agent's service has by its unit. No HOME, as commands of Run Command have none.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
