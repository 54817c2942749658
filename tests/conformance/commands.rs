//! Commands, as far as no instance has to run: what runs is tests/bake/launch.rs's and tests/aws/machines.rs's. Both clouds
//! say the same by the same code; which kind of error it is may differ, since the local cloud knows for certain what SSM may
//! not know yet.

use std::time::Duration;

use bakehouse::cloud::{Cloud, CommandId, ErrorKind, InstanceId, NewCommand};

use super::*;

on_every_cloud!(no_command_reaches_an_instance_that_is_not_there, a_command_that_nobody_sent_is_not_known);

fn nobody() -> InstanceId {
    InstanceId::parse("i-0123456789abcdef0").unwrap()
}

async fn no_command_reaches_an_instance_that_is_not_there(cloud: &Cloud) {
    assert!(!cloud.commands.ready(&nobody()).await.unwrap());
    let new = NewCommand { script: "true".to_owned(), within: Duration::from_secs(60), output: None };
    let error = cloud.commands.send(&nobody(), &new).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("InvalidInstanceId"), "{error}");
    assert!(matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotYet), "{error}");
}

async fn a_command_that_nobody_sent_is_not_known(cloud: &Cloud) {
    let id = CommandId(uuid::Uuid::new_v4().to_string());
    let error = cloud.commands.poll(&nobody(), &id).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("InvocationDoesNotExist"), "{error}");
    assert!(matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotYet), "{error}");
}
