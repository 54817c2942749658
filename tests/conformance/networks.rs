//! Networks.

use bakehouse::cloud::{Cloud, SubnetQuery, Tags};

use super::*;

on_every_cloud!(the_default_network_has_room, no_subnet_has_a_tag_that_was_never_set);

async fn the_default_network_has_room(cloud: &Cloud) {
    let subnets = cloud.networks.subnets(&SubnetQuery::Default).await.unwrap();
    assert!(!subnets.is_empty());
    for subnet in &subnets {
        assert!(subnet.id.starts_with("subnet-") && subnet.free > 0, "{subnet:?}");
        assert!(subnet.zone.starts_with(cloud.place.region.as_str()), "{subnet:?}");
    }
    let zones: std::collections::BTreeSet<_> = subnets.iter().map(|subnet| &subnet.zone).collect();
    assert_eq!(zones.len(), subnets.len(), "one in each zone: {subnets:?}");
}

async fn no_subnet_has_a_tag_that_was_never_set(cloud: &Cloud) {
    for value in ["", "*"] {
        let query = SubnetQuery::Tagged(Tags::from([(unique("key"), value.to_owned())]));
        assert!(cloud.networks.subnets(&query).await.unwrap().is_empty());
    }
}
