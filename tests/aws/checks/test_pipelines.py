"""CodePipeline's engine: what a pipeline does, and what its jobs take."""

import unittest

from .server import Case

VERSION = {"owner": "Custom", "category": "Build", "provider": "Bakehouse", "version": "1"}
SOURCE = {"owner": "AWS", "category": "Source", "provider": "S3", "version": "1"}


class Pipelines(Case):
    def setUp(self):
        super().setUp()
        self.pipelines, self.s3 = self.client("codepipeline"), self.client("s3")
        self.role = self.post("seed", pipeline_role="pipeline")["role"]
        self.bucket = f"artifacts-{self.account}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.s3.put_object(Bucket=self.bucket, Key="source.zip", Body=b"the source")

    def type(self, category="Build", **other):
        given = dict(
            category=category,
            provider="Bakehouse",
            version="1",
            configurationProperties=[
                {"name": "Recipe", "required": False, "key": True, "secret": False},
                {"name": "Token", "required": False, "key": False, "secret": True},
            ],
            inputArtifactDetails={"minimumCount": 1, "maximumCount": 5},
            outputArtifactDetails={"minimumCount": 0, "maximumCount": 5},
        )
        return self.pipelines.create_custom_action_type(**{**given, **other})

    def action(self, name, order=1, inputs=("Source",), outputs=(), of=VERSION, **other):
        return {
            "name": name,
            "actionTypeId": of,
            "runOrder": order,
            "inputArtifacts": [{"name": one} for one in inputs],
            "outputArtifacts": [{"name": one} for one in outputs],
            **other,
        }

    def made(self, *stages, name="web", **other):
        """A pipeline with these stages behind its source; the execution that it begins with."""
        source = self.action(
            "Source", inputs=(), outputs=["Source"], of=SOURCE, namespace="From", configuration={"S3Bucket": self.bucket, "S3ObjectKey": "source.zip"}
        )
        declared = {
            "name": name,
            "roleArn": self.role,
            "artifactStore": {"type": "S3", "location": self.bucket},
            "stages": [{"name": "Source", "actions": [source]}]
            + [{"name": f"Stage{number}", "actions": list(actions)} for number, actions in enumerate(stages, 1)],
            **other,
        }
        self.pipelines.create_pipeline(pipeline=declared)
        return self.pipelines.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"][0]["pipelineExecutionId"]

    def poll(self, most=10, of=VERSION):
        return self.pipelines.poll_for_jobs(actionTypeId=of, maxBatchSize=most)["jobs"]

    def taken(self):
        (job,) = self.poll()
        self.assertEqual(self.pipelines.acknowledge_job(jobId=job["id"], nonce=job["nonce"])["status"], "InProgress")
        return job

    def status(self, execution, name="web"):
        said = self.pipelines.get_pipeline_execution(pipelineName=name, pipelineExecutionId=execution)
        return said["pipelineExecution"]["status"]

    def actions(self, execution):
        said = self.pipelines.list_action_executions(pipelineName="web", filter={"pipelineExecutionId": execution})
        return {one["actionName"]: one for one in said["actionExecutionDetails"]}

    def test_a_job_is_polled_acknowledged_and_has_one_result(self):
        self.type()
        execution = self.made([self.action("Bake", outputs=["Image"], namespace="Bake", configuration={"Recipe": "#{From.ObjectKey}", "Token": "hunter2"})])
        (job,) = self.poll()
        data = job["data"]
        self.assertEqual(data["actionConfiguration"]["configuration"], {"Recipe": "source.zip", "Token": "hunter2"})
        self.assertEqual(data["pipelineContext"]["pipelineExecutionId"], execution)
        result = dict(jobId=job["id"], outputVariables={"AMI_ID": "ami-1"}, executionDetails={"summary": "baked", "externalExecutionId": "bake-1", "percentComplete": 100})
        self.refused("InvalidJobStateException", self.pipelines.put_job_success_result, **result)
        self.refused("InvalidNonceException", self.pipelines.acknowledge_job, jobId=job["id"], nonce="7")
        self.assertEqual(self.poll(), [])
        for _ in range(2):
            self.assertEqual(self.pipelines.acknowledge_job(jobId=job["id"], nonce=job["nonce"])["status"], "InProgress")
        # Its credentials read and write its artifacts, and nothing else.
        own = data["artifactCredentials"]
        s3 = self.client(
            "s3", aws_access_key_id=own["accessKeyId"], aws_secret_access_key=own["secretAccessKey"], aws_session_token=own["sessionToken"]
        )
        places = [one["location"]["s3Location"] for one in data["inputArtifacts"] + data["outputArtifacts"]]
        self.assertEqual(s3.get_object(Bucket=places[0]["bucketName"], Key=places[0]["objectKey"])["Body"].read(), b"the source")
        s3.put_object(Bucket=places[1]["bucketName"], Key=places[1]["objectKey"], Body=b"made")
        self.refused("AccessDenied", s3.get_object, Bucket=self.bucket, Key="source.zip")
        self.assertEqual(self.pipelines.get_job_details(jobId=job["id"])["jobDetails"]["id"], job["id"])
        self.pipelines.put_job_success_result(**result)
        self.refused("InvalidJobStateException", self.pipelines.put_job_success_result, **result)
        failure = {"type": "JobFailed", "message": "no"}
        self.refused("InvalidJobStateException", self.pipelines.put_job_failure_result, jobId=job["id"], failureDetails=failure)
        self.assertEqual(self.status(execution), "Succeeded")
        bake = self.actions(execution)["Bake"]
        self.assertEqual(bake["output"]["outputVariables"], {"AMI_ID": "ami-1"})
        self.assertEqual(bake["output"]["executionResult"]["externalExecutionId"], "bake-1")
        self.assertEqual(bake["input"]["resolvedConfiguration"], {"Recipe": "source.zip", "Token": "*****"})
        shown = self.pipelines.get_pipeline(name="web")["pipeline"]["stages"][1]["actions"][0]["configuration"]
        self.assertEqual(shown["Token"], "*****")

    def test_actions_go_by_their_run_order_and_hand_on_artifacts_and_variables(self):
        self.type()
        execution = self.made(
            [self.action("Two", order=2, inputs=["Image"], configuration={"Recipe": "#{Bake.AMI_ID}"}), self.action("One", outputs=["Image"], namespace="Bake")],
            [self.action("Three")],
        )
        job = self.taken()
        self.assertEqual(job["data"]["pipelineContext"]["action"]["name"], "One")
        place = job["data"]["outputArtifacts"][0]["location"]["s3Location"]
        self.s3.put_object(Bucket=place["bucketName"], Key=place["objectKey"], Body=b"made")
        self.pipelines.put_job_success_result(jobId=job["id"], outputVariables={"AMI_ID": "ami-1"})
        job = self.taken()
        self.assertEqual(job["data"]["actionConfiguration"]["configuration"], {"Recipe": "ami-1"})
        self.assertEqual(job["data"]["inputArtifacts"][0]["location"]["s3Location"], place)
        self.pipelines.put_job_success_result(jobId=job["id"])
        self.pipelines.put_job_success_result(jobId=self.taken()["id"])
        self.assertEqual(self.status(execution), "Succeeded")

    def test_a_continuation_is_a_new_job_with_the_same_token(self):
        self.type()
        execution = self.made([self.action("Bake")])
        first = self.taken()
        wrong = dict(jobId=first["id"], continuationToken="token", outputVariables={"A": "b"})
        self.refused("ValidationException", self.pipelines.put_job_success_result, **wrong)
        self.pipelines.put_job_success_result(jobId=first["id"], continuationToken="token", executionDetails={"percentComplete": 40})
        state = self.pipelines.get_pipeline_state(name="web")["stageStates"][1]["actionStates"][0]["latestExecution"]
        self.assertEqual((state["status"], state["percentComplete"]), ("InProgress", 40))
        second = self.taken()
        self.assertNotEqual(second["id"], first["id"])
        self.assertEqual(second["data"]["continuationToken"], "token")
        self.assertEqual(second["data"]["inputArtifacts"], first["data"]["inputArtifacts"])
        failure = {"type": "PermissionError", "message": "not allowed", "externalExecutionId": "bake-1"}
        self.pipelines.put_job_failure_result(jobId=second["id"], failureDetails=failure)
        self.assertEqual(self.status(execution), "Failed")
        error = self.actions(execution)["Bake"]["output"]["executionResult"]["errorDetails"]
        self.assertEqual(error, {"code": "PermissionError", "message": "not allowed"})

    def test_limits_of_a_result_are_held(self):
        self.type()
        self.made([self.action("Bake")])
        job = self.taken()["id"]
        put = self.pipelines.put_job_success_result
        self.refused("OutputVariablesSizeExceededException", put, jobId=job, outputVariables={"A": "x" * 122_880})
        for wrong in (
            {"executionDetails": {"summary": "x" * 2049}},
            {"executionDetails": {"externalExecutionId": "x" * 1501}},
            {"continuationToken": "x" * 2049},
            {"currentRevision": {"revision": "a", "changeIdentifier": "x" * 101}},
        ):
            self.refused("ValidationException", put, jobId=job, **wrong)
        failure = {"type": "JobFailed", "message": "x" * 5001}
        self.refused("ValidationException", self.pipelines.put_job_failure_result, jobId=job, failureDetails=failure)
        put(jobId=job, outputVariables={"A": "x" * 122_879})
        # The oracle sees them too.
        self.expected_findings = 5

    def test_what_takes_too_long_or_is_stopped_takes_no_result(self):
        self.type()
        first = self.made([self.action("Bake")])
        job = self.taken()["id"]
        self.post("tick", seconds=24 * 3600 + 1)
        self.assertEqual(self.status(first), "Failed")
        self.refused("InvalidJobStateException", self.pipelines.put_job_success_result, jobId=job)
        self.assertEqual(self.get("jobs")[0]["state"], "TimedOut")
        stop = self.pipelines.stop_pipeline_execution
        for abandon, after in ((True, "Stopped"), (False, "Stopping")):
            execution = self.pipelines.start_pipeline_execution(name="web")["pipelineExecutionId"]
            job = self.taken()["id"]
            stop(pipelineName="web", pipelineExecutionId=execution, abandon=abandon, reason="enough")
            self.assertEqual(self.status(execution), after)
            if abandon:
                self.refused("InvalidJobStateException", self.pipelines.put_job_success_result, jobId=job)
            else:
                self.refused("DuplicatedStopRequestException", stop, pipelineName="web", pipelineExecutionId=execution)
                self.pipelines.put_job_success_result(jobId=job)
            self.assertEqual(self.status(execution), "Stopped")
            self.refused("PipelineExecutionNotStoppableException", stop, pipelineName="web", pipelineExecutionId=execution)

    def test_executions_wait_for_a_stage_as_their_mode_says(self):
        self.type()
        for mode, middle, jobs in (("QUEUED", "InProgress", 1), ("SUPERSEDED", "Superseded", 1), ("PARALLEL", "InProgress", 3)):
            first = self.made([self.action("Bake")], name=mode, executionMode=mode, pipelineType="V2")
            second, third = [self.pipelines.start_pipeline_execution(name=mode)["pipelineExecutionId"] for _ in range(2)]
            self.assertEqual(self.status(second, mode), middle)
            polled = self.poll()
            self.assertEqual(len(polled), jobs, mode)
            while polled:
                for job in polled:
                    self.pipelines.acknowledge_job(jobId=job["id"], nonce=job["nonce"])
                    self.pipelines.put_job_success_result(jobId=job["id"])
                polled = self.poll()
            for execution in (first, third):
                self.assertEqual(self.status(execution, mode), "Succeeded", mode)

    def test_a_job_that_nobody_acknowledges_is_offered_again(self):
        self.type()
        self.made([self.action("Bake")])
        (first,) = self.poll()
        self.post("tick", seconds=61)
        (again,) = self.poll()
        self.assertEqual(first["id"], again["id"])
        self.refused("InvalidNonceException", self.pipelines.acknowledge_job, jobId=first["id"], nonce=first["nonce"])
        self.pipelines.acknowledge_job(jobId=again["id"], nonce=again["nonce"])

    def test_the_job_of_a_lambda_function_is_told_to_it(self):
        of = {"owner": "AWS", "category": "Invoke", "provider": "Lambda", "version": "1"}
        execution = self.made([self.action("Run", of=of, configuration={"FunctionName": "bake"})])
        (job,) = self.get("jobs")
        self.assertEqual(job["state"], "InProgress")
        self.pipelines.put_job_success_result(jobId=job["id"])
        self.assertEqual(self.status(execution), "Succeeded")

    def test_an_approval_waits_for_a_person_and_is_answered_once(self):
        of = {"owner": "AWS", "category": "Approval", "provider": "Manual", "version": "1"}
        answer = dict(pipelineName="web", stageName="Stage1", actionName="Approve")
        put = self.pipelines.put_approval_result
        for name, status, wanted in (("web", "Approved", "Succeeded"), ("again", "Rejected", "Failed")):
            execution = self.made([self.action("Approve", inputs=(), of=of, configuration={"CustomData": "look at it"})], name=name)
            self.assertEqual(self.status(execution, name), "InProgress")
            stages = self.pipelines.get_pipeline_state(name=name)["stageStates"]
            asked = stages[1]["actionStates"][0]["latestExecution"]
            self.assertEqual(asked["summary"], "look at it")
            given = {**answer, "pipelineName": name, "result": {"summary": "seen", "status": status}}
            wrong = "01234567-89ab-cdef-0123-456789abcdef"
            self.refused("InvalidApprovalTokenException", put, **given, token=wrong)
            self.refused("StageNotFoundException", put, **{**given, "stageName": "none"}, token=asked["token"])
            self.refused("ActionNotFoundException", put, **{**given, "actionName": "none"}, token=asked["token"])
            put(**given, token=asked["token"])
            self.assertEqual(self.status(execution, name), wanted)
            self.refused("ApprovalAlreadyCompletedException", put, **given, token=asked["token"])
        execution = self.made([self.action("Approve", inputs=(), of=of)], name="late")
        self.post("tick", seconds=7 * 24 * 3600 + 1)
        self.assertEqual(self.status(execution, "late"), "Failed")

    def test_what_is_declared_wrong_is_refused(self):
        self.refused("InvalidActionDeclarationException", lambda: self.made([self.action("Bake")]))
        self.type()
        for code, actions in (
            ("InvalidStructureException", [self.action("Bake", inputs=["Nothing"])]),
            ("InvalidStructureException", [self.action("Bake", outputs=["Source"])]),
            ("InvalidActionDeclarationException", [self.action("Bake", configuration={"Other": "x"})]),
            ("InvalidActionDeclarationException", [self.action("Bake", inputs=[])]),
            ("InvalidStageDeclarationException", [self.action("Bake"), self.action("Bake")]),
        ):
            self.refused(code, lambda actions=actions: self.made(actions))
        self.refused("ValidationException", self.type)
        key = dict(category="Build", provider="Bakehouse", version="1")
        self.pipelines.delete_custom_action_type(**key)
        self.refused("ValidationException", self.type)
        self.refused("ActionTypeNotFoundException", self.poll)
        aws = {"owner": "AWS", "category": "Build", "provider": "CodeBuild", "version": "1"}
        self.refused("ValidationException", self.poll, of=aws)
        self.refused("JobNotFoundException", self.pipelines.get_job_details, jobId="01234567-89ab-cdef-0123-456789abcdef")
        types = self.pipelines.list_action_types(actionOwnerFilter="Custom")["actionTypes"]
        self.assertEqual(types, [])


if __name__ == "__main__":
    unittest.main()
