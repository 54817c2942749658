"""A running instance as a real guest in QEMU: its disk, its firmware, its metadata service, its serial console in a file.

Assumptions: always software emulation (a /dev/kvm that opens says little, as src/local/accelerator.rs has it); NVMe, as on every type of the Nitro system; 1 GiB of memory and two
processors whatever the type; no way in from outside; the way out is QEMU's user network. The UEFI variables are OVMF's empty
ones: EC2's form of UefiData is another than OVMF's store, so an image's own data is not given to the guest."""

import functools
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading

PROGRAM = "qemu-system-x86_64"
# Debian's and Ubuntu's now, the same before 2023, Fedora's: code and its empty variables, without Secure Boot.
FIRMWARE = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
]


def escaped(path):
    """A path within one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def quoted(word):
    return "'" + word.replace("'", "'\\''") + "'"


@functools.cache
def version():
    """QEMU's major version."""
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"version (\d+)", said).group(1))


class Guest:
    """One run of QEMU. `on_end(powered_off)` is called from a thread of its own when it has ended by itself."""

    def __init__(self, disk, folder, facts, user_data, uefi, on_end):
        self.folder = folder
        facts = {**facts, "secret": secrets.token_hex(32)}
        with open(os.path.join(folder, "metadata.json"), "w", encoding="utf-8") as file:
            json.dump(facts, file)
        with open(os.path.join(folder, "user-data"), "wb") as file:
            file.write(user_data)
        # A socket's path is at most 107 bytes: named from the folder, in which QEMU runs.
        self.monitor = os.path.join(folder, "monitor")
        self.ending = False
        with open(os.path.join(folder, "qemu.log"), "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, *self.arguments(disk, facts, uefi)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "TMPDIR": folder},
            )

        def watch():
            self.process.wait()
            if not self.ending:
                on_end()

        threading.Thread(target=watch, daemon=True).start()

    def arguments(self, disk, facts, uefi):
        uuid = "ec2" + facts["uuid"][3:]
        smbios = f"type=1,manufacturer=Amazon EC2,product={facts['type']},serial={uuid},uuid={uuid}"
        words = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "1024"]
        # Before QEMU 8 a kernel from 6.12 on faults at cmpxchg16b in software emulation.
        words += ["-accel", "tcg,thread=multi", "-cpu", "max" if version() >= 8 else "max,cx16=off"]
        words += ["-smp", str(min(2, os.cpu_count() or 1)), "-smbios", smbios]
        if uefi:
            code, empty = next(pair for pair in FIRMWARE if all(map(os.path.isfile, pair)))
            variables = os.path.join(self.folder, "variables.fd")
            if not os.path.exists(variables):
                shutil.copyfile(empty, variables)
            words += ["-drive", f"if=pflash,format=raw,readonly=on,file={escaped(code)}"]
            words += ["-drive", f"if=pflash,format=raw,file={escaped(variables)}"]
        words += ["-drive", f"if=none,id=root,format=raw,cache=unsafe,file={escaped(disk)}"]
        words += ["-device", f"nvme,drive=root,serial={facts['volume'].replace('-', '')}"]
        program = [sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "metadata.py"), self.folder]
        network = (
            "user,id=net,net=169.254.169.0/24,host=169.254.169.2,dns=169.254.169.3,dhcpstart=169.254.169.15,"
            "guestfwd=tcp:169.254.169.254:80-cmd:" + escaped(" ".join(map(quoted, program)))
        )
        words += ["-netdev", network, "-device", f"virtio-net-pci,netdev=net,mac={facts['mac']}"]
        words += ["-device", "virtio-rng-pci"]
        # Appended: the console of an instance that was stopped and started again goes on.
        console = f"file,id=console,append=on,path={escaped(os.path.join(self.folder, 'console'))}"
        words += ["-chardev", console, "-serial", "chardev:console"]
        words += ["-qmp", "unix:monitor,server=on,wait=off"]
        return words

    def say(self, command):
        """One command to QEMU's monitor; nothing where QEMU is gone."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                here = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
                try:
                    connection.connect(f"/proc/self/fd/{here}/monitor")
                finally:
                    os.close(here)
                lines = connection.makefile("rw")
                lines.readline()
                for word in ("qmp_capabilities", command):
                    lines.write(json.dumps({"execute": word}) + "\n")
                    lines.flush()
                    lines.readline()
        except OSError:
            pass

    def shut_down(self, patience):
        """Asks the guest by its power button, and takes the power away after `patience` seconds."""
        self.ending = True
        self.say("system_powerdown")
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def reboot(self):
        self.say("system_reset")

    def kill(self):
        self.ending = True
        self.process.kill()
        self.process.wait()
