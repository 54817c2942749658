"""A launched instance as a machine: its disk, its boots, its console and the root in which its commands run. instances.py
has what EC2 says of it.

Assumptions:
- The disk is the image's root volume: its snapshot's blocks, and noise where none was ever written (docs/what-aws-has-seen.md), up to
  `noise_mebibytes`; what is beyond that reads as zeros, so that large volumes cost no disk here.
- `machines: none` (the default): nothing boots. Commands run in namespaces on this host, user data is not run, cloud-init says
  that it is done and has done nothing, the console has what they wrote to /dev/console since the boot. `machines: qemu`: a real guest; no commands reach it, as it has no agent that knows the stand-in.
- An instance that shuts itself down stops or terminates by its shutdown behaviour as soon as its last process is gone."""

import os
import shutil
import tempfile
import threading
import time
import uuid

from .blocks import BLOCK_SIZE as BLOCK
from .confinement import POWERED_OFF, RESTARTED, Confinement
from .ending import when_ending
from .guest import Guest
from .world import SETTINGS, WORLD

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

SETTINGS.update(
    {
        # "none" or "qemu": what a running instance is.
        "machines": "none",
        # From RunInstances or StartInstances until running; from StopInstances until stopped; from TerminateInstances until
        # terminated; and how long a terminated instance is still described (an hour or so in EC2).
        "pending_seconds": 0.1,
        "stopping_seconds": 0.1,
        "shutting_down_seconds": 0.1,
        "terminated_seconds": 3600.0,
        # Most MiB of never written blocks that are filled with noise when a disk is made.
        "noise_mebibytes": 128,
        # How long a guest is given to go down by its power button.
        "power_off_seconds": 60.0,
        # From the start of a guest until its boot-time console (the one without `Latest`) is kept.
        "console_kept_seconds": 30.0,
    }
)

# Every machine that has something to end: processes, mounts, a folder.
_living = set()


def _end_all():
    for machine in list(_living):
        machine.destroy()


when_ending(_end_all)


def is_hole(file, index):
    """Whether nothing was ever written to a block of a sparse file."""
    try:
        return os.lseek(file.fileno(), index * BLOCK, os.SEEK_DATA) >= (index + 1) * BLOCK
    except OSError:  # ENXIO: nothing but a hole up to the end
        return True


