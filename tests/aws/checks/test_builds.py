"""What a build of CodeBuild does with its buildspec, as far as the stand-in's own rules say it. Pipelines of builds are in
tests/pipeline/from_push.rs."""

import io
import json
import time
import unittest
import zipfile

import botocore.exceptions

from .server import Case

ENVIRONMENT = {
    "type": "LINUX_CONTAINER",
    "image": "own",
    "computeType": "BUILD_GENERAL1_SMALL",
    "environmentVariables": [{"name": "A", "value": "project"}, {"name": "B", "value": "project"}],
}


class Builds(Case):
    def setUp(self):
        super().setUp()
        self.codebuild, self.s3 = self.client("codebuild"), self.client("s3")
        self.bucket = f"sources-{self.account}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.post("seed", build_image={"name": "own", "folder": "/"})

    def project(self, spec, **environment):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("buildspec.yml", "version: 0.2\n" + spec)
        self.s3.put_object(Bucket=self.bucket, Key="source.zip", Body=packed.getvalue())
        self.codebuild.create_project(
            name="own",
            source={"type": "S3", "location": f"{self.bucket}/source.zip"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment={**ENVIRONMENT, **environment},
            serviceRole=f"arn:aws:iam::{self.account}:role/own",
        )

    def build(self, spec, environment=None, **overrides):
        """A build that has ended, and its log."""
        self.project(spec, **(environment or {}))
        return self.ended(self.codebuild.start_build(projectName="own", **overrides)["build"]["id"])

    def ended(self, build):
        while True:
            said = self.codebuild.batch_get_builds(ids=[build])["builds"][0]
            if said["buildComplete"]:
                return said, self.log(build)
            time.sleep(0.05)

    def log(self, build):
        return self.get("build", id=build)["log"]

    @staticmethod
    def phases(build):
        return [f"{phase['phaseType']} {phase['phaseStatus']}" for phase in build["phases"]]

    def test_variables_go_from_command_to_command_and_out(self):
        build, log = self.build(
            """
env: { variables: { A: spec, C: spec }, exported-variables: [A, B, D, NEVER] }
phases:
  build: { commands: ['echo "$A $B $C"', 'export D=1', 'echo "$D $CODEBUILD_INITIATOR"'] }
""",
            environmentVariablesOverride=[{"name": "B", "value": "override", "type": "PLAINTEXT"}],
        )
        self.assertIn("project override spec\n", log)
        self.assertIn(f"1 AKIABAKE/{self.account}\n", log)
        exported = {one["name"]: one["value"] for one in build["exportedEnvironmentVariables"]}
        self.assertEqual(exported, {"A": "project", "B": "override", "D": "1"})
        self.assertEqual((build["buildStatus"], build["buildNumber"]), ("SUCCEEDED", 1))

    def test_after_a_failed_build_phase_the_rest_still_runs(self):
        build, log = self.build(
            """
phases:
  build: { commands: ['false', echo never], finally: ['echo finally $CODEBUILD_BUILD_SUCCEEDING'] }
  post_build: { commands: ['echo post $CODEBUILD_BUILD_SUCCEEDING; echo "<testsuite><testcase name=\\"a\\" classname=\\"c\\"/></testsuite>" >r.xml'] }
reports: { r: { files: [r.xml] } }
"""
        )
        self.assertEqual(self.phases(build), ["BUILD FAILED", "POST_BUILD SUCCEEDED", "UPLOAD_ARTIFACTS SUCCEEDED"])
        self.assertIn("finally 0\n", log)
        self.assertIn("post 0\n", log)
        self.assertNotIn("\nnever\n", log)
        context = build["phases"][0]["contexts"][0]
        self.assertEqual(context["message"], "Error while executing command: false. Reason: exit status 1")
        (arn,) = build["reportArns"]
        report = self.codebuild.batch_get_reports(reportArns=[arn])["reports"][0]
        self.assertEqual((report["status"], report["testSummary"]["total"]), ("SUCCEEDED", 1))
        self.assertEqual(self.codebuild.describe_test_cases(reportArn=arn)["testCases"][0]["name"], "a")

    def test_after_a_failed_install_nothing_runs(self):
        build, _ = self.build("phases: { install: { commands: ['false'] }, build: { commands: ['true'] } }")
        self.assertEqual(self.phases(build), ["INSTALL FAILED"])

    def test_what_cannot_begin_fails_before_its_phases(self):
        build, _ = self.build("phases: { build: { commands: ['true'] } }", {"image": "unknown"})
        self.assertEqual(self.phases(build), ["PROVISIONING FAILED"])

    def test_a_buildspec_that_is_none_is_told(self):
        build, log = self.build("phases: [")
        self.assertEqual(self.phases(build), ["DOWNLOAD_SOURCE FAILED"])
        self.assertIn("while parsing", log)

    def test_a_build_has_the_credentials_of_its_role(self):
        _, log = self.build("phases: { build: { commands: ['curl -s \"$AWS_CONTAINER_CREDENTIALS_FULL_URI\"; echo'] } }")
        keys = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
        sts = self.client(
            "sts",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["Token"],
        )
        self.assertIn(":assumed-role/own/", sts.get_caller_identity()["Arn"])

    def test_without_the_privileged_mode_nothing_is_mounted(self):
        spec = "phases: { build: { commands: ['mkdir m && mount -t tmpfs none m'] } }"
        for privileged, status in ((False, "FAILED"), (True, "SUCCEEDED")):
            build, log = self.build(spec, {"privilegedMode": privileged})
            self.assertEqual(build["buildStatus"], status, log)
            self.codebuild.delete_project(name="own")

    def test_a_stopped_build_ends_with_all_that_it_started(self):
        self.project("phases: { build: { commands: ['sleep 1000 & mkfifo wait; echo begun; cat wait'], finally: [echo finally] } }")
        build = self.codebuild.start_build(projectName="own")["build"]["id"]
        while "begun\n" not in self.log(build):
            time.sleep(0.05)
        self.codebuild.stop_build(id=build)
        said, log = self.ended(build)
        self.assertEqual((said["buildStatus"], self.phases(said)), ("STOPPED", []))
        self.assertNotIn("\nfinally\n", log)

    def test_a_build_that_nobody_knows_is_told(self):
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "ResourceNotFoundException"):
            self.codebuild.stop_build(id="own:none")
        self.assertEqual(self.codebuild.batch_get_builds(ids=["own:none"])["buildsNotFound"], ["own:none"])


if __name__ == "__main__":
    unittest.main()
