//! The account behind the endpoint: what a bake asks of EC2, STS and Service Quotas besides blocks. One image of another
//! account can be put there as a base; a bake copies it, and what it registers is kept.

use std::fmt::Write;
use std::sync::Mutex;

use anyhow::Context;
use serde_json::json;

use crate::http::{Answer, Body, Request, pairs};

pub const ACCOUNT: &str = "123456789012";
/// Whose the base is.
const OTHER: &str = "210987654321";
/// The quotas that a bake looks at, with their defaults (Service Quotas).
const QUOTAS: [(&str, &str, f64); 3] = [
    ("ec2", "AMIs", 50_000.0),
    ("ebs", "Snapshots per Region", 100_000.0),
    ("ebs", "Pending snapshots per account", 100.0),
];

/// A snapshot, as EC2 shows it.
pub struct Shown {
    pub id: String,
    /// GiB.
    pub size: u64,
    pub completed: bool,
}

/// What EC2 knows of snapshots is the blocks' side's.
pub trait Storage {
    fn all(&self) -> Vec<Shown>;
    fn delete(&self, id: &str);
    /// A snapshot with the blocks of another.
    fn copy(&self, id: &str) -> Option<String>;
}

#[derive(Clone)]
struct Image {
    id: String,
    owner: &'static str,
    name: String,
    snapshot: String,
    size: u64,
    tags: Vec<(String, String)>,
}

#[derive(Default)]
pub struct Account {
    images: Mutex<Vec<Image>>,
}

/// The pairs of a query's body.
struct Asked(Vec<(String, String)>);

impl Asked {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `NAME.1`, `NAME.2` and so on.
    fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|number| self.get(&format!("{name}.{number}"))).collect()
    }

    /// The values of a filter.
    fn filter(&self, name: &str) -> Option<Vec<&str>> {
        let number = (1..)
            .map_while(|number| Some((number, self.get(&format!("Filter.{number}.Name"))?)))
            .find_map(|(number, one)| (one == name).then_some(number))?;
        Some(self.list(&format!("Filter.{number}.Value")))
    }

    /// Those of the image, in a call that makes one.
    fn tags(&self) -> Vec<(String, String)> {
        let specification = (1..)
            .map(|number| format!("TagSpecification.{number}"))
            .take_while(|prefix| self.get(&format!("{prefix}.ResourceType")).is_some())
            .find(|prefix| self.get(&format!("{prefix}.ResourceType")) == Some("image"));
        let Some(prefix) = specification else { return Vec::new() };
        (1..)
            .map_while(|number| {
                let of = |part| self.get(&format!("{prefix}.Tag.{number}.{part}")).map(str::to_owned);
                of("Key").zip(of("Value"))
            })
            .collect()
    }
}

impl Account {
    /// Another account's image of a snapshot, which this one may copy. Gives its id.
    pub fn base(&self, snapshot: &str, size: u64) -> anyhow::Result<String> {
        self.add(OTHER, "base", snapshot, size, Vec::new())
    }

    fn add(
        &self,
        owner: &'static str,
        name: &str,
        snapshot: &str,
        size: u64,
        tags: Vec<(String, String)>,
    ) -> anyhow::Result<String> {
        let mut images = self.images.lock().ok().context("poisoned")?;
        let id = format!("ami-{:017x}", images.len() + 1);
        let (name, snapshot) = (name.to_owned(), snapshot.to_owned());
        images.push(Image { id: id.clone(), owner, name, snapshot, size, tags });
        Ok(id)
    }

