//! Where region and credentials come from: the environment, a profile, a container, an option; and what is said where there
//! are none.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;

use super::StandIn;
use crate::yard::Said;

/// Names and values of an environment.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// `images` as nobody in no region, but for the stand-in's address and `set`.
fn images(cloud: &StandIn, set: &[(&str, &str)], options: &[&str]) -> Said {
    run(cloud, set, &[&["images"], options].concat())
}

fn run(cloud: &StandIn, set: &[(&str, &str)], args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    command
        .env_clear()
        .env("AWS_ENDPOINT_URL", cloud.endpoint())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .envs(set.iter().copied())
        .args(args);
    command.output().unwrap().into()
}

/// The regions of all calls since the one with number `from`.
#[track_caller]
fn regions(cloud: &StandIn, from: usize) -> Vec<String> {
    of_all(cloud, from, "region")
}

/// The accounts whose keys signed them.
#[track_caller]
fn accounts(cloud: &StandIn, from: usize) -> Vec<String> {
    of_all(cloud, from, "account")
}

#[track_caller]
fn of_all(cloud: &StandIn, from: usize, key: &str) -> Vec<String> {
    let of = cloud.exchanges();
    let mut all: Vec<String> =
        of.iter().skip(from).map(|one| one[key].as_str().unwrap().to_owned()).collect();
    assert!(!all.is_empty(), "nothing was asked");
    all.dedup();
    all
}

#[test]
fn the_option_is_stronger_than_the_environment_and_that_than_the_profile() {
    let cloud = StandIn::start();
    let key = StandIn::access_key(cloud.account());
    let folder = tempfile::tempdir().unwrap();
    let (config, shared) = (folder.path().join("config"), folder.path().join("credentials"));
    std::fs::write(&config, "[profile bakery]\nregion = eu-central-1\n").unwrap();
    std::fs::write(
        &shared,
        format!("[bakery]\naws_access_key_id = {key}\naws_secret_access_key = of-the-stand-in\n"),
    )
    .unwrap();
    let profile = [
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_SHARED_CREDENTIALS_FILE", shared.to_str().unwrap()),
        ("AWS_PROFILE", "bakery"),
    ];
    let with_region = [&profile[..], &[("AWS_REGION", "eu-west-1")]].concat();
    let cases: [(Variables, &[&str], &str); 3] = [
        (&profile, &[], "eu-central-1"),
        (&with_region, &[], "eu-west-1"),
        (&with_region, &["--region", "us-west-2"], "us-west-2"),
    ];
    for (set, options, wanted) in cases {
        let from = cloud.exchanges().len();
        images(&cloud, set, options).ok();
        assert_eq!(regions(&cloud, from), [wanted]);
    }
    // Keys of the environment are stronger than those of a profile, whether it is the default one or is named: the profile's
    // are of another account, which would be the one that answers.
    let other = StandIn::access_key(&cloud.other_account(1));
    for profile in ["default", "bakery"] {
        let text =
            format!("[{profile}]\naws_access_key_id = {other}\naws_secret_access_key = of-the-stand-in\n");
        std::fs::write(&shared, text).unwrap();
        let of_the_profile = [
            ("AWS_SHARED_CREDENTIALS_FILE", shared.to_str().unwrap()),
            ("AWS_PROFILE", profile),
            ("AWS_REGION", "eu-west-1"),
        ];
        let keys = [("AWS_ACCESS_KEY_ID", key.as_str()), ("AWS_SECRET_ACCESS_KEY", "of-the-stand-in")];
        let both = [&of_the_profile[..], &keys].concat();
        for (set, account) in
            [(&of_the_profile[..], cloud.other_account(1)), (&both, cloud.account().to_owned())]
        {
            let from = cloud.exchanges().len();
            images(&cloud, set, &[]).ok();
            assert_eq!(accounts(&cloud, from), [account], "{profile}");
        }
    }
    cloud.finish();
}

