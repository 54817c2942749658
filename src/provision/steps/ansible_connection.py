# The connection that Ansible has to a root while it is baked: every command, and every file, goes through the
# script that BAKEHOUSE_ENTER names, which runs its arguments in the root.

import os
import shlex
import subprocess

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: bakehouse
short_description: run tasks in the root of an image that is being baked
description:
  - Runs commands in the root and copies files to and from it.
author: Bakehouse
version_added: "1.0"
extends_documentation_fragment:
  - connection_pipelining
options: {}
"""


class Connection(ConnectionBase):
    transport = "bakehouse"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def _run(self, words, **streams):
        try:
            enter = os.environ["BAKEHOUSE_ENTER"]
            return subprocess.run(["/bin/sh", enter, *words], check=False, **streams)
        except (OSError, KeyError) as error:
            raise AnsibleConnectionFailure("cannot enter the root: %s" % error) from error

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._run(["/bin/sh", "-c", cmd], input=in_data or b"", capture_output=True)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound("there is no file %s" % in_path)
        with open(in_path, "rb") as source:
            write = "cat > " + shlex.quote(out_path)
            done = self._run(["/bin/sh", "-c", write], stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise AnsibleError("cannot write %s in the root: %s" % (out_path, done.stderr.decode(errors="replace")))

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        with open(out_path, "wb") as target:
            done = self._run(["cat", "--", in_path], stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise AnsibleError("cannot read %s in the root: %s" % (in_path, done.stderr.decode(errors="replace")))

    def close(self):
        self._connected = False
