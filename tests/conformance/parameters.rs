//! Parameters.

use bakehouse::cloud::{Cloud, ErrorKind, NewParameter};

use super::*;

on_every_cloud!(
    versions_are_counted_and_kept,
    a_parameter_that_exists_is_only_overwritten_when_asked,
    a_label_moves_between_versions,
    labels_that_ssm_refuses_are_refused,
    an_eleventh_label_is_refused,
    the_newest_hundred_versions_are_kept,
    a_labelled_oldest_version_is_never_dropped,
    the_value_of_an_image_parameter_is_an_image,
    names_that_ssm_refuses_are_refused,
    values_that_ssm_refuses_are_refused,
    what_is_not_there_is_not_found,
);

fn text(name: &str, value: &str) -> NewParameter {
    NewParameter {
        name: name.to_owned(),
        value: value.to_owned(),
        data_type: "text".to_owned(),
        overwrite: true,
    }
}

fn new_name() -> String {
    format!("/bakehouse/{}/x86_64/release", unique("web"))
}

async fn versions_are_counted_and_kept(cloud: &Cloud) {
    let name = new_name();
    for version in 1..=3 {
        let put = cloud.parameters.put(&text(&name, &format!("value {version}"))).await.unwrap();
        assert_eq!(put, version);
    }
    let latest = cloud.parameters.get(&name).await.unwrap();
    assert_eq!((latest.value.as_str(), latest.version), ("value 3", 3));
    assert_eq!((latest.name, latest.data_type.as_str()), (name.clone(), "text"));
    let second = cloud.parameters.get(&format!("{name}:2")).await.unwrap();
    assert_eq!((second.value.as_str(), second.version), ("value 2", 2));
    let history = cloud.parameters.history(&name).await.unwrap();
    assert_eq!(history.iter().map(|one| one.version).collect::<Vec<_>>(), [1, 2, 3]);
}

async fn a_parameter_that_exists_is_only_overwritten_when_asked(cloud: &Cloud) {
    let name = new_name();
    let once = NewParameter { overwrite: false, ..text(&name, "a") };
    cloud.parameters.put(&once).await.unwrap();
    let error = refused(cloud.parameters.put(&once).await, ErrorKind::Exists);
    assert_eq!(error.code.as_deref(), Some("ParameterAlreadyExists"));
    assert_eq!(cloud.parameters.get(&name).await.unwrap().version, 1);
}

async fn a_label_moves_between_versions(cloud: &Cloud) {
    let name = new_name();
    for value in ["a", "b"] {
        cloud.parameters.put(&text(&name, value)).await.unwrap();
    }
    for version in [1, 2, 2, 1] {
        cloud.parameters.label(&name, version, "current").await.unwrap();
        let labelled = cloud.parameters.get(&format!("{name}:current")).await.unwrap();
        assert_eq!((labelled.version, labelled.labels), (version, vec!["current".to_owned()]));
        let history = cloud.parameters.history(&name).await.unwrap();
        assert_eq!(history.iter().filter(|one| !one.labels.is_empty()).count(), 1);
    }
}

async fn labels_that_ssm_refuses_are_refused(cloud: &Cloud) {
    let name = new_name();
    cloud.parameters.put(&text(&name, "a")).await.unwrap();
    for label in ["", "1st", "aws-x", "SSMx", "a b", "a/b", "ä", &"x".repeat(101)] {
        refused(cloud.parameters.label(&name, 1, label).await, ErrorKind::Invalid);
    }
    cloud.parameters.label(&name, 1, &"x".repeat(100)).await.unwrap();
}

async fn an_eleventh_label_is_refused(cloud: &Cloud) {
    let name = new_name();
    cloud.parameters.put(&text(&name, "a")).await.unwrap();
    for number in 0..10 {
        cloud.parameters.label(&name, 1, &format!("l{number}")).await.unwrap();
    }
    refused(cloud.parameters.label(&name, 1, "l10").await, ErrorKind::Quota);
    cloud.parameters.label(&name, 1, "l3").await.unwrap();
}

