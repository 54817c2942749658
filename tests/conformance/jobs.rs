//! Jobs of pipelines, on a cloud that has any.

use bakehouse::cloud::{ActionCategory, ActionType, Cloud, ErrorKind, JobId, JobSuccess};

use super::*;

on_every_cloud!(a_job_that_nobody_made_is_not_found, jobs_of_no_action_type_are_not_asked_for);

async fn a_job_that_nobody_made_is_not_found(cloud: &Cloud) {
    let Some(jobs) = &cloud.jobs else { return assert_local(cloud) };
    let id = JobId::parse(&uuid::Uuid::new_v4().to_string()).unwrap();
    refused(jobs.details(&id).await, ErrorKind::NotFound);
    refused(jobs.acknowledge(&id, "1").await, ErrorKind::NotFound);
    refused(jobs.succeed(&id, &JobSuccess::default()).await, ErrorKind::NotFound);
}

async fn jobs_of_no_action_type_are_not_asked_for(cloud: &Cloud) {
    let Some(jobs) = &cloud.jobs else { return assert_local(cloud) };
    let provider = unique("nobody").chars().take(35).collect();
    let of = ActionType { category: ActionCategory::Build, provider, version: "1".to_owned() };
    refused(jobs.poll(&of, 1).await, ErrorKind::NotFound);
}

/// A laptop has no pipelines, and every other cloud has.
fn assert_local(cloud: &Cloud) {
    assert_eq!(cloud.place.partition, bakehouse::cloud::Partition::local());
}
