"""Runs the commands of a buildspec as CodeBuild does, as far as its documentation tells it. It knows nothing of the stand-in: it is
a build's own process there (code_build.py), and what runs the end of Bakehouse's own buildspec (tests/container/codebuild.py).

    PYTHON buildspec.py WORK    WORK/build.json says what is to be done; WORK/said.json is what came of it, after each phase

Assumptions:
- A command has a shell of its own, and what it exports is there for the next one (the documentation promises the same shell;
  reports of arrays that are gone say otherwise: this is the less of both).
- A phase ends with its first command that fails; then its `finally` runs. post_build runs after a failed build too; after a
  failed install or pre_build nothing does.
- Artifacts and reports are taken of a build that reached post_build, whether it failed or not; a file that is missing fails the
  build for an artifact, and is told for a report.
- `on-failure: RETRY` does nothing. What is not emulated (parameters, secrets, caches, proxies, batches, runtime versions, `run-as`)
  fails the build."""

import glob
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import yaml

PHASES = ("install", "pre_build", "build", "post_build")
# What a shell has of itself.
OF_THE_SHELL = ("_", "SHLVL", "PWD", "OLDPWD")
KNOWN = {"version", "env", "phases", "artifacts", "reports"}
KNOWN_OF_PHASE = {"commands", "finally", "on-failure"}
KNOWN_OF_ENV = {"shell", "variables", "exported-variables"}


def read(text):
    spec = yaml.safe_load(text)
    unknown = set(spec) - KNOWN | set(spec.get("env") or {}) - KNOWN_OF_ENV
    for phase in spec["phases"].values():
        unknown |= set(phase) - KNOWN_OF_PHASE
    if unknown:
        raise ValueError(f"YAML_FILE_ERROR: these are not emulated: {sorted(unknown)}")
    return spec


def shell_of(spec):
    return "bash" if (spec.get("env") or {}).get("shell") == "bash" else "sh"


def variables(spec):
    return {name: str(value) for name, value in ((spec.get("env") or {}).get("variables") or {}).items()}


def run(spec, env, folder, work, log, only=None, after_phase=lambda phases: None, root=None):
    """With `root`, commands have it as theirs; `folder` and `work` have the same paths in it. Gives the phases, each with its status and context, what is left in the environment, and whether the build was over early."""
    env = {**env, "CODEBUILD_BUILD_SUCCEEDING": env.get("CODEBUILD_BUILD_SUCCEEDING", "1")}
    phases, over = [], False
    for name in PHASES:
        phase = spec["phases"].get(name)
        if over or phase is None or (only and name not in only):
            continue
        said = {"phaseType": name.upper(), "phaseStatus": "SUCCEEDED", "startTime": time.time(), "contexts": []}
        for group in (phase.get("commands") or [], phase.get("finally") or []):
            for command in group:
                print(f"[Container] Running command {command.rstrip()}", file=log, flush=True)
                status, env = one(command, env, folder, work, log, shell_of(spec), root)
                if status != 0:
                    message = f"Error while executing command: {command.rstrip()}. Reason: exit status {status}"
                    said["phaseStatus"] = "FAILED"
                    said["contexts"].append({"statusCode": "COMMAND_EXECUTION_ERROR", "message": message[:1000]})
                    env["CODEBUILD_BUILD_SUCCEEDING"] = "0"
                    break
        said["endTime"] = time.time()
        for context in said["contexts"]:
            print(f"[Container] Phase context status code: {context['statusCode']} Message: {context['message']}", file=log)
        print(f"[Container] Phase complete: {name.upper()} State: {said['phaseStatus']}", file=log, flush=True)
        phases.append(said)
        after_phase(phases)
        on_failure = phase.get("on-failure")
        if said["phaseStatus"] == "FAILED" and on_failure != "CONTINUE":
            over = on_failure == "ABORT" or name in ("install", "pre_build")
    return phases, env, over


