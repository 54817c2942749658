//! What there is of a VPC, and what is missing: pure. A run that was killed leaves any part of it, so each step is decided by
//! what there is alone.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{PORTS, Vpc, Wanted};
use crate::cloud::{Association, NewPart, PartChange, PartDetail, PartId, PartKind, Tags, VpcPart, tag};

/// One call on the way to a VPC that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Create(NewPart),
    Change(PartChange),
}

impl Step {
    /// The operation that does it.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Create(new) => new.operation(),
            Self::Change(change) => change.operation(),
        }
    }
}

/// The parts of one VPC that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    all: Vec<VpcPart>,
    /// Other VPCs of the same name.
    pub others: Vec<PartId>,
}

impl Parts {
    /// Of all that has a name's tag those of one VPC: the first by its id, so that whoever looks finds the same. A gateway
    /// that no VPC has is taken for its own.
    #[must_use]
    pub fn of(mut found: Vec<VpcPart>) -> Self {
        found.retain(|part| !part.of_vpc);
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let vpcs = found.iter().filter(|part| part.id.kind() == PartKind::Vpc).map(|part| part.id.clone());
        let mut vpcs: Vec<PartId> = vpcs.collect();
        let others = if vpcs.is_empty() { Vec::new() } else { vpcs.split_off(1) };
        let vpc = vpcs.pop();
        found.retain(|part| match part.id.kind() {
            PartKind::InternetGateway => part.vpc.is_none() || part.vpc == vpc,
            _ => part.vpc.is_some() && part.vpc == vpc,
        });
        // A gateway that is attached is the VPC's, and a table that is a subnet's, whatever their ids.
        let is_loose = |part: &VpcPart| match &part.detail {
            PartDetail::RouteTable { associations, .. } => associations.is_empty(),
            _ => part.vpc.is_none(),
        };
        found.sort_by_key(|part| (part.id.kind(), is_loose(part)));
        Self { all: found, others }
    }

    /// The first of a kind.
    fn first(&self, kind: PartKind) -> Option<&VpcPart> {
        self.all.iter().find(|part| part.id.kind() == kind)
    }

    /// The ids of what it is made of: of each kind one.
    #[must_use]
    pub fn ids(&self) -> Vec<PartId> {
        PartKind::ALL.into_iter().filter_map(|kind| self.first(kind)).map(|part| part.id.clone()).collect()
    }

    /// The parts that do not have these tags.
    #[must_use]
    pub fn without(&self, tags: &Tags) -> Vec<PartId> {
        let lacks = |part: &&VpcPart| tags.iter().any(|(key, value)| part.tags.get(key) != Some(value));
        let mut lacking: Vec<PartId> = self.all.iter().filter(lacks).map(|part| part.id.clone()).collect();
        lacking.retain(|id| self.ids().contains(id));
        lacking
    }

