//! VPCs. The local cloud has none.

use std::collections::BTreeSet;

use bakehouse::cloud::{NewPart, PartChange, PartDetail, PartId, PartKind, PartQuery, VpcPart};

use super::*;

on_every_cloud!(
    no_part_of_a_vpc_has_a_tag_that_was_never_set,
    an_unknown_part_of_a_vpc_is_not_found,
    a_vpc_is_made_of_parts_that_are_found_by_their_tags,
    a_part_that_something_hangs_on_is_in_use,
);

async fn no_part_of_a_vpc_has_a_tag_that_was_never_set(cloud: &Cloud) {
    let key = unique("key");
    for kind in PartKind::ALL {
        let by_key = PartQuery { tag_keys: vec![key.clone()], ..PartQuery::default() };
        assert!(cloud.vpcs.find(kind, &by_key).await.unwrap().is_empty());
        let by_value =
            PartQuery { tags: Tags::from([(key.clone(), "*".to_owned())]), ..PartQuery::default() };
        assert!(cloud.vpcs.find(kind, &by_value).await.unwrap().is_empty());
    }
}

async fn an_unknown_part_of_a_vpc_is_not_found(cloud: &Cloud) {
    for prefix in ["vpc", "igw", "subnet", "rtb", "sg"] {
        let id = PartId::parse(&format!("{prefix}-0123456789abcdef0")).unwrap();
        let query = PartQuery { id: Some(id.clone()), ..PartQuery::default() };
        assert!(cloud.vpcs.find(id.kind(), &query).await.unwrap().is_empty());
        refused(cloud.vpcs.delete(&id).await, ErrorKind::NotFound);
    }
    let vpc = PartId::parse("vpc-0123456789abcdef0").unwrap();
    assert!(cloud.vpcs.interfaces(&vpc).await.unwrap().is_empty());
    let association = "rtbassoc-0123456789abcdef0".to_owned();
    refused(cloud.vpcs.change(&PartChange::Disassociate { association }).await, ErrorKind::NotFound);
}

/// One part of each kind, in the order in which they are made.
struct Made {
    tags: Tags,
    vpc: PartId,
    gateway: PartId,
    subnet: PartId,
    table: PartId,
    group: PartId,
}

/// `None` where the cloud makes none, and says so.
async fn made(cloud: &Cloud) -> Option<Made> {
    let tags = Tags::from([(unique("key"), "*".to_owned())]);
    let addresses = "10.97.0.0/24".to_owned();
    let new = NewPart::Vpc { addresses: addresses.clone() };
    if is_local(cloud) {
        refused(cloud.vpcs.create(&new, &tags).await, ErrorKind::Invalid);
        return None;
    }
    let make = async |new: NewPart| {
        let id = cloud.vpcs.create(&new, &tags).await.unwrap();
        assert_eq!(id.kind(), new.kind());
        id
    };
    let vpc = make(new).await;
    let gateway = make(NewPart::InternetGateway).await;
    let subnet = make(NewPart::Subnet { vpc: vpc.clone(), addresses, zone: None }).await;
    let table = make(NewPart::RouteTable { vpc: vpc.clone() }).await;
    let (name, description) = (unique("group"), "made by a test".to_owned());
    let group = make(NewPart::SecurityGroup { vpc: vpc.clone(), name, description }).await;
    Some(Made { tags, vpc, gateway, subnet, table, group })
}

async fn seen(cloud: &Cloud, id: &PartId) -> Option<VpcPart> {
    let query = PartQuery { id: Some(id.clone()), ..PartQuery::default() };
    cloud.vpcs.find(id.kind(), &query).await.unwrap().pop()
}

async fn change(cloud: &Cloud, change: PartChange) {
    cloud.vpcs.change(&change).await.unwrap();
}

