//! The instance metadata service of EC2 for a guest in QEMU: as much of it as cloud-init's Ec2 datasource reads.
//!
//! QEMU starts `PROGRAM metadata FOLDER` for every connection that the guest opens to 169.254.169.254:80 and hands it
//! the connection as standard streams. The guest is not trusted: one bounded request is answered within a bounded time
//! from two files of the instance's folder, and no path of a request ever becomes a path on the host.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::objects;
use crate::cloud::{BUILD_KEY, Image, Place};
use crate::host::clock;

/// Bytes of a request's line and headers: the largest that EC2's clients send is a few hundred.
const LARGEST_HEAD: usize = 8 * 1024;
/// From the connection to the end of the answer. A guest that is slower opens another one.
const LONGEST: Duration = Duration::from_secs(10);
/// Seconds: the longest life of a token (EC2 user guide, `PUT /latest/api/token`).
const LONGEST_TOKEN: u32 = 21_600;
/// What the DHCP server of QEMU's user network gives its first guest (`dhcpstart` in qemu.rs).
const ADDRESS: &str = "169.254.169.15";

const METADATA: &str = "metadata.json";
const USER_DATA: &str = "user-data";
const KEYS: &str = "meta-data/public-keys";

/// What makes one machine differ from another, inside and out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Identity {
    /// `i-…`
    pub instance: String,
    /// Begins with `ec2`, by which cloud-init knows where it is.
    pub uuid: String,
    /// As the serial number of an NVMe volume has it: `vol…`, without the hyphen.
    pub volume: String,
    pub mac: String,
}

impl Identity {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let digits = uuid::Uuid::new_v4().simple().to_string();
        let uuid = uuid::Uuid::new_v4().to_string();
        Self {
            instance: format!("i-{}", &digits[..17]),
            uuid: format!("ec2{}", &uuid[3..]),
            volume: format!("vol{}", &digits[..17]),
            // 52:54:00 is QEMU's own range.
            mac: format!("52:54:00:{}:{}:{}", &digits[20..22], &digits[22..24], &digits[24..26]),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

/// What the service knows: a tree of paths and values, and how it guards them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Metadata {
    /// Below a version: `meta-data/instance-id`. Folders are what lies before a slash.
    tree: BTreeMap<String, String>,
    /// Whether a request without a token is refused (IMDSv2 only).
    tokens_required: bool,
    /// With what tokens are made; hexadecimal.
    secret: String,
}

impl Metadata {
    /// What an instance of `image` is told. Without a place it is told that of the image's owner, in region `local`.
    #[must_use]
    pub fn of(image: &Image, identity: &Identity, place: Option<&Place>) -> Self {
        let account = place.map_or(image.owner.as_str(), |place| place.account.as_str());
        let region = place.map_or("local", |place| place.region.as_str());
        let zone = format!("{region}a");
        let host = format!("ip-{}.{region}.internal", ADDRESS.replace('.', "-"));
        let root = &image.attributes.root_device;
        let Identity { instance, mac, .. } = identity;
        let architecture = image.attributes.architecture.as_str();
        let document = serde_json::json!({
            "accountId": account,
            "architecture": architecture,
            "availabilityZone": zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "marketplaceProductCodes": null,
            "imageId": image.id.as_str(),
            "instanceId": instance,
            "instanceType": "t3.small",
            "kernelId": null,
            "pendingTime": clock::wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "privateIp": ADDRESS,
            "ramdiskId": null,
            "region": region,
            "version": "2017-09-30",
        });
        let interface = format!("meta-data/network/interfaces/macs/{mac}");
        let mut tree = BTreeMap::new();
        let mut set = |path: &str, value: &str| tree.insert(path.to_owned(), value.to_owned());
        set("meta-data/ami-id", image.id.as_str());
        set("meta-data/ami-launch-index", "0");
        set("meta-data/ami-manifest-path", "(unknown)");
        set("meta-data/block-device-mapping/ami", root);
        set("meta-data/block-device-mapping/root", root);
        set("meta-data/hostname", &host);
        set("meta-data/instance-action", "none");
        set("meta-data/instance-id", instance);
        set("meta-data/instance-life-cycle", "on-demand");
        set("meta-data/instance-type", "t3.small");
        set("meta-data/local-hostname", &host);
        set("meta-data/local-ipv4", ADDRESS);
        set("meta-data/mac", mac);
        for (name, value) in [
            ("device-number", "0"),
            ("interface-id", "eni-00000000000000000"),
            ("local-hostname", host.as_str()),
            ("local-ipv4s", ADDRESS),
            ("mac", mac),
            ("owner-id", account),
            ("security-group-ids", "sg-00000000000000000"),
            ("security-groups", "default"),
            ("subnet-id", "subnet-00000000000000000"),
            ("subnet-ipv4-cidr-block", "169.254.169.0/24"),
            ("vpc-id", "vpc-00000000000000000"),
            ("vpc-ipv4-cidr-block", "169.254.169.0/24"),
            ("vpc-ipv4-cidr-blocks", "169.254.169.0/24"),
        ] {
            set(&format!("{interface}/{name}"), value);
        }
        set("meta-data/placement/availability-zone", &zone);
        set("meta-data/placement/region", region);
        set("meta-data/profile", "default-hvm");
        set("meta-data/reservation-id", "r-00000000000000000");
        set("meta-data/security-groups", "default");
        set("meta-data/services/domain", "amazonaws.com");
        set("meta-data/services/partition", "aws");
        set("dynamic/instance-identity/document", &document.to_string());
        Self {
            tree,
            tokens_required: image.attributes.imds_v2,
            secret: uuid::Uuid::new_v4().simple().to_string() + &uuid::Uuid::new_v4().simple().to_string(),
        }
    }

