//! What is looked at before anything is created, and what to do where it would not go well. Reads only; everything is
//! looked at, so that all is told at once.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BasePlan, EncryptionFacts, MethodKind, Plan};
use crate::cloud::{
    Cloud, CloudError, ErrorKind, ImageQuery, Key, Partition, Quota, SnapshotQuery, SnapshotState, retrying,
};
use crate::host::stop::Stop;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Good,
    /// A bake goes on, and its user should know.
    Note,
    /// It could not be looked at.
    Unchecked,
    /// A bake would fail.
    Fails,
    /// The same, for want of permission.
    Denied,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// `credentials`.
    pub what: String,
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub text: String,
}

impl Finding {
    fn new(what: impl Into<String>, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, text: text.into() }
    }

    /// Whether a bake must not begin.
    #[must_use]
    pub fn stops(&self) -> bool {
        matches!(self.verdict, Verdict::Fails | Verdict::Denied)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.verdict {
            Verdict::Good => "good",
            Verdict::Note => "note",
            Verdict::Unchecked => "not checked",
            Verdict::Fails | Verdict::Denied => "would fail",
        };
        write!(f, "{}: {how}: {}", self.what, self.text)
    }
}

/// Looks at everything that a plan needs. Of the local cloud, which has neither credentials nor limits, only the name.
pub async fn look(plan: &Plan, encryption: &EncryptionFacts, cloud: &Cloud, stop: &Stop) -> Vec<Finding> {
    let mut findings = vec![name(plan)];
    if cloud.place.partition == Partition::local() {
        return findings;
    }
    findings.push(credentials(cloud, stop).await);
    if plan.method == MethodKind::Chroot {
        findings.push(machine(cloud, stop).await);
    }
    if let BasePlan::Image { id, import: Some(import), .. } = &plan.base {
        let text = match &import.found {
            Some(found) => format!("{id} is here as {found}"),
            None => format!("{id} shares its storage, so it can be copied"),
        };
        findings.push(Finding::new("base", Verdict::Good, text));
    }
    if let Some(key) = &encryption.no_key {
        let text = format!(
            "disk.encrypt: there is no key {key} in {}; name one by alias/NAME, its id or its ARN",
            cloud.place
        );
        findings.push(Finding::new("key", Verdict::Fails, text));
    }
    findings.extend(encryption.key.as_ref().map(key));
    if encryption.by_default.is_none() {
        let text =
            "whether the account encrypts by default may not be read; allow ec2:GetEbsEncryptionByDefault";
        findings.push(Finding::new("default encryption", Verdict::Unchecked, text));
    }
    findings.extend(quotas(plan, cloud, stop).await);
    let images = retrying(stop, || cloud.account.blocks_public_images()).await;
    findings.push(public("images", images, "ec2:GetImageBlockPublicAccessState"));
    let snapshots = retrying(stop, || cloud.account.blocks_public_snapshots()).await;
    findings.push(public("snapshots", snapshots, "ec2:GetSnapshotBlockPublicAccessState"));
    findings
}

fn name(plan: &Plan) -> Finding {
    match plan.check_name() {
        Ok(()) => Finding::new("name", Verdict::Good, format!("{} is free", plan.image_name)),
        Err(error) => Finding::new("name", Verdict::Fails, error.to_string()),
    }
}

async fn credentials(cloud: &Cloud, stop: &Stop) -> Finding {
    const WHAT: &str = "credentials";
    match retrying(stop, || cloud.account.identity()).await {
        Ok(found) if found.account == cloud.place.account => {
            Finding::new(WHAT, Verdict::Good, format!("{} in {}", found.arn, cloud.place.region))
        }
        Ok(found) => Finding::new(
            WHAT,
            Verdict::Denied,
            format!(
                "{} is of the account {}, and the bake is for {}; name a role of that account under `accounts:`",
                found.arn, found.account, cloud.place.account
            ),
        ),
        Err(error) => Finding::new(WHAT, verdict_of(&error), error.to_string()),
    }
}

/// The method chroot works on an instance of the place that it bakes in.
async fn machine(cloud: &Cloud, stop: &Stop) -> Finding {
    const WHAT: &str = "instance";
    match retrying(stop, || cloud.volumes.machine()).await {
        Ok(found) => Finding::new(WHAT, Verdict::Good, format!("{} in {}", found.instance, found.zone)),
        Err(error) => {
            let advice = error.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
            Finding::new(WHAT, verdict_of(&error), format!("method: {}{advice}", error.message))
        }
    }
}

fn verdict_of(error: &CloudError) -> Verdict {
    if error.kind == ErrorKind::Denied { Verdict::Denied } else { Verdict::Fails }
}

fn key(key: &Key) -> Finding {
    const WHAT: &str = "key";
    let Key { arn, state, .. } = key;
    if !key.enabled {
        let text = format!("disk.encrypt: {arn} is {state}; enable it, or name another");
        return Finding::new(WHAT, Verdict::Fails, text);
    }
    if !key.symmetric {
        let text = format!("disk.encrypt: {arn} is not symmetric, as EBS needs it; name another");
        return Finding::new(WHAT, Verdict::Fails, text);
    }
    if key.aws_managed {
        let text = format!(
            "{arn} is AWS's own, so the image can never be shared with another account; name a key of yours for that"
        );
        return Finding::new(WHAT, Verdict::Note, text);
    }
    Finding::new(WHAT, Verdict::Good, format!("{arn} is enabled and can be shared"))
}

