"""Runs the commands of a buildspec as CodeBuild does, as far as its documentation tells it, and says as JSON what came of them.

    PYTHON tests/container/codebuild.py --check
    PYTHON tests/container/codebuild.py [--phase NAME]... [--variable NAME=VALUE]... [--docker FOLDER] [--registry PROGRAM]

PYTHON is that of scripts/stand-in-venv. With --registry, Debian's docker-registry, they run in a network of their own, in
which there is AWS as far as a push meets it: the stand-in; the registry under ECR's own name, with a certificate and with
the password that the stand-in's login gives; and a build's credentials at 169.254.170.2. Nothing else can be reached there.
Without it they run in this machine's network and have no AWS. --docker is a folder for the head of PATH.

How a build runs, and what is assumed of it, says tests/aws/stand_in/buildspec.py, which runs the stand-in's builds too."""

import argparse
import base64
import http.server
import json
import os
import secrets
import shlex
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/aws"))

from stand_in import buildspec  # noqa: E402
ACCOUNT, REGION = "123456789012", "us-east-1"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
# Where ECS and CodeBuild have the credentials of a container's role.
CREDENTIALS = "169.254.170.2"
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="whether it is YAML, and every command is bash")
    parser.add_argument("--phase", action="append")
    parser.add_argument("--variable", action="append", default=[])
    parser.add_argument("--docker", type=Path)
    parser.add_argument("--registry", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    spec = yaml.safe_load((ROOT / "buildspec.yml").read_text())
    if options.check:
        return print(json.dumps(check(spec)))
    if options.registry and not options.inside:
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv, "--inside"])
    with tempfile.TemporaryDirectory(prefix="codebuild-") as work:
        work = Path(work)
        aws = Aws(work, options.registry) if options.registry else None
        try:
            said = run(spec, options, aws, work)
            if aws:
                said |= aws.said()
        finally:
            if aws:
                aws.end()
    print(json.dumps(said))


def check(spec):
    """Every command, as its phase has it; raises at the first that is no bash."""
    assert str(spec["version"]) == "0.2" and spec["env"]["shell"] == "bash", spec
    assert set(spec["phases"]) <= {"install", "pre_build", "build", "post_build"}, spec["phases"]
    for name, phase in spec["phases"].items():
        for command in phase["commands"]:
            assert isinstance(command, str), f"YAML reads a command of {name} as {command!r}"
            subprocess.run(["bash", "-n", "-c", command], check=True)
            words = shlex.split(command, comments=True)
            # A script that is handed to another bash is a string to this one.
            for number, word in enumerate(words):
                if word == "-euc":
                    subprocess.run(["bash", "-n", "-c", words[number + 1]], check=True)
    return {name: phase["commands"] for name, phase in spec["phases"].items()}


def run(spec, options, aws, work):
    path = os.environ["PATH"]
    env = {
        "HOME": os.environ.get("HOME", "/root"),
        "PATH": f"{options.docker.resolve()}:{path}" if options.docker else path,
        "CODEBUILD_BUILD_ID": f"bakehouse:{secrets.token_hex(8)}",
        "CODEBUILD_BUILD_NUMBER": "7",
        "CODEBUILD_BUILD_SUCCEEDING": "1",
        "CODEBUILD_RESOLVED_SOURCE_VERSION": "0123456789abcdef0123456789abcdef01234567",
        "CODEBUILD_SRC_DIR": str(ROOT),
        **(aws.environment() if aws else {}),
        **buildspec.variables(spec),
        **dict(given.split("=", 1) for given in options.variable),
    }
    phases, env, _ = buildspec.run(spec, env, ROOT, work, sys.stderr, only=options.phase)
    phases = {phase["phaseType"].lower(): phase["phaseStatus"] for phase in phases}
    return {"phases": phases, "exported": buildspec.exported(spec, env)}


