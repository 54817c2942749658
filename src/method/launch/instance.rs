//! The instance that the steps run on: what it is asked for, in which order types and subnets are tried, and its user data.

use std::time::Duration;

use super::{Deadline, LaunchError};
use crate::cloud::{
    BuildInstance, CloudError, ErrorKind, ImageId, Instance, InstanceId, InstanceState, NewInstance,
    Partition, SubnetQuery, Token, Wait, retrying, until,
};
use crate::host::clock;
use crate::ledger::{Intent, Kind, Role};
use crate::method::{BakeCause, Bench};
use crate::plan::Plan;
use crate::recipe::{Launch, SubnetChoice};

/// What it is for, as the ledger calls it.
const WHAT: &str = "build instance";
/// How long it may live where the recipe says nothing.
const WITHIN: Duration = Duration::from_secs(3600);
/// Seconds of life beyond that: sealing (half an hour at most) and the last of it (a quarter), and ten minutes in which its
/// image is begun. Shorter, it would turn itself off under the seal.
const SPARE: u32 = 1800 + 900 + 600;

/// Launches the instance: the first type in the first subnet that has capacity. It gives too by when the steps have to be
/// done.
pub(super) async fn launch(
    plan: &Plan,
    launch: &Launch,
    image: &ImageId,
    bench: &Bench,
) -> Result<(InstanceId, Deadline), BakeCause> {
    let local = bench.cloud.place.partition == Partition::local();
    let within = launch.within.map_or(WITHIN, |span| span.duration());
    let lifetime = u32::try_from(within.as_secs()).unwrap_or(u32::MAX).saturating_add(SPARE);
    let kinds: Vec<Option<String>> = if local || launch.instance_types.is_empty() {
        vec![None]
    } else {
        launch.instance_types.iter().cloned().map(Some).collect()
    };
    let subnets = if local { vec![None] } else { subnets(launch, bench).await? };
    let mut refused: Option<CloudError> = None;
    for kind in &kinds {
        for subnet in &subnets {
            let new = NewInstance {
                image: image.clone(),
                kind: kind.clone(),
                user_data: user_data(bench.cloud.commands.agent(), lifetime),
                boot_mode: None,
                root_size: plan.size,
                lifetime_seconds: lifetime,
                build: Some(BuildInstance {
                    profile: launch.profile.clone().filter(|_| !local),
                    subnet: subnet.clone(),
                    security_groups: launch.security_groups.clone(),
                    spot: launch.spot,
                    root: plan.root_volume,
                    encrypt: plan.encryption.key.clone().filter(|_| !local),
                }),
                tags: plan.temporary_tags(),
            };
            let what = format!(
                "{WHAT} {} {}",
                kind.as_deref().unwrap_or_default(),
                subnet.as_deref().unwrap_or_default()
            );
            let token = Token::of(&plan.bake, &what, 1);
            let intent = Intent {
                kind: Kind::Instance,
                place: bench.cloud.place.clone(),
                what: what.trim().to_owned(),
                token: Some(token.as_str().to_owned()),
                tags: new.tags.clone(),
                role: Role::Temporary,
            };
            let deadline = Deadline::after(within);
            let launched =
                bench.ledger.create(intent, &bench.stop, || bench.cloud.instances.launch(&new, &token)).await;
            let refusal = match launched.map_err(BakeCause::from) {
                Err(BakeCause::Cloud(error)) if error.kind == ErrorKind::Capacity => error,
                Err(other) => return Err(other),
                Ok(id) => match ended_early(&id, bench).await? {
                    None => return Ok((id, deadline)),
                    // It is in the ledger, and gone.
                    Some(error) => error,
                },
            };
            let how = if refusal.kind == ErrorKind::Capacity { "no capacity for" } else { "no instance of" };
            bench.reporter.warning(format!("{how} {}: {refusal}", what.trim()));
            refused = Some(refusal);
        }
    }
    Err(match refused {
        Some(error) => LaunchError::Capacity { source: error }.into(),
        None => LaunchError::NoSubnet.into(),
    })
}

