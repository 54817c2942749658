//! The metadata service: what EC2's clients ask and how a hostile guest might.

use bakehouse::local::metadata::{Identity, Metadata, Response, answer, respond, write};
use jiff::Timestamp;

use crate::stored;

async fn metadata(tokens_required: bool) -> Metadata {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, place) = stored::cloud(dir.path());
    let mut image = stored::image(&cloud, [0_u8; 512].as_slice(), 1, None).await;
    image.attributes.imds_v2 = tokens_required;
    Metadata::of(&image, &Identity::new(), Some(&place))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn ask(metadata: &Metadata, request: &str) -> Response {
    respond(metadata, b"\x1f\x8buser", request.as_bytes(), at(0))
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

fn token(metadata: &Metadata) -> String {
    let head =
        "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
    let response = ask(metadata, head);
    assert_eq!(response.status, 200);
    text(&response).to_owned()
}

#[tokio::test]
async fn a_token_opens_the_tree_until_it_is_old() {
    let metadata = metadata(true).await;
    let token = token(&metadata);
    let get = |path: &str, token: &str, second: i64| {
        let head = format!("GET {path} HTTP/1.1\r\nx-AWS-ec2-metadata-TOKEN: {token}\r\n\r\n");
        respond(&metadata, b"\x1f\x8buser", head.as_bytes(), at(second))
    };
    let path = "/latest/meta-data/instance-id";
    assert!(text(&get(path, &token, 59)).starts_with("i-"));
    assert_eq!(get(path, &token, 60).status, 401);
    assert_eq!(get(path, "9999999999.00", 0).status, 401);
    assert_eq!(get(path, "", 0).status, 401);
    // Without one: IMDSv1, which this image refuses.
    assert_eq!(ask(&metadata, "GET /latest/meta-data/ HTTP/1.1\r\n\r\n").status, 401);
    assert_eq!(get("/2021-03-23/user-data", &token, 0).body, b"\x1f\x8buser");
    assert_eq!(get("/latest/meta-data/public-keys/", &token, 0).status, 404);
    assert_eq!(get("/latest/meta-data/placement/region", &token, 0).body, b"local");
}

/// What cloud-init's datasource does: it walks every folder that ends in a slash.
#[tokio::test]
async fn the_whole_tree_can_be_walked() {
    let metadata = metadata(false).await;
    let mut folders = vec!["meta-data/".to_owned(), "dynamic/instance-identity".to_owned()];
    let mut values = std::collections::BTreeMap::new();
    while let Some(folder) = folders.pop() {
        let listing = ask(&metadata, &format!("GET /2021-03-23/{folder} HTTP/1.1\r\n\r\n"));
        assert_eq!(listing.status, 200, "{folder}");
        for name in text(&listing).lines() {
            let path = format!("{}/{name}", folder.trim_end_matches('/'));
            if name.ends_with('/') {
                folders.push(path);
            } else {
                let value = ask(&metadata, &format!("GET /2021-03-23/{path} HTTP/1.1\r\n\r\n"));
                assert_eq!(value.status, 200, "{path}");
                values.insert(path, text(&value).to_owned());
            }
        }
    }
    let document: serde_json::Value =
        serde_json::from_str(&values["dynamic/instance-identity/document"]).unwrap();
    assert_eq!(document["instanceId"], values["meta-data/instance-id"].as_str());
    let mac = &values["meta-data/mac"];
    assert_eq!(
        values[&format!("meta-data/network/interfaces/macs/{mac}/local-ipv4s")],
        values["meta-data/local-ipv4"]
    );
    assert!(values.len() > 25);
}

#[tokio::test]
async fn hostile_requests_get_an_error_and_nothing_else() {
    let metadata = metadata(false).await;
    let table = [
        ("", 400),
        ("\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("GET / HTTP/1.1", 400),
        ("GET / SMTP\r\n\r\n", 400),
        ("GET http://169.254.169.254/ HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET /latest/../../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        ("GET /latest/meta-data/../../instance.json HTTP/1.1\r\n\r\n", 404),
        ("GET //etc/passwd HTTP/1.1\r\n\r\n", 404),
        ("GET /latest/%2e%2e/secret HTTP/1.1\r\n\r\n", 404),
        ("GET /latest/meta-data/instance-id/x HTTP/1.1\r\n\r\n", 404),
        ("GET /9999-99-9x/meta-data HTTP/1.1\r\n\r\n", 404),
        ("DELETE /latest/api/token HTTP/1.1\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\n\r\n", 405),
        ("PUT /latest/meta-data HTTP/1.1\r\n\r\n", 404),
        ("PUT /latest/api/token HTTP/1.1\r\n\r\n", 400),
        ("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 0\r\n\r\n", 400),
        ("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 21601\r\n\r\n", 400),
        (
            "PUT /latest/api/token HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
            403,
        ),
    ];
    for (request, status) in table {
        assert_eq!(ask(&metadata, request).status, status, "{request:?}");
    }
    assert_eq!(respond(&metadata, b"", &[0xff; 100], at(0)).status, 400);
    let none = respond(&metadata, b"", b"GET /latest/user-data HTTP/1.1\r\n\r\n", at(0));
    assert_eq!(none.status, 404);
}

/// A guest that never ends its request.
struct Endless;

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'a');
        Ok(buffer.len())
    }
}

#[tokio::test]
async fn one_request_is_answered_and_its_size_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &metadata(false).await, b"data").unwrap();
    let exchange = |request: &[u8]| {
        let mut output = Vec::new();
        answer(dir.path(), request, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    };
    let good = exchange(b"GET /latest/user-data HTTP/1.1\r\n\r\nGET /latest/meta-data HTTP/1.1\r\n\r\n");
    assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
    assert!(good.contains("Content-Length: 4\r\n") && good.ends_with("\r\n\r\ndata"), "{good}");
    let token =
        exchange(b"PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 9\r\n\r\n");
    assert!(token.contains("X-aws-ec2-metadata-token-ttl-seconds: 9\r\n"), "{token}");
    assert_eq!(exchange(b""), "");

    let mut output = Vec::new();
    answer(dir.path(), Endless, &mut output).unwrap();
    assert!(output.starts_with(b"HTTP/1.1 400 "));
    let empty = tempfile::tempdir().unwrap();
    assert!(answer(empty.path(), &b"GET / HTTP/1.1\r\n\r\n"[..], &mut Vec::new()).is_err());
}
