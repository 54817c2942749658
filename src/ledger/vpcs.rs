//! VPCs taken apart, in the order that a cloud wants, with all of Bakehouse's that is in them; and what is in one that
//! holds it.
//!
//! Must never: delete what is in a VPC and is not Bakehouse's, or what came with a VPC and goes with it.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::Intent;
use super::unwind::{LOOK, is_over};
use crate::cloud::{
    Cloud, CloudError, ErrorKind, Instance, Interface, PartChange, PartDetail, PartId, PartKind, PartQuery,
    Tags, VpcPart, retrying, tag,
};
use crate::host::stop::Stop;

/// The tag that every part of a VPC of Bakehouse's own has: its name.
pub const NAME: &str = "vpc";

/// What the ledger and the tags call the stage that makes them. A name anybody may write on what is his: by both together
/// Bakehouse's own parts are found.
pub const STAGE: &str = "vpc";

/// The tags of all parts of this name.
#[must_use]
pub fn tags(name: &str) -> Tags {
    Tags::from([(tag(NAME), name.to_owned()), (tag("stage"), STAGE.to_owned())])
}

/// A network interface in a VPC, and the instance that it is attached to.
#[derive(Clone, Debug)]
pub struct Occupant {
    pub interface: Interface,
    /// `None` also where it is not known any more.
    pub instance: Option<Instance>,
}

impl Occupant {
    /// Whether it goes by itself: its instance ended, or is about to.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| is_over(instance.state))
    }
}

/// All that is in a VPC and has an address there.
///
/// # Errors
/// The cloud's.
pub async fn occupants(vpc: &PartId, cloud: &Cloud, stop: &Stop) -> Result<Vec<Occupant>, CloudError> {
    let interfaces = retrying(stop, || cloud.vpcs.interfaces(vpc)).await?;
    let mut all = Vec::new();
    for interface in interfaces {
        let instance = match &interface.instance {
            Some(id) => match retrying(stop, || cloud.instances.describe(id)).await {
                Err(error) if error.kind == ErrorKind::NotFound => None,
                found => Some(found?),
            },
            None => None,
        };
        all.push(Occupant { interface, instance });
    }
    Ok(all)
}

/// The parts that go before their VPC: what came with the VPC goes with it, and what is not Bakehouse's is somebody's.
///
/// The subnet is the first: of all parts it alone is refused while somebody is in it, whatever group he has. What he needs
/// to be reached is there until then.
#[must_use]
pub fn order(mut parts: Vec<VpcPart>) -> Vec<VpcPart> {
    parts.retain(|part| is_own(part) && part.id.kind() != PartKind::Vpc);
    // Then each before what it hangs on.
    let after = |kind| (kind != PartKind::Subnet, Reverse(kind));
    parts.sort_by_key(|part| (after(part.id.kind()), part.id.clone()));
    parts
}

/// Whether a part was made for a VPC of Bakehouse's own.
#[must_use]
pub fn is_own(part: &VpcPart) -> bool {
    let is_made = part.tags.get(&tag("stage")).is_some_and(|stage| stage == STAGE);
    !part.of_vpc && is_made && part.tags.contains_key(&tag(NAME))
}

/// Of what is in a VPC the parts that are somebody's: they keep it.
pub fn foreign(parts: Vec<VpcPart>) -> impl Iterator<Item = VpcPart> {
    parts.into_iter().filter(|part| !part.of_vpc && !is_own(part))
}

/// All parts that are in a VPC or attached to it, but for itself.
///
/// # Errors
/// The cloud's.
pub async fn parts_in(vpc: &PartId, cloud: &Cloud) -> Result<Vec<VpcPart>, CloudError> {
    let query = PartQuery { vpc: Some(vpc.clone()), ..PartQuery::default() };
    let mut all = Vec::new();
    for kind in PartKind::ALL.into_iter().filter(|kind| *kind != PartKind::Vpc) {
        all.extend(retrying(&Stop::never(), || cloud.vpcs.find(kind, &query)).await?);
    }
    Ok(all)
}

/// One part; `None` where the cloud does not show it.
pub(super) async fn seen(id: &PartId, cloud: &Cloud) -> Result<Option<VpcPart>, CloudError> {
    let query = PartQuery { id: Some(id.clone()), ..PartQuery::default() };
    Ok(retrying(&Stop::never(), || cloud.vpcs.find(id.kind(), &query)).await?.into_iter().next())
}

/// What was found by these tags.
pub(super) async fn tagged(kind: PartKind, tags: Tags, cloud: &Cloud) -> Result<Vec<PartId>, CloudError> {
    let query = PartQuery { tags, ..PartQuery::default() };
    let found = retrying(&Stop::never(), || cloud.vpcs.find(kind, &query)).await?;
    Ok(found.into_iter().map(|part| part.id).collect())
}

/// Whether another run goes on with a part since: it wrote its own name on it.
pub(super) async fn taken_over(
    id: &PartId,
    intent: &Intent,
    cloud: &Cloud,
) -> Result<Option<String>, CloudError> {
    let Some(part) = seen(id, cloud).await? else { return Ok(None) };
    let other = part.tags.get(&tag("bake")).filter(|run| intent.tags.get(&tag("bake")) != Some(*run));
    Ok(other.map(|run| format!("{run} goes on with it")))
}