def one(command, env, folder, work, log, shell="bash", root=None):
    """A command's status, and what it left in the environment."""
    after, script = Path(work) / "environment", Path(work) / "script.sh"
    after.unlink(missing_ok=True)
    script.write_text(f"trap 'env -0 >{after}' EXIT\n{command}\n")
    words = [shell, script]
    if root:
        words = ["chroot", root, "sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", folder, *words]
    status = subprocess.run(words, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
    if not after.exists():
        # It was killed, or replaced itself.
        return status, env
    left = dict(line.split("=", 1) for line in after.read_text().split("\0") if line)
    return status, {name: value for name, value in left.items() if name not in OF_THE_SHELL}


def exported(spec, env):
    """Assumption: one that is not set is not exported."""
    names = (spec.get("env") or {}).get("exported-variables") or []
    return {name: env[name] for name in names if name in env}


def files(wanted, folder, env):
    """(path in the result, file) of what `files` with its `base-directory` means."""
    base = Path(folder, os.path.expandvars(_filled(wanted.get("base-directory", ""), env)))
    found = {}
    for pattern in wanted["files"]:
        pattern = _filled(pattern, env)
        matches = glob.glob(pattern, root_dir=base, recursive=True, include_hidden=True)
        named = [one for one in matches if (base / one).is_file()]
        if not named:
            raise ValueError(f"no matching artifact paths found: {base / pattern}")
        for path in named:
            flat = str(wanted.get("discard-paths", "no")) in ("yes", "True")
            found[os.path.basename(path) if flat else path] = base / path
    return sorted(found.items())


def _filled(text, env):
    for name in sorted(env, key=len, reverse=True):
        text = text.replace(f"${{{name}}}", env[name]).replace(f"${name}", env[name])
    return text


def pack(to, wanted, folder, env):
    """An artifact, as a zip file."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as into:
        for path, file in files(wanted, folder, env):
            into.write(file, path)


def main(work):
    """A whole build. `build.json`: the source's `folder`, the `root` of its commands, its `env`, the buildspec's `path` or `text`, and the `artifacts` that are
    wanted (of each the file to write, and the name of the secondary one where it is that)."""
    work = Path(work)
    build = json.loads((work / "build.json").read_text())
    folder, log = build["folder"], sys.stderr
    said = {"phases": [], "exported": {}, "reports": {}}

    def keep(phases=None):
        said["phases"] = said["phases"] if phases is None else list(phases)
        (work / "said.new").write_text(json.dumps(said))
        (work / "said.new").rename(work / "said.json")

    try:
        spec = read(build.get("text") or (Path(folder) / build["path"]).read_text())
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        context = {"statusCode": "YAML_FILE_ERROR", "message": str(error)[:1000]}
        print(f"[Container] {context['message']}", file=log, flush=True)
        now = time.time()
        phase = {"phaseType": "DOWNLOAD_SOURCE", "phaseStatus": "FAILED", "startTime": now, "endTime": now, "contexts": [context]}
        return keep([phase])
    env = {**variables(spec), **build["env"]}
    phases, env, over = run(spec, env, folder, work, log, after_phase=keep, root=build["root"])
    said["exported"] = exported(spec, env)
    if not over:
        phases.append(upload(spec, build, folder, env, said, log))
    keep(phases)


def upload(spec, build, folder, env, said, log):
    phase = {"phaseType": "UPLOAD_ARTIFACTS", "phaseStatus": "SUCCEEDED", "startTime": time.time(), "contexts": []}
    for name, report in (spec.get("reports") or {}).items():
        try:
            said["reports"][name] = [path.read_text() for _, path in files(report, folder, env)]
        except ValueError as error:
            print(f"[Container] No test results: {error}", file=log, flush=True)
    of_spec = spec.get("artifacts") or {}
    for one in build["artifacts"]:
        wanted = of_spec if one["name"] is None else (of_spec.get("secondary-artifacts") or {}).get(one["name"])
        try:
            if not wanted or not wanted.get("files"):
                raise ValueError(f"the buildspec has no artifact {one['name'] or ''}")
            pack(one["to"], wanted, folder, env)
        except ValueError as error:
            phase["phaseStatus"] = "FAILED"
            phase["contexts"].append({"statusCode": "CLIENT_ERROR", "message": str(error)[:1000]})
            print(f"[Container] {error}", file=log, flush=True)
    phase["endTime"] = time.time()
    return phase


if __name__ == "__main__":
    main(sys.argv[1])
