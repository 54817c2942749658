//! Commands, as SSM runs them in instances.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ssm::types::{CommandInvocationStatus, InstanceInformationStringFilter, PingStatus};

use super::place::AwsPlace;
use crate::cloud::{
    CommandId, CommandState, Commands, ErrorKind, Execution, InstanceId, NewCommand, OutputTo, Result,
};

const READY: &str = "DescribeInstanceInformation";
const SEND: &str = "SendCommand";
const POLL: &str = "GetCommandInvocation";
const CANCEL: &str = "CancelCommand";
/// The document that runs a shell script; it is in every region.
const DOCUMENT: &str = "AWS-RunShellScript";
/// The document's step, which names the folder of its output in S3.
const STEP: &str = "0.awsrunShellScript";
/// Seconds within which a command has to reach its instance (SSM API model: 30 to 2,592,000).
const DELIVERY: i32 = 120;
/// Characters that an answer has of each stream (SSM API model).
const OUTPUT: usize = 24_000;
const ERRORS: usize = 8_000;
/// A boot, cloud-init, the agent's installation where the base has none, and its registration.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// Installs the agent where the base has none, from where AWS publishes it (SSM user guide, "Manually installing SSM
/// Agent"), and starts it. What it installed it notes, so that the last of the seal can take it out. Others install packages
/// at the first boot as well (apt-daily, cloud-init): rpm waits for their lock by itself, and for dpkg, which does not and
/// says the same of any failure, it is tried for four minutes, less than READY_WITHIN.
const AGENT: &str = r#"if ! command -v amazon-ssm-agent >/dev/null && ! [ -e /snap/bin/amazon-ssm-agent ]; then
    case "$(uname -m)" in aarch64) machine=arm64 ;; *) machine=amd64 ;; esac
    from=https://s3.amazonaws.com/ec2-downloads-windows/SSMAgent/latest
    if command -v dpkg >/dev/null; then
        package=/run/amazon-ssm-agent.deb
        url=$from/debian_$machine/amazon-ssm-agent.deb
        install() {
            tries=0
            until dpkg -i "$package"; do
                tries=$((tries + 1))
                [ "$tries" -lt 48 ] || return 1
                sleep 5
            done
        }
    else
        package=/run/amazon-ssm-agent.rpm
        url=$from/linux_$machine/amazon-ssm-agent.rpm
        install() { rpm -U "$package"; }
    fi
    if command -v curl >/dev/null; then
        curl -fsSL --retry 5 -o "$package" "$url"
    elif command -v wget >/dev/null; then
        wget -q -O "$package" "$url"
    else
        python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$url" "$package"
    fi
    install && mkdir -p /var/lib/bakehouse && : >/var/lib/bakehouse/ssm-agent-installed
    rm -f "$package"
fi
systemctl enable --now amazon-ssm-agent 2>/dev/null || systemctl start snap.amazon-ssm-agent.amazon-ssm-agent || :
"#;

#[derive(Clone, Debug)]
pub(super) struct AwsCommands(pub(super) AwsPlace);

#[async_trait]
impl Commands for AwsCommands {
    async fn ready(&self, instance: &InstanceId) -> Result<bool> {
        let filter = InstanceInformationStringFilter::builder().key("InstanceIds").values(instance.as_str());
        let filter = filter.build().map_err(|error| self.0.odd(READY, "no filter").with_source(error))?;
        let sent = self.0.ssm.describe_instance_information().filters(filter).send().await;
        let answer = sent.map_err(self.0.failed(READY))?;
        Ok(answer.instance_information_list().iter().any(|one| {
            one.instance_id() == Some(instance.as_str()) && one.ping_status() == Some(&PingStatus::Online)
        }))
    }

    async fn send(&self, instance: &InstanceId, new: &NewCommand) -> Result<CommandId> {
        let seconds = new.within.as_secs().max(1).to_string();
        let mut call = self
            .0
            .ssm
            .send_command()
            .document_name(DOCUMENT)
            .instance_ids(instance.as_str())
            .timeout_seconds(DELIVERY)
            .parameters("commands", vec![new.script.clone()])
            .parameters("executionTimeout", vec![seconds]);
        if let Some(OutputTo { bucket, prefix }) = &new.output {
            call = call.output_s3_bucket_name(bucket).output_s3_key_prefix(prefix);
        }
        let answer = call.send().await.map_err(self.0.failed(SEND))?;
        let id = answer.command().and_then(|command| command.command_id());
        id.map(|id| CommandId(id.to_owned())).ok_or_else(|| self.0.odd(SEND, "no command's id"))
    }