/// As CodeBuild and ECS give them.
#[test]
fn a_container_has_its_credentials_from_its_own_endpoint() {
    let cloud = StandIn::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/role", listener.local_addr().unwrap());
    let said = json!({
        "AccessKeyId": StandIn::access_key(cloud.account()), "SecretAccessKey": "of-the-stand-in",
        "Token": "of-a-session", "Expiration": "2999-01-01T00:00:00Z",
    })
    .to_string();
    let (tell, told) = channel();
    // It is asked as often as credentials are needed; the thread ends with the process.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut asked = [0; 4096];
            let length = connection.read(&mut asked).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                said.len()
            );
            connection.write_all((head + &said).as_bytes()).unwrap();
            tell.send(String::from_utf8_lossy(&asked[..length]).to_lowercase()).unwrap();
        }
    });
    let set = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let-me-in"),
        ("AWS_REGION", "eu-west-1"),
    ];
    images(&cloud, &set, &[]).ok();
    let asked = told.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert!(asked.starts_with("get /role ") && asked.contains("authorization: let-me-in"), "{asked}");
    assert_eq!(regions(&cloud, 0), ["eu-west-1"]);
    cloud.finish();
}

#[test]
fn nobody_and_nowhere_are_told_what_to_do_before_anything_is_asked() {
    let cloud = StandIn::start();
    let key = StandIn::access_key(cloud.account());
    let keys = [("AWS_ACCESS_KEY_ID", key.as_str()), ("AWS_SECRET_ACCESS_KEY", "of-the-stand-in")];
    let nowhere = images(&cloud, &keys, &[]).code(2);
    assert!(nowhere.err.contains("no region is set") && nowhere.err.contains("--region"), "{}", nowhere.err);
    let nobody = images(&cloud, &[("AWS_REGION", "eu-west-1")], &[]).code(5);
    assert!(nobody.err.contains("AWS_PROFILE") && nobody.err.contains("aws sso login"), "{}", nobody.err);
    let elsewhere = [&keys[..], &[("AWS_REGION", "eu-west-1")]].concat();
    for (name, args) in [
        ("AWS_ENDPOINT_URL", &["images"][..]),
        ("AWS_ENDPOINT_URL_S3", &["images"]),
        ("AWS_ENDPOINT_URL_ECR", &["ecr", "login"]),
    ] {
        let set = [&elsewhere[..], &[(name, "")]].concat();
        let said = run(&cloud, &set, args).code(2);
        assert!(said.err.contains(&format!("{name} is set and empty")), "{}", said.err);
    }
    assert!(cloud.exchanges().is_empty());
    cloud.finish();
}

/// A proxy to the stand-in: its address, and the first line of each request that it hands on.
fn proxy(cloud: &StandIn) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = channel();
    let endpoint = cloud.endpoint().to_owned();
    // The threads end with the process.
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (tell, endpoint) = (tell.clone(), endpoint.clone());
            // Who gives up in the middle is no matter.
            std::thread::spawn(move || {
                let _ = hand_on(client.unwrap(), &endpoint, |line| tell.send(line).unwrap());
            });
        }
    });
    (address, told)
}

/// Hands one request on, and its answer back.
fn hand_on(client: TcpStream, endpoint: &str, tell: impl Fn(String)) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut server = TcpStream::connect(endpoint.trim_start_matches("http://"))?;
    server.write_all(first.replacen(endpoint, "", 1).as_bytes())?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        server.write_all(line.as_bytes())?;
    }
    server.write_all(b"Connection: close\r\n\r\n")?;
    io::copy(&mut reader.take(length), &mut server)?;
    tell(first);
    io::copy(&mut server, &mut &client).map(drop)
}

#[test]
fn blocks_go_through_the_proxy_that_the_environment_names() {
    let cloud = StandIn::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let content = vec![7; 600_000];
    std::fs::write(path("disk.raw"), &content).unwrap();
    let (address, told) = proxy(&cloud);
    let key = StandIn::access_key(cloud.account());
    let work = path("work");
    let set = [
        ("http_proxy", address.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", "of-the-stand-in"),
        ("BAKEHOUSE_WORK", work.as_str()),
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    let uploaded = run(&cloud, &set, &["snapshot", "upload", &path("disk.raw")]).ok();
    let snapshot = uploaded.out.lines().last().unwrap();
    run(&cloud, &set, &["snapshot", "download", snapshot, &path("back.raw")]).ok();
    assert!(std::fs::read(path("back.raw")).unwrap().starts_with(&content));
    let lines: Vec<String> = told.try_iter().collect();
    for method in ["PUT", "GET"] {
        let block = format!("{method} {}/snapshots/{snapshot}/blocks/1", cloud.endpoint());
        assert!(lines.iter().any(|line| line.starts_with(&block)), "{lines:?}");
    }
    cloud.finish();
}