fn public(what: &str, blocked: Result<bool, CloudError>, action: &str) -> Finding {
    let of = format!("public {what}");
    match blocked {
        Ok(true) => Finding::new(of, Verdict::Good, format!("the account lets no {what} be made public")),
        Ok(false) => {
            let text = format!("the account lets {what} be made public; a bake makes none public");
            Finding::new(of, Verdict::Good, text)
        }
        Err(error) => Finding::new(of, Verdict::Unchecked, format!("{}; allow {action}", error.message)),
    }
}

/// How many of each the bake makes, against how many there may be. What there is, is only counted where a limit is known.
async fn quotas(plan: &Plan, cloud: &Cloud, stop: &Stop) -> Vec<Finding> {
    let makes_import =
        matches!(&plan.base, BasePlan::Image { import: Some(import), .. } if import.found.is_none());
    let mut limits = Vec::new();
    let mut findings = Vec::new();
    for quota in Quota::ALL {
        let unchecked = |why: String| {
            let text = format!("{why}; allow servicequotas:ListServiceQuotas to have it compared");
            Finding::new(format!("quota of {}", quota.as_str()), Verdict::Unchecked, text)
        };
        match retrying(stop, || cloud.account.quota(quota)).await {
            Ok(Some(limit)) => limits.push((quota, limit)),
            Ok(None) => findings.push(unchecked("Service Quotas does not list it".to_owned())),
            Err(error) => findings.push(unchecked(error.message)),
        }
    }
    let (images, snapshots) = (ImageQuery::default(), SnapshotQuery::default());
    let wants = |wanted: &[Quota]| limits.iter().any(|(quota, _)| wanted.contains(quota));
    let images = if wants(&[Quota::Images]) {
        retrying(stop, || cloud.images.find(&images)).await.map(|all| all.len())
    } else {
        Ok(0)
    };
    let snapshots = if wants(&[Quota::Snapshots, Quota::PendingSnapshots]) {
        retrying(stop, || cloud.snapshots.describe(&snapshots)).await
    } else {
        Ok(Vec::new())
    };
    for (quota, limit) in limits {
        let pending = |all: &Vec<crate::cloud::Snapshot>| {
            all.iter().filter(|one| one.state == SnapshotState::Pending).count()
        };
        let used = match quota {
            Quota::Images => images.as_ref().map(|count| *count),
            Quota::Snapshots => snapshots.as_ref().map(Vec::len),
            Quota::PendingSnapshots => snapshots.as_ref().map(pending),
        };
        let more = if quota != Quota::PendingSnapshots && makes_import { 2 } else { 1 };
        findings.push(match used {
            Ok(used) => {
                let mut finding = of_quota(quota, used as u64, more, limit);
                // Those of CreateSnapshot and of other services are counted too, and do not count for this quota.
                if quota == Quota::PendingSnapshots && used > 0 && finding.verdict == Verdict::Fails {
                    finding.verdict = Verdict::Note;
                }
                finding
            }
            Err(error) => Finding::new(
                format!("quota of {}", quota.as_str()),
                Verdict::Unchecked,
                format!("they cannot be counted: {}", error.message),
            ),
        });
    }
    findings
}

fn of_quota(quota: Quota, used: u64, more: u64, limit: u64) -> Finding {
    let what = format!("quota of {}", quota.as_str());
    if used + more <= limit {
        return Finding::new(what, Verdict::Good, format!("{used} of {limit} are used"));
    }
    let text = format!(
        "{used} of {limit} are used, and the bake makes {more}; delete some (`bakehouse sweep`, `bakehouse images delete`), \
         or have it raised in Service Quotas"
    );
    Finding::new(what, Verdict::Fails, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_used_stops_a_bake_and_one_that_cannot_be_shared_is_told() {
        let good = Key {
            arn: "arn:aws:kms:eu-west-1:123456789012:key/a".to_owned(),
            enabled: true,
            state: "Enabled".to_owned(),
            symmetric: true,
            aws_managed: false,
        };
        assert_eq!(key(&good).verdict, Verdict::Good);
        let ended = Key { enabled: false, state: "PendingDeletion".to_owned(), ..good.clone() };
        assert!(key(&ended).stops() && key(&ended).text.contains("PendingDeletion"));
        assert!(key(&Key { symmetric: false, ..good.clone() }).stops());
        let own = key(&Key { aws_managed: true, ..good });
        assert!(own.verdict == Verdict::Note && !own.stops());
    }

    #[test]
    fn a_quota_counts_what_the_bake_makes() {
        assert_eq!(of_quota(Quota::Images, 48, 2, 50).verdict, Verdict::Good);
        assert!(of_quota(Quota::Images, 49, 2, 50).stops());
        assert!(of_quota(Quota::PendingSnapshots, 100, 1, 100).stops());
    }
}