/// Deletes a part, and a VPC with all of Bakehouse's that is in it.
///
/// # Errors
/// The cloud's. [`InUse`](ErrorKind::InUse) where something else is in it, or is not gone yet.
pub async fn delete(id: &PartId, cloud: &Cloud) -> Result<(), CloudError> {
    if id.kind() == PartKind::Vpc {
        let mut gone: Vec<PartId> = Vec::new();
        for mut part in order(parts_in(id, cloud).await?) {
            if let PartDetail::RouteTable { associations, .. } = &mut part.detail {
                // They went with their subnets.
                associations.retain(|one| !gone.contains(&one.subnet));
            }
            match delete_part(&part, cloud).await {
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => gone.push(part.id),
            }
        }
    } else if let Some(part) = seen(id, cloud).await? {
        return delete_part(&part, cloud).await;
    }
    retrying(&Stop::never(), || cloud.vpcs.delete(id)).await
}

/// A gateway is detached first, and a route table is no subnet's any more.
async fn delete_part(part: &VpcPart, cloud: &Cloud) -> Result<(), CloudError> {
    let mut first = Vec::new();
    match (&part.detail, &part.vpc) {
        (PartDetail::InternetGateway, Some(vpc)) => {
            first.push(PartChange::Detach { gateway: part.id.clone(), vpc: vpc.clone() });
        }
        (PartDetail::RouteTable { associations, .. }, _) => {
            let all = associations.iter().map(|one| one.id.clone());
            first.extend(all.map(|association| PartChange::Disassociate { association }));
        }
        _ => {}
    }
    let never = Stop::never();
    for change in first {
        match retrying(&never, || cloud.vpcs.change(&change)).await {
            // Its answer was lost, or somebody else was faster.
            Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    retrying(&never, || cloud.vpcs.delete(&part.id)).await
}

/// Deletes a VPC as [`delete`] does, and again while something in it is not gone yet, for so long.
///
/// # Errors
/// The cloud's.
pub async fn delete_within(id: &PartId, patience: Duration, cloud: &Cloud) -> Result<(), CloudError> {
    let over = Instant::now() + patience;
    loop {
        match delete(id, cloud).await {
            Err(error) if error.kind == ErrorKind::InUse && Instant::now() < over => {}
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{Association, InstanceId, InstanceState};

    fn part(id: &str, of_vpc: bool, own: bool) -> VpcPart {
        let id = PartId::parse(id).unwrap();
        let detail = match id.kind() {
            PartKind::Vpc => PartDetail::Vpc { addresses: "10.97.0.0/24".to_owned() },
            PartKind::InternetGateway => PartDetail::InternetGateway,
            PartKind::Subnet => PartDetail::Subnet { public: true },
            PartKind::RouteTable => {
                let subnet = PartId::parse("subnet-00000001").unwrap();
                let associations = vec![Association { id: "rtbassoc-1".to_owned(), subnet }];
                PartDetail::RouteTable { way_out: None, associations }
            }
            PartKind::SecurityGroup => PartDetail::SecurityGroup { all: true, ports: [].into() },
        };
        let tags = if own { tags("web") } else { Tags::new() };
        VpcPart { id, vpc: PartId::parse("vpc-00000001"), tags, of_vpc, detail }
    }

    #[test]
    fn the_subnet_goes_first_and_what_is_not_ours_stays() {
        let parts = vec![
            part("vpc-00000001", false, true),
            part("igw-00000001", false, true),
            part("subnet-00000002", false, true),
            part("rtb-00000001", false, true),
            part("sg-00000001", false, true),
            part("subnet-00000001", false, true),
            // The VPC's own, which go with it, and somebody's.
            part("rtb-00000002", true, false),
            part("sg-00000002", true, true),
            part("sg-00000003", false, false),
        ];
        let ids: Vec<String> = order(parts).into_iter().map(|part| part.id.to_string()).collect();
        assert_eq!(
            ids,
            ["subnet-00000001", "subnet-00000002", "sg-00000001", "rtb-00000001", "igw-00000001"]
        );
    }

    /// A team's own VPC may be called what it likes.
    #[test]
    fn a_name_alone_makes_no_part_bakehouses_own() {
        let mut named = part("subnet-00000001", false, true);
        named.tags.remove(&tag("stage"));
        let came_with_it = part("rtb-00000002", true, false);
        let parts = vec![named.clone(), came_with_it, part("sg-00000001", false, true)];
        assert_eq!(foreign(parts.clone()).map(|part| part.id).collect::<Vec<_>>(), [named.id]);
        assert_eq!(order(parts).len(), 1);
    }

    #[test]
    fn only_an_instance_that_ends_goes_by_itself() {
        let occupant = |state: Option<InstanceState>| Occupant {
            interface: Interface {
                id: "eni-1".to_owned(),
                description: String::new(),
                kind: "interface".to_owned(),
                instance: InstanceId::parse("i-01234567"),
                in_use: true,
                managed: false,
            },
            instance: state.map(|state| Instance {
                id: InstanceId::parse("i-01234567").unwrap(),
                image: crate::cloud::ImageId::parse("ami-01234567").unwrap(),
                state,
                reason: None,
                ended_by_cloud: false,
                tags: Tags::new(),
            }),
        };
        use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        for state in [Pending, Running, Stopped, Stopping] {
            assert!(!occupant(Some(state)).is_going(), "{state:?}");
        }
        assert!(occupant(Some(ShuttingDown)).is_going() && occupant(Some(Terminated)).is_going());
        assert!(!occupant(None).is_going());
    }
}
