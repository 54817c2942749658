//! Taking a VPC away: who is in it is looked at first, then what goes by itself is waited for, then its parts go.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::VpcError;
use crate::cloud::{
    Cloud, CloudError, ErrorKind, Instance, InstanceId, Interface, PartId, PartKind, PartQuery, VpcPart,
    Wait, retrying, tag, until,
};
use crate::host::stop::Stop;
use crate::ledger::sweep::{Seen, Verdict, Why, decide};
use crate::ledger::vpcs;
use crate::report::Reporter;

/// How often is looked whether the interfaces are gone.
const LOOK: Duration = Duration::from_secs(5);

/// What the work needs.
pub struct Delete<'a> {
    pub name: &'a str,
    /// The run that this VPC was given to, where that is known: what another one goes on with since stays.
    pub run: Option<&'a str>,
    pub now: Timestamp,
    /// How long what is in it may take to go.
    pub within: Duration,
    /// How long the cloud may say that something is in it that is gone.
    pub settles_within: Duration,
    pub cloud: &'a Cloud,
    pub reporter: &'a Reporter,
    pub stop: &'a Stop,
}

/// What came of it. All is empty where there was nothing.
#[derive(Debug, Default)]
pub struct Deleted {
    /// VPCs with all that was in them, and gateways that none of them had.
    pub gone: Vec<PartId>,
    /// What another run goes on with, and which.
    pub kept: Vec<(PartId, String)>,
    /// Why one stays, or why nobody can tell whether one does.
    pub failed: Vec<VpcError>,
}

