//! The bodies of tests/conformance, and which behaviours of docs/what-aws-has-seen.md each of them shows.

use std::panic::AssertUnwindSafe;

use anyhow::bail;
use bakehouse::cloud::Cloud;
use bakehouse::host::stop::Stop;
use futures::{FutureExt as _, StreamExt as _, stream};

use crate::conformance::{Body, bodies};
use crate::findings::Findings;

/// Bodies at once: most of one is waiting for a snapshot to be completed. An account may have 100 pending ones.
const AT_ONCE: usize = 8;

/// Bodies that a real account does not have what it takes for, and why.
const NOT_RUN: [(&str, &str); 15] = [
    (
        "a_listing_is_ascending_over_many_pages",
        "a page of AWS's has 10,000 blocks: 5 GB would have to be put",
    ),
    ("nothing_is_encrypted_unless_the_account_says_so", "the account may say so"),
    ("nothing_is_made_public_by_asking", "a new account blocks it, and an older one may"),
    ("the_default_network_has_room", "the account may have none"),
    ("an_object_is_read_as_it_was_put_last", "a bucket would have to be made"),
    ("an_object_that_is_not_there_is_not_given_and_deleting_it_is_fine", "the same"),
    ("what_is_below_a_prefix_is_listed_and_nothing_beside_it", "the same"),
    ("keys_and_tags_have_any_characters", "the same"),
    (
        "a_volume_is_of_its_snapshot_and_found_by_its_tags",
        "volumes are none of what a run makes and takes away",
    ),
    ("one_token_is_one_volume", "the same"),
    ("a_volume_is_no_smaller_than_its_snapshot_and_in_a_zone_that_there_is", "the same"),
    ("a_snapshot_of_a_volume_has_what_is_on_it", "the same"),
    ("a_volume_that_is_attached_is_in_use_and_so_is_its_name", "the same, and an instance would have to run"),
    (
        "a_vpc_is_made_of_parts_that_are_found_by_their_tags",
        "VPCs are none of what a run makes and takes away",
    ),
    ("a_part_that_something_hangs_on_is_in_use", "the same"),
];

