"""CodeCommit: its repositories are bare ones of git on this host's disk. A real `git push` to one tells its event (events.py), and
an action of CodePipeline takes its commits.

Assumptions:
- `cloneUrlHttp` is the folder of the repository: there is no server of git, and no login.
- A push tells one event for each branch or tag that it changes, when the push has ended.
- The action's artifact is the commit's files as `git archive` packs them (CODE_ZIP); its revision is the commit's id, its
  variables those of the action's reference. A branch that is not there fails it with ConfigurationError.
- An execution that an event or a call started without a revision takes the branch as it is when the action begins."""

import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from moto.codecommit.models import CodeCommitBackend, codecommit_backends

from . import ending, events
from . import pipeline_executions as executions
from .world import WORLD

NOTHING = "0" * 40
_folder = None
# What moto does.
of_moto = {}

# What a push runs when it has ended.
HOOK = '''#!{python}
import json, sys, urllib.request
for line in sys.stdin:
    old, new, name = line.split()
    said = json.dumps({{"account": "{account}", "region": "{region}", "repository": "{name}", "old": old, "new": new, "ref": name}})
    urllib.request.urlopen(urllib.request.Request("{address}/stand-in/pushed", said.encode())).read()
'''


def git(repository, *args, **more):
    said = subprocess.run(["git", "--git-dir", repository, *args], capture_output=True, check=False, **more)
    if said.returncode != 0:
        raise ValueError(f"git {args[0]}: {said.stderr.decode().strip()}")
    return said.stdout


def folder():
    global _folder
    if _folder is None:
        _folder = Path(tempfile.mkdtemp(prefix="codecommit-", dir=WORLD.folder))
        ending.when_ending(lambda: shutil.rmtree(_folder, ignore_errors=True))
    return _folder


def path_of(account, region, name):
    return folder() / account / region / f"{name}.git"


def create_repository(self, repository_name, repository_description):
    """CreateRepository. Assumption: the default branch is whatever is pushed first."""
    made = of_moto["create_repository"](self, repository_name, repository_description)
    path = path_of(self.account_id, self.region_name, repository_name)
    path.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True)
    hook = path / "hooks/post-receive"
    words = {"account": self.account_id, "region": self.region_name, "name": repository_name, "address": WORLD.address}
    hook.write_text(HOOK.format(python=sys.executable, **words))
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    made["cloneUrlHttp"] = str(path)
    return made


def delete_repository(self, repository_name):
    """DeleteRepository."""
    shutil.rmtree(path_of(self.account_id, self.region_name, repository_name), ignore_errors=True)
    return of_moto["delete_repository"](self, repository_name)


def pushed(asked):
    """What the hook of a push tells: its event (EventBridge's user guide, "CodeCommit Repository State Change")."""
    account, region, name = asked["account"], asked["region"], asked["repository"]
    kind, _, short = asked["ref"].removeprefix("refs/").partition("/")
    arn = f"arn:aws:codecommit:{region}:{account}:{name}"
    new = asked["old"] == NOTHING
    detail = {
        "event": "referenceCreated" if new else "referenceDeleted" if asked["new"] == NOTHING else "referenceUpdated",
        "repositoryName": name,
        "repositoryId": codecommit_backends[account][region].repositories[name].repository_metadata["repositoryId"],
        "referenceType": "tag" if kind == "tags" else "branch",
        "referenceName": short,
        "referenceFullName": asked["ref"],
        "commitId": asked["new"],
        "callerUserArn": f"arn:aws:iam::{account}:root",
        **({} if new else {"oldCommitId": asked["old"]}),
    }
    events.tell(account, region, "aws.codecommit", "CodeCommit Repository State Change", [arn], detail)
    return {}


def source(action):
    """The runner of CodePipeline's source action."""
    execution, asked = action.execution, action.configuration
    name, branch = asked["RepositoryName"], asked["BranchName"]
    path = path_of(execution.account, execution.region, name)
    wanted = next((one["revisionValue"] for one in execution.revisions if one["actionName"] == action.name), f"refs/heads/{branch}")
    try:
        commit = git(path, "rev-parse", "--verify", f"{wanted}^{{commit}}").decode().strip()
        packed = git(path, "archive", "--format=zip", commit)
        message, date = git(path, "show", "-s", "--format=%s%n%cI", commit).decode().splitlines()[:2]
    except (ValueError, FileNotFoundError) as error:
        return action.fail("ConfigurationError", f"The branch {branch} of the repository {name} cannot be read: {error}")
    for output in action.outputs.values():
        output.put(packed, commit)
    variables = {
        "AuthorDate": date,
        "BranchName": branch,
        "CommitId": commit,
        "CommitMessage": message,
        "CommitterDate": date,
        "RepositoryName": name,
    }
    revision = {"revisionId": commit, "revisionChangeId": commit, "created": execution.tenant.now()}
    action.succeed(variables=variables, revision=revision, summary=message)


executions.RUNNERS[("AWS", "Source", "CodeCommit")] = source


def install(moto):
    of_moto["create_repository"] = moto.replace(CodeCommitBackend, "create_repository", create_repository)
    of_moto["delete_repository"] = moto.replace(CodeCommitBackend, "delete_repository", delete_repository)