impl Delete<'_> {
    /// Takes away all that has the name: what fails of one keeps no other. May be done again, whatever came of it before.
    pub async fn run(&self) -> Deleted {
        let mut done = Deleted::default();
        let mut tried: Vec<(PartId, Result<(), VpcError>)> = Vec::new();
        match self.find(PartKind::Vpc).await {
            Ok(vpcs) => {
                for vpc in self.own(vpcs, &mut done.kept) {
                    let result = self.take_away(&vpc.id).await;
                    tried.push((vpc.id, result));
                }
            }
            Err(error) => done.failed.push(error.into()),
        }
        match self.find(PartKind::InternetGateway).await {
            Ok(gateways) => {
                // What a run left that was killed before it attached its gateway. One that was attached went with its VPC.
                let alone = gateways.into_iter().filter(|gateway| gateway.vpc.is_none()).collect();
                for gateway in self.own(alone, &mut done.kept) {
                    let deleted = vpcs::delete_within(&gateway.id, self.settles_within, self.cloud).await;
                    let result = deleted.map_err(refused(&gateway.id));
                    tried.push((gateway.id, result));
                }
            }
            Err(error) => done.failed.push(error.into()),
        }
        for (id, result) in tried {
            match result {
                Ok(()) => done.gone.push(id),
                Err(error) => done.failed.push(error),
            }
        }
        done
    }

    /// Those that no other run goes on with. What has expired is nobody's any more.
    fn own(&self, mut parts: Vec<VpcPart>, kept: &mut Vec<(PartId, String)>) -> Vec<VpcPart> {
        parts.retain(|part| {
            let seen = Seen::new(part.id.clone(), part.tags.clone());
            let lasts = matches!(decide(&seen, self.now), Verdict::Keep(Why::NotYet(_)));
            let other = part.tags.get(&tag("bake")).filter(|run| self.run.is_some_and(|own| own != *run));
            let other = other.filter(|_| lasts);
            kept.extend(other.map(|run| (part.id.clone(), run.clone())));
            other.is_none()
        });
        parts
    }

    /// Takes one VPC away. Whatever fails, what there was may not be whole from then on.
    async fn take_away(&self, vpc: &PartId) -> Result<(), VpcError> {
        let phase = self.reporter.phase(format!("taking {vpc} away"));
        self.empty(vpc).await?;
        match vpcs::delete_within(vpc, self.settles_within, self.cloud).await {
            Err(error) if error.kind == ErrorKind::InUse => {
                let Ok(holders) = self.holders(vpc, &error).await else {
                    return Err(VpcError::Refused { vpc: vpc.clone(), source: error });
                };
                return Err(VpcError::HeldUp { vpc: vpc.clone(), within: self.settles_within, holders });
            }
            other => other.map_err(refused(vpc))?,
        }
        phase.done();
        Ok(())
    }

    /// What would be taken away, or stay as another run's; and who or what is in it and keeps it.
    ///
    /// # Errors
    /// The cloud's.
    pub async fn would(&self) -> Result<(Deleted, Vec<String>), CloudError> {
        let (mut would, mut inside) = (Deleted::default(), Vec::new());
        for vpc in self.own(self.find(PartKind::Vpc).await?, &mut would.kept) {
            let occupants = vpcs::occupants(&vpc.id, self.cloud, self.stop).await?;
            inside.extend(occupants.iter().filter(|one| !one.is_going()).map(|one| match &one.instance {
                Some(instance) if has_expired(instance, self.now) => {
                    format!("the instance {}, which would be ended", named(instance))
                }
                Some(instance) => format!("the instance {}", named(instance)),
                None => holder(&one.interface),
            }));
            let parts = vpcs::parts_in(&vpc.id, self.cloud).await?;
            inside.extend(vpcs::foreign(parts.clone()).map(|part| foreign(&part)));
            would.gone.extend(vpcs::order(parts).into_iter().map(|part| part.id).chain([vpc.id]));
        }
        let mut alone = self.find(PartKind::InternetGateway).await?;
        alone.retain(|gateway| gateway.vpc.is_none());
        would.gone.extend(self.own(alone, &mut would.kept).into_iter().map(|gateway| gateway.id));
        Ok((would, inside))
    }

    async fn find(&self, kind: PartKind) -> Result<Vec<VpcPart>, CloudError> {
        let query = PartQuery { tags: vpcs::tags(self.name), ..PartQuery::default() };
        retrying(self.stop, || self.cloud.vpcs.find(kind, &query)).await
    }

    /// Sees that nobody is in a VPC who stays, and nothing that is somebody's, ends what has expired, and waits until all
    /// interfaces are gone.
    async fn empty(&self, vpc: &PartId) -> Result<(), VpcError> {
        let occupants = vpcs::occupants(vpc, self.cloud, self.stop).await.map_err(refused(vpc))?;
        let live = occupants.iter().filter(|one| !one.is_going()).filter_map(|one| one.instance.as_ref());
        let (expired, stay): (Vec<&Instance>, Vec<&Instance>) =
            live.partition(|instance| has_expired(instance, self.now));
        if !stay.is_empty() {
            let names: BTreeSet<String> = stay.into_iter().map(named).collect();
            let instances = names.into_iter().collect();
            return Err(VpcError::Occupied { vpc: vpc.clone(), instances });
        }
        let parts = vpcs::parts_in(vpc, self.cloud).await.map_err(refused(vpc))?;
        let parts: Vec<String> = vpcs::foreign(parts).map(|part| foreign(&part)).collect();
        if !parts.is_empty() {
            return Err(VpcError::Foreign { vpc: vpc.clone(), parts });
        }
        let expired: BTreeSet<&InstanceId> = expired.into_iter().map(|instance| &instance.id).collect();
        for id in expired {
            self.reporter.note(format!("{id} is a bake's that has expired: it is ended"));
            let ended = retrying(self.stop, || self.cloud.instances.terminate(id)).await;
            ended.map_err(refused(vpc))?;
        }
        let seen: Mutex<Vec<Interface>> = Mutex::default();
        let wait = Wait { what: "network interfaces gone", every: LOOK, within: self.within };
        let gone = until(wait, &self.cloud.place, self.stop, || async {
            let left = self.cloud.vpcs.interfaces(vpc).await?;
            let is_empty = left.is_empty();
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = left;
            Ok(is_empty.then_some(()))
        });
        match gone.await {
            Err(error) if error.operation == "wait" && !self.stop.is_requested() => {
                let left = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
                let holders = left.iter().map(holder).collect();
                Err(VpcError::HeldUp { vpc: vpc.clone(), within: self.within, holders })
            }
            other => other.map_err(refused(vpc)),
        }
    }

    /// What else is in a VPC that the cloud does not delete.
    async fn holders(&self, vpc: &PartId, refused: &CloudError) -> Result<Vec<String>, CloudError> {
        let interfaces = retrying(self.stop, || self.cloud.vpcs.interfaces(vpc)).await?;
        let mut all: Vec<String> = interfaces.iter().map(holder).collect();
        all.extend(vpcs::foreign(vpcs::parts_in(vpc, self.cloud).await?).map(|part| foreign(&part)));
        if all.is_empty() {
            all.push(format!(
                "something that is not looked for here, as an endpoint or a NAT gateway (the console shows it at the VPC): {refused}"
            ));
        }
        Ok(all)
    }
}

