"""CodeBuild's test reports: the cases of the files that a build names, in the report group of its project.

Assumptions:
- A report group is called PROJECT-NAME, and made by the first build that has a report of it.
- A case's name is its `name`, its prefix the `classname`, its message that of the failure. A message that is longer than the
  limit is a finding: what CodeBuild does then is not documented.
- A file that is no JUnit XML fails the report, and a report without a case is INCOMPLETE."""

import uuid
import xml.etree.ElementTree as ElementTree

from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult

from .errors import Refused

# Characters of a case's message; cases of a report.
LONGEST_MESSAGE, MOST_CASES = 5000, 500
# Every report by its ARN.
_reports = {}


def take(build, name, texts):
    """The report of a build's files."""
    group = f"{build.project['name']}-{name}"
    arn = f"arn:aws:codebuild:{build.region}:{build.account}:report/{group}:{uuid.uuid4()}"
    cases, wrong = [], False
    for text in texts:
        try:
            for case in ElementTree.fromstring(text).iter("testcase"):
                cases.append(_case(build, arn, case))
        except ElementTree.ParseError as error:
            wrong = True
            build.tenant.find(f"codebuild: a report of {build.id} is no XML: {error}")
    if len(cases) > MOST_CASES:
        build.tenant.find(f"codebuild: a report of {build.id} has {len(cases)} cases")
    failed = any(case["status"] in ("FAILED", "ERROR") for case in cases)
    status = "FAILED" if failed or wrong else "SUCCEEDED" if cases else "INCOMPLETE"
    report = {
        "arn": arn,
        "type": "TEST",
        "name": group,
        "reportGroupArn": f"arn:aws:codebuild:{build.region}:{build.account}:report-group/{group}",
        "executionId": build.arn,
        "status": status,
        "created": build.tenant.now(),
        "testSummary": {"total": len(cases), "statusCounts": {}, "durationInNanoSeconds": sum(c["durationInNanoSeconds"] for c in cases)},
        "cases": cases,
        "account": build.account,
    }
    counts = report["testSummary"]["statusCounts"]
    for case in cases:
        counts[case["status"]] = counts.get(case["status"], 0) + 1
    _reports[arn] = report
    return report


def _case(build, arn, case):
    status, message = "SUCCEEDED", ""
    for tag, meant in (("failure", "FAILED"), ("error", "ERROR"), ("skipped", "SKIPPED")):
        found = case.find(tag)
        if found is not None:
            status, message = meant, found.get("message") or found.text or ""
    if len(message) > LONGEST_MESSAGE:
        build.tenant.find(f"codebuild: the message of {case.get('name')} has {len(message)} characters")
    return {
        "reportArn": arn,
        "name": case.get("name", ""),
        "prefix": case.get("classname", ""),
        "status": status,
        "durationInNanoSeconds": int(float(case.get("time", 0)) * 1_000_000_000),
        "message": message,
    }


def batch_get_reports(self):
    """BatchGetReports."""
    wanted = self._get_param("reportArns")
    found = [_reports[arn] for arn in wanted if arn in _reports and _reports[arn]["account"] == self.current_account]
    said = [{key: value for key, value in report.items() if key not in ("cases", "account")} for report in found]
    there = {report["arn"] for report in found}
    return ActionResult({"reports": said, "reportsNotFound": [arn for arn in wanted if arn not in there]})


def describe_test_cases(self):
    """DescribeTestCases. Assumption: all on one page."""
    report = _reports.get(self._get_param("reportArn"))
    if report is None or report["account"] != self.current_account:
        raise Refused("ResourceNotFoundException", "The report does not exist")
    wanted = (self._get_param("filter") or {}).get("status")
    return ActionResult({"testCases": [case for case in report["cases"] if wanted in (None, case["status"])]})


def install(moto):
    moto.add(CodeBuildResponse, "batch_get_reports", batch_get_reports)
    moto.add(CodeBuildResponse, "describe_test_cases", describe_test_cases)