async fn a_vpc_is_made_of_parts_that_are_found_by_their_tags(cloud: &Cloud) {
    let Some(Made { tags, vpc, gateway, subnet, table, group }) = made(cloud).await else { return };
    let ids = [&vpc, &gateway, &subnet, &table, &group];
    for (kind, id) in PartKind::ALL.into_iter().zip(ids) {
        let by_tags = PartQuery { tags: tags.clone(), ..PartQuery::default() };
        let found = cloud.vpcs.find(kind, &by_tags).await.unwrap();
        assert_eq!(found.iter().map(|part| &part.id).collect::<Vec<_>>(), [id]);
        assert_eq!((&found[0].tags, found[0].of_vpc), (&tags, false));
    }
    let detail = async |id: &PartId| seen(cloud, id).await.unwrap().detail;
    assert_eq!(detail(&vpc).await, PartDetail::Vpc { addresses: "10.97.0.0/24".to_owned() });
    assert_eq!(detail(&subnet).await, PartDetail::Subnet { public: false });
    let nothing = PartDetail::RouteTable { way_out: None, associations: Vec::new() };
    assert_eq!(detail(&table).await, nothing);
    let everything = PartDetail::SecurityGroup { all: true, ports: BTreeSet::new() };
    assert_eq!(detail(&group).await, everything);
    // What came with the VPC is there too, and is told apart.
    let in_it = PartQuery { vpc: Some(vpc.clone()), ..PartQuery::default() };
    for (kind, own) in [(PartKind::RouteTable, &table), (PartKind::SecurityGroup, &group)] {
        let found = cloud.vpcs.find(kind, &in_it).await.unwrap();
        let own_of: Vec<_> = found.iter().filter(|part| !part.of_vpc).map(|part| &part.id).collect();
        assert_eq!((found.len(), own_of), (2, vec![own]));
    }

    assert_eq!(seen(cloud, &gateway).await.unwrap().vpc, None);
    let attach = PartChange::Attach { gateway: gateway.clone(), vpc: vpc.clone() };
    change(cloud, attach.clone()).await;
    assert_eq!(seen(cloud, &gateway).await.unwrap().vpc.as_ref(), Some(&vpc));
    refused(cloud.vpcs.change(&attach).await, ErrorKind::Exists);
    change(cloud, PartChange::PublicAddresses { subnet: subnet.clone() }).await;
    assert_eq!(detail(&subnet).await, PartDetail::Subnet { public: true });
    let way_out = PartChange::WayOut { table: table.clone(), gateway: gateway.clone() };
    change(cloud, way_out.clone()).await;
    refused(cloud.vpcs.change(&way_out).await, ErrorKind::Exists);
    change(cloud, PartChange::Associate { table: table.clone(), subnet: subnet.clone() }).await;
    let PartDetail::RouteTable { way_out, associations } = detail(&table).await else { panic!("no table") };
    assert_eq!((way_out, &associations[0].subnet), (Some(gateway), &subnet));
    let ports = BTreeSet::from([80, 443]);
    let let_out = PartChange::LetOut { group: group.clone(), ports: ports.clone() };
    change(cloud, let_out.clone()).await;
    refused(cloud.vpcs.change(&let_out).await, ErrorKind::Exists);
    change(cloud, PartChange::HoldBack { group: group.clone() }).await;
    assert_eq!(detail(&group).await, PartDetail::SecurityGroup { all: false, ports });

    let other = Tags::from([(tags.keys().next().unwrap().clone(), "other".to_owned())]);
    cloud.vpcs.tag(&[vpc.clone(), subnet.clone()], &other).await.unwrap();
    assert_eq!(seen(cloud, &vpc).await.unwrap().tags, other);
    assert_eq!(
        (seen(cloud, &subnet).await.unwrap().tags, seen(cloud, &table).await.unwrap().tags),
        (other, tags)
    );
}

async fn a_part_that_something_hangs_on_is_in_use(cloud: &Cloud) {
    let Some(Made { vpc, gateway, subnet, table, group, .. }) = made(cloud).await else { return };
    change(cloud, PartChange::Attach { gateway: gateway.clone(), vpc: vpc.clone() }).await;
    change(cloud, PartChange::Associate { table: table.clone(), subnet: subnet.clone() }).await;
    for id in [&vpc, &gateway, &table] {
        refused(cloud.vpcs.delete(id).await, ErrorKind::InUse);
    }
    let PartDetail::RouteTable { associations, .. } = seen(cloud, &table).await.unwrap().detail else {
        panic!("no table")
    };
    change(cloud, PartChange::Disassociate { association: associations[0].id.clone() }).await;
    let detach = PartChange::Detach { gateway: gateway.clone(), vpc: vpc.clone() };
    change(cloud, detach.clone()).await;
    refused(cloud.vpcs.change(&detach).await, ErrorKind::NotFound);
    for id in [group, table, subnet, gateway, vpc] {
        cloud.vpcs.delete(&id).await.unwrap();
        assert_eq!(seen(cloud, &id).await, None);
        refused(cloud.vpcs.delete(&id).await, ErrorKind::NotFound);
    }
}