/// For `map_err` of all that is done about a VPC that was found: it is there still.
fn refused(vpc: &PartId) -> impl FnOnce(CloudError) -> VpcError + use<> {
    let vpc = vpc.clone();
    |source| VpcError::Refused { vpc, source }
}

/// Whether an instance is Bakehouse's own and has expired: what a sweep would end.
fn has_expired(instance: &Instance, now: Timestamp) -> bool {
    let seen = Seen::new(instance.id.clone(), instance.tags.clone());
    instance.tags.contains_key(&tag("bake")) && decide(&seen, now) == Verdict::Remove
}

/// An instance that stays, with what it is.
fn named(instance: &Instance) -> String {
    let of = |key: &str| instance.tags.get(key).map(String::as_str);
    match (of(&tag("bake")), of(&tag("expires")), of("Name")) {
        (Some(bake), Some(expires), _) => format!("{}, of {bake}, which expires at {expires}", instance.id),
        (_, _, Some(name)) => format!("{}, called {name}", instance.id),
        _ => instance.id.to_string(),
    }
}

/// What is in a VPC and is somebody's.
fn foreign(part: &VpcPart) -> String {
    format!("the {} {}, which is not Bakehouse's", part.id.kind(), part.id)
}

/// What holds a VPC up, and what to do about it.
fn holder(interface: &Interface) -> String {
    let Interface { id, description, kind, instance, in_use, managed } = interface;
    let named = if description.is_empty() { id.clone() } else { format!("{id} ({description})") };
    match instance {
        Some(instance) => format!(
            "the network interface {named} of the instance {instance}: end that (aws ec2 terminate-instances --instance-ids \
             {instance})"
        ),
        None if *managed => {
            format!(
                "the network interface {named}, which AWS made for a {kind}: delete that, and it goes with it"
            )
        }
        None if *in_use => {
            format!("the network interface {named}, which is attached: detach it and delete it")
        }
        None => format!(
            "the network interface {named}, which is attached to nothing: delete it (aws ec2 delete-network-interface \
             --network-interface-id {id})"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{ImageId, InstanceState};

    fn instance(tags: &[(&str, &str)]) -> Instance {
        Instance {
            id: InstanceId::parse("i-01234567").unwrap(),
            image: ImageId::parse("ami-01234567").unwrap(),
            state: InstanceState::Running,
            reason: None,
            ended_by_cloud: false,
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn only_what_is_bakehouses_and_has_expired_is_ended() {
        let now: Timestamp = "2030-01-02T03:04:05Z".parse().unwrap();
        let (past, future) = ("2030-01-02T03:04:05Z", "2030-01-02T03:04:06Z");
        let bake = ("bakehouse:bake", "bake-000000000001");
        assert!(has_expired(&instance(&[bake, ("bakehouse:expires", past)]), now));
        for stays in [
            &[bake, ("bakehouse:expires", future)][..],
            &[("bakehouse:expires", past)],
            &[bake],
            &[bake, ("bakehouse:expires", "soon")],
            &[("Name", "db")],
            &[],
        ] {
            assert!(!has_expired(&instance(stays), now), "{stays:?}");
        }
        assert_eq!(named(&instance(&[("Name", "db")])), "i-01234567, called db");
        assert!(named(&instance(&[bake, ("bakehouse:expires", future)])).contains("expires at 2030"));
    }

    #[test]
    fn what_holds_a_vpc_up_is_told_with_what_to_do() {
        let interface = |instance: Option<&str>, in_use, managed| Interface {
            id: "eni-01234567".to_owned(),
            description: "a word".to_owned(),
            kind: "vpc_endpoint".to_owned(),
            instance: instance.and_then(InstanceId::parse),
            in_use,
            managed,
        };
        for (interface, told) in [
            (interface(Some("i-01234567"), true, false), "terminate-instances --instance-ids i-01234567"),
            (interface(None, true, true), "vpc_endpoint: delete that"),
            (interface(None, true, false), "detach it"),
            (interface(None, false, false), "delete-network-interface --network-interface-id eni-01234567"),
        ] {
            let text = holder(&interface);
            assert!(text.contains("eni-01234567 (a word)") && text.contains(told), "{text}");
        }
    }
}