    /// The key by which root is reached, as EC2 gives the key of an instance's key pair.
    pub fn set_key(&mut self, public: &str) {
        self.tree.insert(format!("{KEYS}/0/openssh-key"), public.to_owned());
    }

    /// `EXPIRY.DIGEST`: nothing needs to be kept of the tokens that were given.
    fn token(&self, expires: i64) -> String {
        let mut hash = Sha256::new();
        hash.update(self.secret.as_bytes());
        hash.update(expires.to_string().as_bytes());
        format!("{expires}.{}", hex::encode(hash.finalize()))
    }

    fn knows(&self, token: &str, now: Timestamp) -> bool {
        token
            .split_once('.')
            .and_then(|(expires, _)| expires.parse::<i64>().ok())
            .is_some_and(|expires| now.as_second() < expires && self.token(expires) == token)
    }

    /// A value, or the names in a folder, one a line, folders with a slash.
    fn look(&self, path: &str) -> Option<String> {
        let path = path.trim_matches('/');
        if path == KEYS && self.tree.contains_key(&format!("{KEYS}/0/openssh-key")) {
            // Not a folder's list as others are: number and name.
            return Some(format!("0={BUILD_KEY}"));
        }
        if let Some(value) = self.tree.get(path) {
            return Some(value.clone());
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut names: Vec<&str> = self
            .tree
            .keys()
            .filter_map(|key| key.strip_prefix(prefix.as_str()))
            .map(|rest| rest.find('/').map_or(rest, |slash| &rest[..=slash]))
            .collect();
        names.dedup();
        (!names.is_empty()).then(|| names.join("\n"))
    }
}

/// The command with which QEMU answers a connection.
#[must_use]
pub fn command(program: &Path, folder: &Path) -> Vec<OsString> {
    vec![program.into(), "metadata".into(), folder.into()]
}

/// Puts what [`serve`] answers from into `folder`.
///
/// # Errors
/// Where it cannot be written.
pub fn write(folder: &Path, metadata: &Metadata, user_data: &[u8]) -> io::Result<()> {
    std::fs::write(folder.join(METADATA), serde_json::to_vec_pretty(metadata)?)?;
    std::fs::write(folder.join(USER_DATA), user_data)
}

/// Answers the one connection that standard input and output are.
///
/// # Errors
/// Where `folder` is not one that [`write()`] filled, or the connection broke.
pub fn serve(folder: &Path) -> io::Result<()> {
    let connection = std::net::TcpStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Bounds each read. A pipe has no such limit: then this refuses, and whoever holds the other end closes it.
    let _ = connection.set_read_timeout(Some(LONGEST));
    let _ = connection.set_write_timeout(Some(LONGEST));
    answer(folder, &connection, &mut io::stdout().lock())
}

/// Reads one request and writes its answer.
///
/// # Errors
/// As [`serve`].
pub fn answer(folder: &Path, mut input: impl Read, output: &mut impl Write) -> io::Result<()> {
    let metadata: Metadata = serde_json::from_slice(&std::fs::read(folder.join(METADATA))?)?;
    let user_data = std::fs::read(folder.join(USER_DATA))?;
    let Some(head) = read_head(&mut input)? else {
        return Ok(());
    };
    if let Some(name) = object_of(&head) {
        return send_object(folder, name, output);
    }
    let response = respond(&metadata, &user_data, &head, clock::wall());
    output.write_all(&response.bytes())?;
    output.flush()
}

/// The name of the object that a request wants, which is no path.
fn object_of(head: &[u8]) -> Option<&str> {
    let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
    let line = std::str::from_utf8(&head[..end]).ok()?.lines().next()?;
    let (prefix, name) = line.strip_prefix("GET /")?.split_once(' ')?.0.split_once('/')?;
    (prefix == objects::LINKS && objects::is_name(name)).then_some(name)
}

/// Sends an object of the instance's place: `FOLDER/../../objects/NAME`, as the store lays them out.
fn send_object(folder: &Path, name: &str, output: &mut impl Write) -> io::Result<()> {
    let path = folder.join("../../objects").join(name);
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            output.write_all(&Response::refusal(404).bytes())?;
            return output.flush();
        }
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    output.write_all(head.as_bytes())?;
    io::copy(&mut file, output)?;
    output.flush()
}

/// A request up to its empty line; cut at [`LARGEST_HEAD`]. `None` where nothing was asked.
fn read_head(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let began = Instant::now();
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while head.len() < LARGEST_HEAD && !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if began.elapsed() > LONGEST {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => head.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((!head.is_empty()).then_some(head))
}

/// An answer of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// Sent with a token only: how long it lives, in seconds.
    token_seconds: Option<u32>,
}

impl Response {
    fn refusal(status: u16) -> Self {
        Self { status, body: format!("{status} {}\n", reason(status)).into_bytes(), token_seconds: None }
    }