/// A body, and the behaviours that it shows.
#[rustfmt::skip]
const SHOWS: &[(&str, &[&str])] = &[
    ("what_is_put_is_read_back", &["EBS-BLOCK-SIZE", "EBS-LINEAR"]),
    ("a_snapshot_is_pending_until_it_is_completed", &["EBS-COUNT"]),
    ("a_pending_snapshot_cannot_be_read", &["EBS-PENDING-READ"]),
    ("a_completed_snapshot_takes_no_more_blocks", &["EBS-OVERWRITE"]),
    ("completing_again_alike_is_answered_alike", &["EBS-COMPLETE-TWICE"]),
    ("a_put_that_is_not_one_block_of_the_volume_is_refused", &["EBS-BLOCK-SIZE"]),
    ("a_put_with_another_checksum_is_refused", &["EBS-PUT-CHECKSUM"]),
    ("putting_an_index_again_replaces_it", &["EBS-OVERWRITE"]),
    ("completing_with_a_wrong_count_or_checksum_is_refused", &["EBS-COUNT", "EBS-LINEAR"]),
    ("the_same_token_gives_the_same_snapshot", &["EBS-TOKEN"]),
    ("a_child_has_its_parents_blocks_and_its_own", &["EBS-CHILD-LISTS"]),
    ("deleting_a_parent_does_not_hurt_its_child", &["EBS-PARENT"]),
    ("a_child_is_no_smaller_than_its_parent_and_takes_no_key", &["EBS-PARENT", "EBS-CHILD-KEY"]),
    ("a_parent_must_be_there_and_completed", &["EBS-PARENT"]),
    ("a_block_that_was_never_put_is_refused", &["EBS-BLOCK-TOKEN"]),
    ("tokens_are_checked_and_differ_between_listings", &["EBS-BLOCK-TOKEN"]),
    ("snapshots_are_found_by_tag", &["AWS-TAGS"]),
    ("a_pending_snapshot_can_be_deleted", &["EBS-DELETE-PENDING"]),
    ("an_unknown_snapshot_is_not_found", &["AWS-NOT-FOUND"]),
    ("a_deleted_snapshot_is_gone", &["EBS-DELETE-PENDING", "AWS-NOT-FOUND"]),
    ("a_request_beyond_the_limits_is_refused", &["EBS-LIMITS"]),
    ("an_empty_snapshot_can_be_completed", &["EBS-COUNT"]),
    ("every_attribute_is_kept", &["AMI-DEFAULTS", "AMI-UEFI-APART"]),
    ("a_name_is_taken_once", &["AMI-NAME-ONCE"]),
    ("a_snapshot_that_an_image_uses_cannot_be_deleted", &["AMI-SNAPSHOT-KEPT"]),
    ("the_snapshot_must_be_there_completed_and_fit", &["AMI-SNAPSHOT-FITS"]),
    ("an_image_that_was_deregistered_is_gone_and_its_name_free", &["AMI-NAME-ONCE", "AWS-NOT-FOUND"]),
    ("images_are_found_by_owner_name_and_tag", &["AWS-TAGS"]),
    ("the_newest_image_comes_first", &["AMI-CREATED"]),
    ("tags_are_added_and_replaced", &["AWS-TAGS"]),
    ("an_image_without_its_root_is_refused", &["AMI-LIMITS"]),
    ("a_copy_has_all_that_its_source_has_but_the_name_and_tags", &["AMI-COPY-KEEPS"]),
    ("one_token_is_one_copy", &["AMI-COPY-TOKEN"]),
    ("a_copy_takes_no_name_that_exists", &["AMI-COPY-NAME"]),
    ("the_caller_is_of_the_places_account", &["STS-CALLER"]),
    ("a_quota_has_room_for_something", &["AWS-QUOTAS"]),
    ("no_command_reaches_an_instance_that_is_not_there", &["SSM-ONLINE"]),
    ("a_command_that_nobody_sent_is_not_known", &["SSM-INVOCATION-LATE"]),
    ("a_key_that_is_not_there_is_not_found_by_any_name", &["AWS-NOT-FOUND"]),
    ("a_job_that_nobody_made_is_not_found", &["AWS-NOT-FOUND"]),
    ("jobs_of_no_action_type_are_not_asked_for", &["AWS-NOT-FOUND"]),
    ("no_subnet_has_a_tag_that_was_never_set", &["AWS-TAGS"]),
    ("an_unknown_instance_is_not_found", &["AWS-NOT-FOUND"]),
    ("an_unknown_volume_is_not_found", &["AWS-NOT-FOUND"]),
    ("no_volume_has_a_tag_that_was_never_set", &["AWS-TAGS"]),
    ("an_unknown_part_of_a_vpc_is_not_found", &["AWS-NOT-FOUND"]),
    ("no_part_of_a_vpc_has_a_tag_that_was_never_set", &["AWS-TAGS"]),
    ("no_instance_has_a_tag_that_was_never_set", &["AWS-TAGS"]),
    ("versions_are_counted_and_kept", &["SSM-VERSIONS"]),
    ("a_parameter_that_exists_is_only_overwritten_when_asked", &["SSM-LIMITS"]),
    ("a_label_moves_between_versions", &["SSM-LABELS"]),
    ("labels_that_ssm_refuses_are_refused", &["SSM-LABELS"]),
    ("an_eleventh_label_is_refused", &["SSM-LABELS"]),
    ("the_newest_hundred_versions_are_kept", &["SSM-VERSIONS"]),
    ("a_labelled_oldest_version_is_never_dropped", &["SSM-VERSIONS"]),
    ("the_value_of_an_image_parameter_is_an_image", &["SSM-IMAGE-TYPE"]),
    ("names_that_ssm_refuses_are_refused", &["SSM-LIMITS"]),
    ("values_that_ssm_refuses_are_refused", &["SSM-LIMITS"]),
    ("what_is_not_there_is_not_found", &["AWS-NOT-FOUND", "SSM-VERSIONS"]),
];

/// Runs them, until a stop is asked for.
pub async fn run(cloud: &Cloud, stop: &Stop, findings: &mut Findings) -> anyhow::Result<()> {
    let mut jobs: Vec<(Body, &[&'static str])> = Vec::new();
    for body in bodies() {
        match SHOWS.iter().find(|(name, _)| *name == body.name) {
            Some((_, ids)) => jobs.push((body, ids)),
            None if NOT_RUN.iter().any(|(name, _)| *name == body.name) => {}
            None => bail!("live/bodies.rs does not say what {} shows", body.name),
        }
    }
    let done = stream::iter(jobs).map(|(body, ids)| async move {
        let body_ends = AssertUnwindSafe((body.run)(cloud)).catch_unwind();
        tokio::select! {
            ended = body_ends => Some((body.name, ids, ended)),
            () = stop.requested() => None,
        }
    });
    let mut done = done.buffer_unordered(AT_ONCE);
    while let Some(one) = done.next().await {
        let Some((name, ids, ended)) = one else { continue };
        let words = name.replace('_', " ");
        match ended {
            Ok(()) => ids.iter().for_each(|id| findings.add(id, true, &words)),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().map(String::as_str);
                let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
                eprintln!("not as expected: {words}");
                ids.iter().for_each(|id| findings.add(id, false, &format!("{words}: {why}")));
            }
        }
    }
    Ok(())
}