    /// The latest time at which a part expires, where any says so.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.all.iter().filter_map(|part| part.tags.get(&tag("expires"))?.parse().ok()).max()
    }

    /// The VPC itself.
    #[must_use]
    pub fn vpc(&self) -> Option<&PartId> {
        self.first(PartKind::Vpc).map(|vpc| &vpc.id)
    }

    /// Whether there is anything in the VPC.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.all.iter().any(|part| part.id.kind() != PartKind::Vpc && part.vpc.is_some())
    }

    /// The VPC's addresses.
    #[must_use]
    pub fn addresses(&self) -> Option<&str> {
        match &self.first(PartKind::Vpc)?.detail {
            PartDetail::Vpc { addresses } => Some(addresses),
            _ => None,
        }
    }

    /// What is missing first; `None` where nothing is.
    #[must_use]
    pub fn next(&self, wanted: &Wanted) -> Option<Step> {
        let Some(vpc) = self.first(PartKind::Vpc) else {
            return Some(Step::Create(NewPart::Vpc { addresses: wanted.addresses.clone() }));
        };
        let Some(gateway) = self.first(PartKind::InternetGateway) else {
            return Some(Step::Create(NewPart::InternetGateway));
        };
        let (vpc_id, gateway_id) = (vpc.id.clone(), gateway.id.clone());
        if gateway.vpc.is_none() {
            return Some(Step::Change(PartChange::Attach { gateway: gateway_id, vpc: vpc_id }));
        }
        let Some(subnet) = self.first(PartKind::Subnet) else {
            // All of them are the subnet's, whatever the VPC was made with.
            let addresses = self.addresses().unwrap_or(&wanted.addresses).to_owned();
            let zone = wanted.zone.clone();
            return Some(Step::Create(NewPart::Subnet { vpc: vpc_id, addresses, zone }));
        };
        let subnet_id = subnet.id.clone();
        if subnet.detail == (PartDetail::Subnet { public: false }) {
            return Some(Step::Change(PartChange::PublicAddresses { subnet: subnet_id }));
        }
        let Some(table) = self.first(PartKind::RouteTable) else {
            return Some(Step::Create(NewPart::RouteTable { vpc: vpc_id }));
        };
        if let PartDetail::RouteTable { way_out, associations } = &table.detail {
            let table = table.id.clone();
            if way_out.is_none() {
                return Some(Step::Change(PartChange::WayOut { table, gateway: gateway_id }));
            }
            if !associations.iter().any(|one| one.subnet == subnet_id) {
                return Some(Step::Change(PartChange::Associate { table, subnet: subnet_id }));
            }
        }
        let Some(group) = self.first(PartKind::SecurityGroup) else {
            return Some(Step::Create(NewPart::SecurityGroup {
                vpc: vpc_id,
                name: format!("bakehouse-{}", wanted.name),
                description: "Instances of Bakehouse. Nothing comes in; package sources and AWS are reached."
                    .to_owned(),
            }));
        };
        if let PartDetail::SecurityGroup { all, ports } = &group.detail {
            let missing: BTreeSet<u16> = PORTS.into_iter().filter(|port| !ports.contains(port)).collect();
            let group = group.id.clone();
            // Before the rest is held back: at no moment is nothing let out.
            if !missing.is_empty() {
                return Some(Step::Change(PartChange::LetOut { group, ports: missing }));
            }
            if *all {
                return Some(Step::Change(PartChange::HoldBack { group }));
            }
        }
        None
    }

    /// Every step that is missing, in order.
    #[must_use]
    pub fn steps(&self, wanted: &Wanted) -> Vec<Step> {
        let (mut parts, mut steps) = (self.clone(), Vec::new());
        while let Some(step) = parts.next(wanted) {
            match &step {
                Step::Create(new) => parts.made(new, PartId::unknown(new.kind()), Tags::new()),
                Step::Change(change) => parts.changed(change),
            }
            steps.push(step);
        }
        steps
    }

    /// Takes in what a step that was done made of it.
    pub fn made(&mut self, new: &NewPart, id: PartId, tags: Tags) {
        let (vpc, detail) = match new {
            NewPart::Vpc { addresses } => {
                (Some(id.clone()), PartDetail::Vpc { addresses: addresses.clone() })
            }
            NewPart::InternetGateway => (None, PartDetail::InternetGateway),
            NewPart::Subnet { vpc, .. } => (Some(vpc.clone()), PartDetail::Subnet { public: false }),
            NewPart::RouteTable { vpc } => {
                (Some(vpc.clone()), PartDetail::RouteTable { way_out: None, associations: Vec::new() })
            }
            NewPart::SecurityGroup { vpc, .. } => {
                (Some(vpc.clone()), PartDetail::SecurityGroup { all: true, ports: BTreeSet::new() })
            }
        };
        self.all.push(VpcPart { id, vpc, tags, of_vpc: false, detail });
    }

    /// The same of a change.
    pub fn changed(&mut self, change: &PartChange) {
        let of = match change {
            PartChange::Attach { gateway, .. } | PartChange::Detach { gateway, .. } => gateway,
            PartChange::PublicAddresses { subnet } => subnet,
            PartChange::WayOut { table, .. } | PartChange::Associate { table, .. } => table,
            PartChange::LetOut { group, .. } | PartChange::HoldBack { group } => group,
            // Of an association alone nobody knows whose it was, and no step takes one away.
            PartChange::Disassociate { .. } => return,
        };
        let Some(part) = self.all.iter_mut().find(|part| part.id == *of) else { return };
        match (change, &mut part.detail) {
            (PartChange::Attach { vpc, .. }, _) => part.vpc = Some(vpc.clone()),
            (PartChange::Detach { .. }, _) => part.vpc = None,
            (PartChange::PublicAddresses { .. }, PartDetail::Subnet { public }) => *public = true,
            (PartChange::WayOut { gateway, .. }, PartDetail::RouteTable { way_out, .. }) => {
                *way_out = Some(gateway.clone());
            }
            (PartChange::Associate { subnet, .. }, PartDetail::RouteTable { associations, .. }) => {
                associations.push(Association { id: String::new(), subnet: subnet.clone() });
            }
            (PartChange::LetOut { ports: new, .. }, PartDetail::SecurityGroup { ports, .. }) => {
                ports.extend(new);
            }
            (PartChange::HoldBack { .. }, PartDetail::SecurityGroup { all, .. }) => *all = false,
            _ => {}
        }
    }

    /// The VPC, where it has all its parts.
    #[must_use]
    pub fn whole(&self, is_new: bool, expires: Timestamp) -> Option<Vpc> {
        Some(Vpc {
            vpc: self.first(PartKind::Vpc)?.id.clone(),
            subnet: self.first(PartKind::Subnet)?.id.clone(),
            group: self.first(PartKind::SecurityGroup)?.id.clone(),
            is_new,
            expires,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            name: "web".to_owned(),
            run: "vpc-000000000001".to_owned(),
            addresses: super::super::ADDRESSES.to_owned(),
            zone: None,
            expires: Timestamp::UNIX_EPOCH,
        }
    }

    fn id(text: &str) -> PartId {
        PartId::parse(text).unwrap()
    }

    /// The parts after so many steps, and all steps.
    fn after(steps: usize) -> (Parts, Vec<&'static str>) {
        let (mut parts, mut all, mut stopped) = (Parts::default(), Vec::new(), Parts::default());
        while let Some(step) = parts.next(&wanted()) {
            if all.len() == steps {
                stopped = parts.clone();
            }
            all.push(step.operation());
            assert!(all.len() < 20, "no end: {all:?}");
            match step {
                Step::Create(new) => {
                    let made = match new.kind() {
                        PartKind::Vpc => "vpc-00000001",
                        PartKind::InternetGateway => "igw-00000001",
                        PartKind::Subnet => "subnet-00000001",
                        PartKind::RouteTable => "rtb-00000001",
                        PartKind::SecurityGroup => "sg-00000001",
                    };
                    parts.made(&new, id(made), wanted().tags());
                }
                Step::Change(change) => parts.changed(&change),
            }
        }
        (if steps >= all.len() { parts } else { stopped }, all)
    }

    #[test]
    fn a_vpc_is_made_in_the_order_in_which_its_parts_need_each_other() {
        let (parts, steps) = after(usize::MAX);
        assert_eq!(
            steps,
            [
                "CreateVpc",
                "CreateInternetGateway",
                "AttachInternetGateway",
                "CreateSubnet",
                "ModifySubnetAttribute",
                "CreateRouteTable",
                "CreateRoute",
                "AssociateRouteTable",
                "CreateSecurityGroup",
                "AuthorizeSecurityGroupEgress",
                "RevokeSecurityGroupEgress",
            ]
        );
        let whole = parts.whole(true, wanted().expires).unwrap();
        assert_eq!((whole.vpc.as_str(), whole.subnet.as_str()), ("vpc-00000001", "subnet-00000001"));
        assert_eq!(whole.group.as_str(), "sg-00000001");
        assert!(parts.without(&wanted().tags()).is_empty());
    }

    /// Whatever a killed run left, the next goes on where it was ended, and makes nothing twice.
    #[test]
    fn what_a_killed_run_left_is_gone_on_with() {
        let (_, all) = after(usize::MAX);
        for steps in 0..=all.len() {
            let (left, _) = after(steps);
            let parts = Parts::of(left.all.clone());
            let rest: Vec<&str> = parts.steps(&wanted()).iter().map(Step::operation).collect();
            assert_eq!(rest, all[steps..], "after {steps} steps");
        }
    }

    #[test]
    fn of_two_vpcs_of_one_name_one_is_gone_on_with() {
        let (whole, _) = after(usize::MAX);
        let vpc = |text: &str| VpcPart { id: id(text), vpc: Some(id(text)), ..whole.all[0].clone() };
        let mut found = vec![vpc("vpc-00000002")];
        found.extend(whole.all.clone());
        // A second gateway that no VPC has, with a lower id; and one of the other VPC.
        let gateway = |text: &str, vpc: Option<PartId>| VpcPart { id: id(text), vpc, ..whole.all[1].clone() };
        found.push(gateway("igw-00000000", None));
        found.push(gateway("igw-00000002", Some(id("vpc-00000002"))));
        let parts = Parts::of(found);
        assert_eq!(parts.others, [id("vpc-00000002")]);
        assert_eq!(parts.next(&wanted()), None);
        assert_eq!(parts.ids(), whole.ids());
    }

    /// Of two tables that two runs made at once.
    #[test]
    fn a_table_that_is_the_subnets_is_gone_on_with() {
        let (whole, _) = after(usize::MAX);
        let mut found = whole.all.clone();
        let table = found.iter().find(|part| part.id.kind() == PartKind::RouteTable).unwrap().clone();
        let detail = PartDetail::RouteTable { way_out: None, associations: Vec::new() };
        found.push(VpcPart { id: id("rtb-00000000"), detail, ..table });
        let parts = Parts::of(found);
        assert_eq!((parts.next(&wanted()), parts.ids()), (None, whole.ids()));
        assert!(parts.is_begun() && !after(2).0.is_begun(), "a gateway is in no VPC before it is attached");
    }

    #[test]
    fn what_is_gone_on_with_is_told_by_its_tags() {
        let (parts, _) = after(3);
        let later = Wanted { run: "vpc-000000000002".to_owned(), ..wanted() };
        assert_eq!(parts.without(&later.of_run()), [id("vpc-00000001"), id("igw-00000001")]);
        assert_eq!(parts.expires(), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(Parts::default().expires(), None);
    }

    #[test]
    fn a_subnet_has_the_addresses_of_the_vpc_that_is_there() {
        let (parts, _) = after(3);
        let other = Wanted { addresses: "10.1.0.0/24".to_owned(), ..wanted() };
        let Some(Step::Create(NewPart::Subnet { addresses, .. })) = parts.next(&other) else {
            panic!("no subnet")
        };
        assert_eq!(addresses, super::super::ADDRESSES);
    }
}