class Aws:
    """What of AWS a build meets that pushes: see the head of this file."""

    def __init__(self, work, registry):
        self.work, self.processes = work, []
        self.path = f"/v2/credentials/{secrets.token_hex(16)}"
        try:
            self._network()
            self._stand_in()
            self._registry(registry)
            self._answers()
        except BaseException:
            self.end()
            raise

    def environment(self):
        return {
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": self.path,
            # For docker: whom it trusts, where its logins are, and whom the one of the tests tells what was pushed.
            "SSL_CERT_FILE": str(self.work / "registry.crt"),
            "REGISTRY_AUTH_FILE": str(self.work / "auth.json"),
            "TOOK": f"http://{CREDENTIALS}/took",
        }

    def said(self):
        tenant = f"account={ACCOUNT}"
        exchanges = json.load(urllib.request.urlopen(f"{self.endpoint}/stand-in/exchanges?{tenant}"))
        findings = json.load(urllib.request.urlopen(f"{self.endpoint}/stand-in/findings?{tenant}"))
        registry = {}
        for name in self._ask("_catalog")[0]["repositories"]:
            for tag in self._ask(f"{name}/tags/list")[0]["tags"]:
                registry[f"{REGISTRY}/{name}:{tag}"] = self._ask(f"{name}/manifests/{tag}")[1]
        calls = [f"{call['service']}:{call['operation']}" for call in exchanges]
        return {"operations": calls, "findings": findings, "registry": registry, "credentials-asked": self.asked}

    def end(self):
        for process in self.processes:
            process.terminate()
            process.wait()

    def _network(self):
        """The loopback device up, with the address of the credentials too, and ECR's name in a file of hosts of our own."""
        import fcntl

        # linux/sockios.h and linux/if.h
        SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
            address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(CREDENTIALS))
            fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s", b"lo:0", address))
        # Where buildah is told of a file, it must be there.
        (self.work / "auth.json").write_text("{}")
        hosts = self.work / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {REGISTRY}\n")
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)

    def _stand_in(self):
        server = subprocess.Popen(
            [sys.executable, "-m", "stand_in", "--while-stdin"],
            cwd=ROOT / "tests/aws",
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(server)
        self.endpoint = server.stdout.readline().split()[-1]

    def _client(self):
        import boto3

        return boto3.client(
            "ecr",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=f"AKIABAKE{ACCOUNT}",
            aws_secret_access_key="of-the-stand-in",
        )

    def _registry(self, program):
        token = self._client().get_authorization_token()["authorizationData"][0]["authorizationToken"]
        self.login = base64.b64decode(token).decode()
        user, password = self.login.split(":", 1)
        # docker-registry takes bcrypt alone, which libc's crypt has.
        crypted = subprocess.run(
            ["perl", "-e", "print crypt($ARGV[0], q($2b$05$) . $ARGV[1])", password, secrets.token_hex(11)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        (self.work / "htpasswd").write_text(f"{user}:{crypted}\n")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            + ["-subj", f"/CN={REGISTRY}", "-addext", f"subjectAltName=DNS:{REGISTRY}"]
            + ["-keyout", self.work / "registry.key", "-out", self.work / "registry.crt"],
            check=True,
            capture_output=True,
        )
        config = self.work / "registry.yml"
        settings = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(self.work / "registry")}},
            "auth": {"htpasswd": {"realm": "ecr", "path": str(self.work / "htpasswd")}},
            "http": {
                "addr": "127.0.0.1:443",
                "tls": {"certificate": str(self.work / "registry.crt"), "key": str(self.work / "registry.key")},
            },
        }
        config.write_text(yaml.safe_dump(settings))
        log = self.work / "registry.log"
        with open(log, "wb") as to:
            self.processes.append(subprocess.Popen([program, "serve", config], stdout=to, stderr=to))
        for _ in range(100):
            if self.processes[-1].poll() is not None:
                break
            try:
                return socket.create_connection(("127.0.0.1", 443)).close()
            except ConnectionRefusedError:
                time.sleep(0.1)
        raise SystemExit(f"error: {program} does not listen:\n{log.read_text()}")

    def _answers(self):
        """The credentials of the build, and an ear for what the registry took: ECR knows it then, with its digest."""
        aws, self.asked = self, 0

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path != aws.path:
                    return self.send_error(404)
                aws.asked += 1
                keys = {"AccessKeyId": f"AKIABAKE{ACCOUNT}", "SecretAccessKey": "of-a-build", "Token": "of-a-build"}
                self._answer({**keys, "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/build", "Expiration": "2100-01-01T00:00:00Z"})

            def do_POST(self):
                name = self.rfile.read(int(self.headers["Content-Length"])).decode()
                repository, tag = name.split("/", 1)[1].rsplit(":", 1)
                manifest = aws._ask(f"{repository}/manifests/{tag}", parse=False)[0]
                aws._client().put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest)
                self._answer({})

            def _answer(self, what):
                body = json.dumps(what).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer((CREDENTIALS, 80), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def _ask(self, what, parse=True):
        """What the registry answers, and the digest that it says."""
        request = urllib.request.Request(f"https://{REGISTRY}/v2/{what}", headers={"Accept": MANIFESTS})
        request.add_header("Authorization", "Basic " + base64.b64encode(self.login.encode()).decode())
        trust = ssl.create_default_context(cafile=str(self.work / "registry.crt"))
        with urllib.request.urlopen(request, context=trust) as answer:
            body = answer.read().decode()
            return (json.loads(body) if parse else body), answer.headers.get("Docker-Content-Digest")


if __name__ == "__main__":
    main()