/// Waits until it runs. One that ends before, as where the cloud finds out late that there is no room, gives why: the next
/// type or subnet may do.
async fn ended_early(id: &InstanceId, bench: &Bench) -> Result<Option<CloudError>, BakeCause> {
    const RUNNING: Wait =
        Wait { what: "instance running", every: Duration::from_secs(2), within: Duration::from_secs(300) };
    let (instances, place) = (&bench.cloud.instances, &bench.cloud.place);
    let ended = until(RUNNING, place, &bench.stop, || async {
        let found = match instances.describe(id).await {
            // A part of EC2 does not know it yet.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match found.state {
            InstanceState::Pending => Ok(None),
            InstanceState::Running => Ok(Some(None)),
            _ => Ok(Some(Some(found))),
        }
    });
    Ok(ended.await?.map(|found| {
        let kind = if found.ended_by_cloud { ErrorKind::Capacity } else { ErrorKind::Invalid };
        let reason = found.reason.as_deref().unwrap_or("without a reason");
        CloudError::new(kind, "RunInstances", place, format!("{id} ended before it ran ({reason})"))
    }))
}

/// The subnets to try.
async fn subnets(launch: &Launch, bench: &Bench) -> Result<Vec<Option<String>>, BakeCause> {
    let query = match &launch.subnet {
        Some(SubnetChoice::Id(id)) => return Ok(vec![Some(id.clone())]),
        Some(SubnetChoice::Tags(tags)) => SubnetQuery::Tagged(tags.clone()),
        None => SubnetQuery::Default,
    };
    let mut found = retrying(&bench.stop, || bench.cloud.networks.subnets(&query)).await?;
    // Where there is most room.
    found.sort_by(|a, b| (b.free, &a.id).cmp(&(a.free, &b.id)));
    Ok(found.into_iter().filter(|subnet| subnet.free > 0).map(|subnet| Some(subnet.id)).collect())
}

/// Settings for cloud-init. At its first boot a machine would get users, names, package sources and settings of its ssh
/// server: an image that is made of it must not have them. The script at every boot ends the machine when its time is
/// over, whoever has forgotten it; the one at the first boot lets commands in.
fn user_data(agent: &str, lifetime: u32) -> Vec<u8> {
    let end = clock::wall().as_second() + i64::from(lifetime);
    let timer = format!(
        "left=$(({end} - $(date +%s))); [ \"$left\" -gt 0 ] || left=1; \
         systemd-run --unit=bakehouse-end --on-active=\"$left\" systemctl --force --force poweroff 2>/dev/null || \
         (sleep \"$left\"; poweroff -f) >/dev/null 2>&1 &"
    );
    let settings = serde_json::json!({
        "users": [],
        "disable_root": false,
        "preserve_hostname": true,
        "locale": false,
        "ssh_pwauth": "unchanged",
        "apt": { "preserve_sources_list": true },
        "bootcmd": [["/bin/sh", "-c", timer]],
        "runcmd": if agent.is_empty() { serde_json::json!([]) } else { serde_json::json!([["/bin/sh", "-c", agent]]) },
    });
    format!("#cloud-config\n{settings}\n").into_bytes()
}

/// Waits until commands reach it.
pub(super) async fn ready(id: &InstanceId, deadline: Deadline, bench: &Bench) -> Result<(), BakeCause> {
    let commands = &bench.cloud.commands;
    let (left, most) = (deadline.left()?, commands.ready_within());
    let wait = Wait {
        what: "instance reachable by commands",
        every: Duration::from_secs(5),
        within: most.min(left),
    };
    let reached = until(wait, &bench.cloud.place, &bench.stop, || async {
        still_there(id, bench).await?;
        Ok(commands.ready(id).await?.then_some(()))
    });
    match reached.await {
        Err(source) if source.operation == "wait" && !bench.stop.is_requested() => {
            if left < most {
                return Err(deadline.over().into());
            }
            Err(LaunchError::Unreached { instance: id.to_string(), source }.into())
        }
        other => Ok(other?),
    }
}

/// The instance, which must neither have ended nor be about to.
pub(super) async fn still_there(id: &InstanceId, bench: &Bench) -> Result<Instance, CloudError> {
    let found = match bench.cloud.instances.describe(id).await {
        // A part of EC2 does not know it yet.
        Err(error) if error.kind == ErrorKind::NotFound => {
            return Err(CloudError { kind: ErrorKind::NotYet, ..error });
        }
        other => other?,
    };
    if matches!(found.state, InstanceState::Pending | InstanceState::Running) {
        return Ok(found);
    }
    let reason = found.reason.clone().unwrap_or_else(|| "without a reason".to_owned());
    Err(CloudError::new(
        ErrorKind::Invalid,
        "DescribeInstances",
        &bench.cloud.place,
        format!("{id} ended in the middle ({reason})"),
    ))
}