    async fn poll(&self, instance: &InstanceId, id: &CommandId) -> Result<Execution> {
        let call = self.0.ssm.get_command_invocation().command_id(&id.0).instance_id(instance.as_str());
        let answer = call.send().await.map_err(self.0.failed(POLL))?;
        let output = answer.standard_output_content().unwrap_or_default().to_owned();
        let errors = answer.standard_error_content().unwrap_or_default().to_owned();
        // Its documentation says characters; the agent counts bytes (amazon-ssm-agent, `StringPrefix`).
        let cut = output.len() >= OUTPUT || errors.len() >= ERRORS;
        let details = answer.status_details().unwrap_or_default();
        let state = answer
            .status()
            .map_or(CommandState::Pending, |status| state(status, details, answer.response_code()));
        // The address is a console's or a bucket's; what follows the prefix is always the same.
        let url = answer.standard_output_url().unwrap_or_default();
        let object = key_of(url, &id.0, instance.as_str());
        Ok(Execution { state, output, errors, cut, object })
    }

    async fn cancel(&self, instance: &InstanceId, id: &CommandId) -> Result<()> {
        let call = self.0.ssm.cancel_command().command_id(&id.0).instance_ids(instance.as_str());
        match call.send().await.map(drop).map_err(self.0.failed(CANCEL)) {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn agent(&self) -> &'static str {
        AGENT
    }

    fn ready_within(&self) -> Duration {
        READY_WITHIN
    }
}

fn state(status: &CommandInvocationStatus, details: &str, code: i32) -> CommandState {
    match status {
        CommandInvocationStatus::Pending | CommandInvocationStatus::Delayed => CommandState::Pending,
        CommandInvocationStatus::InProgress | CommandInvocationStatus::Cancelling => CommandState::Running,
        CommandInvocationStatus::Success => CommandState::Ended(0),
        CommandInvocationStatus::Cancelled => CommandState::Cancelled,
        // `Delivery Timed Out` and `Execution Timed Out`, with and without spaces.
        CommandInvocationStatus::TimedOut if details.starts_with("Delivery") => CommandState::Undelivered,
        CommandInvocationStatus::TimedOut => CommandState::TimedOut,
        CommandInvocationStatus::Failed
            if ["Undeliverable", "Terminated", "AccessDenied", "DeliveryTimedOut"].contains(&details) =>
        {
            CommandState::Undelivered
        }
        _ => CommandState::Ended(if code == 0 { 1 } else { code }),
    }
}

/// The key of the object that holds a command's output: `PREFIX/COMMAND/INSTANCE/awsrunShellScript/STEP/stdout`.
fn key_of(url: &str, command: &str, instance: &str) -> Option<String> {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    let path = plain.split_once("://").map_or(plain, |(_, rest)| rest);
    let begins = path.find(&format!("/{command}/{instance}/"))?;
    let before = &path[..begins];
    // `s3.REGION.amazonaws.com/BUCKET/PREFIX`: the host and the bucket are no part of the key.
    let prefix = before.splitn(3, '/').nth(2)?;
    Some(format!("{prefix}/{command}/{instance}/awsrunShellScript/{STEP}/stdout"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_end_is_told_from_one_that_never_came() {
        use CommandInvocationStatus as Status;
        assert_eq!(state(&Status::Success, "Success", 0), CommandState::Ended(0));
        assert_eq!(state(&Status::Failed, "Failed", 3), CommandState::Ended(3));
        assert_eq!(state(&Status::Failed, "Failed", 0), CommandState::Ended(1));
        assert_eq!(state(&Status::Failed, "Undeliverable", -1), CommandState::Undelivered);
        assert_eq!(state(&Status::TimedOut, "Delivery Timed Out", -1), CommandState::Undelivered);
        assert_eq!(state(&Status::TimedOut, "ExecutionTimedOut", -1), CommandState::TimedOut);
        assert_eq!(state(&Status::Delayed, "Delayed", -1), CommandState::Pending);
    }

    #[test]
    fn the_object_of_an_output_is_read_from_its_address() {
        let url = "https://s3.eu-west-1.amazonaws.com/bakery/bakehouse/bake-1/c-1/i-1/awsrunShellScript/0.awsrunShellScript/stdout";
        let key = "bakehouse/bake-1/c-1/i-1/awsrunShellScript/0.awsrunShellScript/stdout";
        assert_eq!(key_of(url, "c-1", "i-1").as_deref(), Some(key));
        assert_eq!(key_of("", "c-1", "i-1"), None);
    }
}