    fn bytes(&self) -> Vec<u8> {
        let seconds =
            self.token_seconds.map(|seconds| format!("X-aws-ec2-metadata-token-ttl-seconds: {seconds}\r\n"));
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{}Connection: close\r\nServer: EC2ws\r\n\r\n",
            self.status,
            reason(self.status),
            self.body.len(),
            seconds.unwrap_or_default(),
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Bad Request",
    }
}

/// What the service answers to `head`, the bytes of a request up to its empty line.
#[must_use]
pub fn respond(metadata: &Metadata, user_data: &[u8], head: &[u8], now: Timestamp) -> Response {
    let Some(request) = Request::parse(head) else {
        return Response::refusal(400);
    };
    match request.method {
        "PUT" if request.path.trim_matches('/') == "latest/api/token" => new_token(metadata, &request, now),
        "PUT" => Response::refusal(404),
        "GET" => get(metadata, user_data, &request, now),
        _ => Response::refusal(405),
    }
}

fn new_token(metadata: &Metadata, request: &Request<'_>, now: Timestamp) -> Response {
    // A request that passed a proxy must not get a token (EC2 user guide, "How IMDSv2 works").
    if request.header("x-forwarded-for").is_some() {
        return Response::refusal(403);
    }
    let seconds = request
        .header("x-aws-ec2-metadata-token-ttl-seconds")
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|seconds| (1..=LONGEST_TOKEN).contains(seconds));
    match seconds {
        None => Response::refusal(400),
        Some(seconds) => Response {
            status: 200,
            body: metadata.token(now.as_second() + i64::from(seconds)).into_bytes(),
            token_seconds: Some(seconds),
        },
    }
}

fn get(metadata: &Metadata, user_data: &[u8], request: &Request<'_>, now: Timestamp) -> Response {
    let allowed = match request.header("x-aws-ec2-metadata-token") {
        Some(token) => metadata.knows(token, now),
        None => !metadata.tokens_required,
    };
    if !allowed {
        return Response::refusal(401);
    }
    let path = request.path.trim_start_matches('/');
    let (version, rest) = path.split_once('/').unwrap_or((path, ""));
    if !is_version(version) {
        return Response::refusal(404);
    }
    let body = match rest.trim_matches('/') {
        "user-data" => (!user_data.is_empty()).then(|| user_data.to_owned()),
        "" => metadata.look("").map(|mut names| {
            if !user_data.is_empty() {
                names.push_str("\nuser-data");
            }
            names.into_bytes()
        }),
        rest => metadata.look(rest).map(String::into_bytes),
    };
    match body {
        None => Response::refusal(404),
        Some(body) => Response { status: 200, body, token_seconds: None },
    }
}

/// `latest`, `1.0` or a date. The tree is the same for all.
fn is_version(text: &str) -> bool {
    let date = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    text == "latest" || text == "1.0" || date
}

struct Request<'a> {
    method: &'a str,
    /// Without what follows a question mark.
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Request<'a> {
    fn parse(head: &'a [u8]) -> Option<Self> {
        let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&head[..end]).ok()?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, path, protocol) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !protocol.starts_with("HTTP/1.") || !path.starts_with('/') {
            return None;
        }
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name, value.trim()))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { method, path: path.split('?').next().unwrap_or(path), headers })
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}