async fn the_newest_hundred_versions_are_kept(cloud: &Cloud) {
    let name = new_name();
    for version in 1..=101 {
        assert_eq!(cloud.parameters.put(&text(&name, "a")).await.unwrap(), version);
    }
    let history = cloud.parameters.history(&name).await.unwrap();
    assert_eq!((history.len(), history[0].version), (100, 2));
    refused(cloud.parameters.get(&format!("{name}:1")).await, ErrorKind::NotFound);
}

async fn a_labelled_oldest_version_is_never_dropped(cloud: &Cloud) {
    let name = new_name();
    for _ in 0..100 {
        cloud.parameters.put(&text(&name, "a")).await.unwrap();
    }
    cloud.parameters.label(&name, 1, "release").await.unwrap();
    let error = refused(cloud.parameters.put(&text(&name, "b")).await, ErrorKind::Quota);
    assert_eq!(error.code.as_deref(), Some("ParameterMaxVersionLimitExceeded"));
    cloud.parameters.label(&name, 100, "release").await.unwrap();
    assert_eq!(cloud.parameters.put(&text(&name, "b")).await.unwrap(), 101);
}

async fn the_value_of_an_image_parameter_is_an_image(cloud: &Cloud) {
    let (_, id) = make_image(cloud, &unique("web")).await;
    let name = new_name();
    let image = |value: &str| NewParameter { data_type: "aws:ec2:image".to_owned(), ..text(&name, value) };
    for value in ["web", "../x"] {
        refused(cloud.parameters.put(&image(value)).await, ErrorKind::Invalid);
    }
    let nobody = cloud.parameters.put(&image("ami-0123456789abcdef0")).await;
    if is_local(cloud) {
        refused(nobody, ErrorKind::Invalid);
    } else {
        // SSM looks for the image after it answered, and stores nothing where there is none.
        nobody.unwrap();
    }
    refused(cloud.parameters.get(&name).await, ErrorKind::NotFound);
    cloud.parameters.put(&image(id.as_str())).await.unwrap();
    let read = cloud.parameters.get(&name).await.unwrap();
    assert_eq!((read.value.as_str(), read.data_type.as_str()), (id.as_str(), "aws:ec2:image"));
    let unknown = NewParameter { data_type: "number".to_owned(), ..text(&name, "1") };
    refused(cloud.parameters.put(&unknown).await, ErrorKind::Invalid);
}

async fn names_that_ssm_refuses_are_refused(cloud: &Cloud) {
    for name in [
        "",
        "/",
        "//a",
        "/a//b",
        "/a/",
        "a/b",
        "/a b",
        "/a:b",
        "/ä",
        "/aws/x",
        "AWSx",
        "/ssm",
        &"/a".repeat(16),
        &format!("/{}", "a".repeat(1011)),
    ] {
        refused(cloud.parameters.put(&text(name, "a")).await, ErrorKind::Invalid);
    }
    let (deep, long) = (unique("deep"), unique("long"));
    for name in [format!("/{deep}{}", "/a".repeat(14)), format!("/{long}{}", "a".repeat(800))] {
        cloud.parameters.put(&text(&name, "a")).await.unwrap();
        assert_eq!(cloud.parameters.get(&name).await.unwrap().name, name);
    }
}

async fn values_that_ssm_refuses_are_refused(cloud: &Cloud) {
    let name = new_name();
    for value in [String::new(), "x".repeat(4097)] {
        refused(cloud.parameters.put(&text(&name, &value)).await, ErrorKind::Invalid);
    }
    cloud.parameters.put(&text(&name, &"x".repeat(4096))).await.unwrap();
}

async fn what_is_not_there_is_not_found(cloud: &Cloud) {
    let name = new_name();
    let error = refused(cloud.parameters.get(&name).await, ErrorKind::NotFound);
    assert_eq!(error.code.as_deref(), Some("ParameterNotFound"));
    refused(cloud.parameters.history(&name).await, ErrorKind::NotFound);
    refused(cloud.parameters.label(&name, 1, "x").await, ErrorKind::NotFound);
    cloud.parameters.put(&text(&name, "a")).await.unwrap();
    for selector in ["2", "nobody", "01", ""] {
        let error = refused(cloud.parameters.get(&format!("{name}:{selector}")).await, ErrorKind::NotFound);
        assert_eq!(error.code.as_deref(), Some("ParameterVersionNotFound"));
    }
    refused(cloud.parameters.label(&name, 2, "x").await, ErrorKind::NotFound);
}