class Machine:
    """`facts` is what its metadata service tells; `content` the blocks of its root volume."""

    def __init__(self, instance, tenant, facts, user_data, uefi, size, content):
        self.instance, self.tenant = instance, tenant
        self.facts, self.user_data, self.uefi = {**facts, "uuid": str(uuid.uuid4())}, user_data, uefi
        self.size, self.content = size, content
        self.lock = threading.RLock()
        self.folder = tempfile.mkdtemp(prefix="machine-", dir=WORLD.folder)
        self.disk = os.path.join(self.folder, "disk.raw")
        # Blocks that nobody ever wrote: those that read as noise, and those for which there was too much of it.
        self.noisy, self.empty, self.noise = frozenset(), frozenset(), b""
        self.boots, self.booted_at = 0, None
        self.confinement = self.guest = None
        self.kept_console, self.stopped_by = None, None
        _living.add(self)
        self._set("pending")

    def setting(self, name):
        return self.tenant.settings[name]

    # What EC2 shows.

    @property
    def state(self):
        return self.instance._state.name

    def _set(self, name, code="", message=""):
        from moto.ec2.models.instances import InstanceState, StateReason

        self.instance._state = InstanceState(name, CODES[name])
        if name in ("pending", "running"):
            self.instance._reason, self.instance.state_reason = "", None
        elif code:
            self.instance.state_reason = StateReason(message, code)
            when = time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime(self.tenant.now()))
            self.instance._reason = f"{message.partition(': ')[2]} ({when})"
        self.since = self.tenant.now()

    def _later(self, seconds, function):
        def run():
            time.sleep(self.setting(seconds))
            try:
                function()
            except Exception as error:  # told as the stand-in's failure: the test fails by it
                self.tenant.find(f"machine {self.instance.id}: {type(error).__name__}: {error}")

        threading.Thread(target=run, daemon=True).start()

    # Its life.

    def start(self):
        with self.lock:
            self._set("pending")
            self._later("pending_seconds", self._started)

    def _started(self):
        with self.lock:
            if self.state == "pending":
                self._boot()
                self._set("running")

    def _boot(self):
        self.boots += 1
        self.booted_at = time.monotonic()
        if self.setting("machines") == "qemu":
            self.make_disk()
            boot = self.boots
            self.guest = Guest(
                self.disk, self.folder, self.facts, self.user_data, self.uefi, lambda: self._powered_off(boot)
            )
            self._later("console_kept_seconds", lambda: self._keep_console(boot))

    def stop(self, code="Client.UserInitiatedShutdown", message="Client.UserInitiatedShutdown: User initiated shutdown"):
        with self.lock:
            self._set("stopping", code, message)
            self._later("stopping_seconds", self._stopped)

    def _stopped(self):
        self._power_off()
        with self.lock:
            if self.state == "stopping":
                self._set("stopped")

    def terminate(
        self, code="Client.UserInitiatedShutdown", message="Client.UserInitiatedShutdown: User initiated shutdown"
    ):
        with self.lock:
            if self.state in ("shutting-down", "terminated"):
                return
            self._set("shutting-down", code, message)
            self._later("shutting_down_seconds", self._terminated)

    def _terminated(self):
        with self.lock:
            if self.guest is not None:
                self._keep_console(self.boots)
            self.destroy()
        # Not within the lock: a call of EC2 that has moto's may wait for this machine's.
        self.gone()
        with self.lock:
            self._set("terminated")

    def gone(self):
        """Takes what goes with a terminated instance: set by instances.py."""

    def reboot(self):
        """Goes down cleanly and comes up again; the state stays `running`."""
        with self.lock:
            if self.guest is not None:
                self.guest.reboot()
                return
            self._leave()
            self._boot()

    def down_for(self, function):
        """Calls `function` between going down and coming up again, as for a reboot."""
        guest = self.guest
        if guest is not None:
            guest.shut_down(self.setting("power_off_seconds"))
        with self.lock:
            if self.state != "running":
                return function()
            self.guest = None
            self._leave()
            try:
                function()
            finally:
                self._boot()

    def _powered_off(self, boot):
        """The guest, or the root, was shut down from inside."""
        with self.lock:
            if boot != self.boots or self.state not in ("pending", "running"):
                return
            code = "Client.InstanceInitiatedShutdown"
            message = f"{code}: Instance initiated shutdown"
            if self.instance.instance_initiated_shutdown_behavior == "terminate":
                self.terminate(code, message)
            else:
                self.stop(code, message)

    def _power_off(self):
        """The power button: what runs is asked to end, and ended."""
        guest = self.guest
        if guest is not None:
            guest.shut_down(self.setting("power_off_seconds"))
        with self.lock:
            self.guest = None
            self._leave()
            self.booted_at = None

    def destroy(self):
        """Takes every process and file of it, at once."""
        with self.lock:
            if self.guest is not None:
                self.guest.kill()
                self.guest = None
            self._leave()
            self.booted_at = None
            shutil.rmtree(self.folder, ignore_errors=True)
            _living.discard(self)

    # Its disk.

    def make_disk(self):
        """The root volume as a raw file, made when it is first needed."""
        with self.lock:
            if os.path.exists(self.disk):
                return
            blocks = self.size * 2**30 // BLOCK
            partial = self.disk + ".partial"
            with open(partial, "wb") as file:
                file.truncate(self.size * 2**30)
                for index in self.content.all:
                    os.pwrite(file.fileno(), self.content.get(index)[0], index * BLOCK)
                unwritten = [index for index in range(blocks) if index not in self.content.all]
                enough = self.setting("noise_mebibytes") * 2
                self.noisy, self.empty = frozenset(unwritten[:enough]), frozenset(unwritten[enough:])
                self.noise = os.urandom(BLOCK)
                for index in self.noisy:
                    os.pwrite(file.fileno(), self.noise, index * BLOCK)
            os.rename(partial, self.disk)

    def blocks(self):
        """(index, bytes) of every block that was ever written: by the image, or by the machine."""
        if not os.path.exists(self.disk):
            for index in self.content.all:
                yield index, self.content.get(index)[0]
            return
        zeros = bytes(BLOCK)
        with open(self.disk, "rb") as file:
            for index in range(self.size * 2**30 // BLOCK):
                if index in self.empty and is_hole(file, index):
                    continue
                block = os.pread(file.fileno(), BLOCK, index * BLOCK)
                untouched = (index in self.noisy and block == self.noise) or (index in self.empty and block == zeros)
                if not untouched:
                    yield index, block

    def settle(self):
        """Brings what a running machine has not written yet to its disk, as far as that can be done from outside."""
        with self.lock:
            if self.confinement is not None:
                self.confinement.sync()

    # Its root, for commands.

    def enter(self):
        """The root in which commands run. It is there until the machine goes down."""
        with self.lock:
            if self.state != "running" or self.guest is not None:
                raise OSError(f"{self.instance.id} is {self.state} or a guest")
            if self.confinement is None:
                self.make_disk()
                boot = self.boots
                name = "ip-" + self.facts["ip"].replace(".", "-")
                self.confinement = Confinement(self.disk, self.folder, name, lambda code: self._root_ended(boot, code))
            return self.confinement

    def _root_ended(self, boot, code):
        with self.lock:
            if boot != self.boots or self.confinement is None:
                return
            if code == RESTARTED:
                self.reboot()
            elif code == POWERED_OFF:
                self._powered_off(boot)

    def _leave(self):
        confinement, self.confinement = self.confinement, None
        if confinement is not None:
            confinement.end()

    # Its console.

    def console(self):
        """The newest 64 KiB."""
        confinement = self.confinement
        text = self._console_file() if confinement is None else confinement.get("/dev/console") or b""
        return text[-65536:]

    def _console_file(self):
        try:
            with open(os.path.join(self.folder, "console"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return self.kept_console or b""

    def _keep_console(self, boot):
        if boot == self.boots:
            self.kept_console = self.console()