    /// The query protocol of EC2 and STS, and the JSON of Service Quotas.
    pub fn answer(&self, request: &Request, storage: &dyn Storage) -> anyhow::Result<Answer> {
        if let Some(target) = request.header("x-amz-target") {
            return quotas(target, request);
        }
        let asked = Asked(pairs(&String::from_utf8_lossy(&request.body)));
        let action = asked.get("Action").unwrap_or_default();
        let inner = match action {
            "GetCallerIdentity" => {
                return Ok(Answer::xml(format!(
                    "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                     <GetCallerIdentityResult><Arn>arn:aws:iam::{ACCOUNT}:user/bench</Arn><UserId>AIDABENCH</UserId>\
                     <Account>{ACCOUNT}</Account></GetCallerIdentityResult>\
                     <ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
                )));
            }
            "DescribeSnapshots" => snapshots(&asked, storage),
            "DeleteSnapshot" => {
                storage.delete(asked.get("SnapshotId").unwrap_or_default());
                "<return>true</return>".to_owned()
            }
            "GetEbsEncryptionByDefault" => {
                "<ebsEncryptionByDefault>false</ebsEncryptionByDefault>".to_owned()
            }
            "GetImageBlockPublicAccessState" => {
                "<imageBlockPublicAccessState>block-new-sharing</imageBlockPublicAccessState>".to_owned()
            }
            "GetSnapshotBlockPublicAccessState" => "<state>block-all-sharing</state>".to_owned(),
            "DescribeImages" => self.images(&asked)?,
            "DescribeImageAttribute" => {
                let id = asked.get("ImageId").unwrap_or_default();
                format!("<imageId>{id}</imageId><uefiData/>")
            }
            "CopyImage" => {
                let source = asked.get("SourceImageId").unwrap_or_default();
                let find = |images: &Vec<Image>| images.iter().find(|one| one.id == source).cloned();
                let from = find(&*self.images.lock().ok().context("poisoned")?);
                let Some((from, copy)) =
                    from.and_then(|from| storage.copy(&from.snapshot).map(|copy| (from, copy)))
                else {
                    return Ok(refused("InvalidAMIID.NotFound", source));
                };
                let name = asked.get("Name").context("CopyImage without a name")?;
                let id = self.add(ACCOUNT, name, &copy, from.size, asked.tags())?;
                format!("<imageId>{id}</imageId>")
            }
            "RegisterImage" => {
                let name = asked.get("Name").context("RegisterImage without a name")?;
                let disk = "BlockDeviceMapping.1.Ebs";
                let snapshot = asked.get(&format!("{disk}.SnapshotId")).context("no snapshot")?;
                let size = asked.get(&format!("{disk}.VolumeSize")).context("no size")?.parse()?;
                let id = self.add(ACCOUNT, name, snapshot, size, asked.tags())?;
                format!("<imageId>{id}</imageId>")
            }
            // Of an import: what its disk turned out to be. The next bake asks for it.
            "CreateTags" => {
                let mut images = self.images.lock().ok().context("poisoned")?;
                let resources = asked.list("ResourceId");
                let tags = (1..).map_while(|number| {
                    let of = |part| asked.get(&format!("Tag.{number}.{part}")).map(str::to_owned);
                    of("Key").zip(of("Value"))
                });
                let tags: Vec<_> = tags.collect();
                for image in images.iter_mut().filter(|image| resources.contains(&image.id.as_str())) {
                    image.tags.extend(tags.iter().cloned());
                }
                "<return>true</return>".to_owned()
            }
            other => return Ok(refused("InvalidAction", other)),
        };
        Ok(Answer::xml(format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>0</requestId>{inner}\
             </{action}Response>"
        )))
    }

    fn images(&self, asked: &Asked) -> anyhow::Result<String> {
        let (ids, owners, names) = (asked.list("ImageId"), asked.list("Owner"), asked.filter("name"));
        let mut items = String::new();
        for image in self.images.lock().ok().context("poisoned")?.iter() {
            let owned = owners
                .iter()
                .any(|owner| *owner == image.owner || (*owner == "self" && image.owner == ACCOUNT));
            if (!ids.is_empty() && !ids.contains(&image.id.as_str()))
                || (!owners.is_empty() && !owned)
                || names.as_ref().is_some_and(|names| !names.contains(&image.name.as_str()))
            {
                continue;
            }
            let Image { id, owner, name, snapshot, size, .. } = image;
            // A tag of another account's image does not show.
            let mut tags = String::new();
            for (key, value) in image.tags.iter().filter(|_| *owner == ACCOUNT) {
                write!(tags, "<item><key>{}</key><value>{}</value></item>", escaped(key), escaped(value))?;
            }
            write!(
                items,
                "<item><imageId>{id}</imageId><imageOwnerId>{owner}</imageOwnerId><name>{}</name>\
                 <imageState>available</imageState><architecture>x86_64</architecture>\
                 <creationDate>2026-01-01T00:00:00.000Z</creationDate><rootDeviceName>/dev/xvda</rootDeviceName>\
                 <rootDeviceType>ebs</rootDeviceType><virtualizationType>hvm</virtualizationType>\
                 <enaSupport>true</enaSupport><platformDetails>Linux/UNIX</platformDetails>\
                 <usageOperation>RunInstances</usageOperation><blockDeviceMapping><item>\
                 <deviceName>/dev/xvda</deviceName><ebs><snapshotId>{snapshot}</snapshotId>\
                 <volumeSize>{size}</volumeSize><volumeType>gp3</volumeType>\
                 <deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>\
                 <tagSet>{tags}</tagSet></item>",
                escaped(name)
            )?;
        }
        Ok(format!("<imagesSet>{items}</imagesSet>"))
    }
}

fn snapshots(asked: &Asked, storage: &dyn Storage) -> String {
    let ids = asked.list("SnapshotId");
    let mut items = String::new();
    for Shown { id, size, completed } in storage.all() {
        if ids.is_empty() || ids.contains(&id.as_str()) {
            let state = if completed { "completed" } else { "pending" };
            items += &format!(
                "<item><snapshotId>{id}</snapshotId><status>{state}</status><ownerId>{ACCOUNT}</ownerId>\
                 <startTime>2026-01-01T00:00:00.000Z</startTime><progress>100%</progress>\
                 <volumeSize>{size}</volumeSize><encrypted>false</encrypted></item>"
            );
        }
    }
    format!("<snapshotSet>{items}</snapshotSet>")
}

fn quotas(target: &str, request: &Request) -> anyhow::Result<Answer> {
    if !target.ends_with(".ListServiceQuotas") {
        return Ok(Answer::error(400, "UnknownOperationException", target));
    }
    let asked: serde_json::Value = serde_json::from_slice(&request.body)?;
    let of_service = QUOTAS.iter().filter(|(service, ..)| asked["ServiceCode"] == *service);
    let quotas: Vec<_> = of_service
        .map(|(service, name, value)| json!({ "ServiceCode": service, "QuotaName": name, "Value": value }))
        .collect();
    Ok(Answer::json(200, &json!({ "Quotas": quotas })))
}

fn refused(code: &str, text: &str) -> Answer {
    let body = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{}</Message></Error></Errors>\
         <RequestID>0</RequestID></Response>",
        escaped(text)
    );
    Answer { status: 400, headers: vec![("Content-Type", "text/xml".to_owned())], body: Body::Text(body) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
