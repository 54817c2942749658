//! HTTP/1.1 as far as the SDKs speak it: requests with a Content-Length or none, answers likewise, connections kept.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};

use anyhow::{Context, bail};

use crate::memory::Memory;

/// More than any head of a signed request.
const LONGEST_HEAD: u64 = 64 << 10;

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The next one; `None` where the connection was closed between two.
    pub fn read(from: &mut BufReader<impl Read>, memory: &Memory) -> anyhow::Result<Option<Self>> {
        let mut line = String::new();
        let mut head = from.by_ref().take(LONGEST_HEAD);
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target) = words.next().zip(words.next()).context("no request line")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: pairs(query),
            headers: Vec::with_capacity(20),
            body: Vec::new(),
        };
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                bail!("the head breaks off");
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if request.header("transfer-encoding").is_some() {
            bail!("a body without a length is not understood");
        }
        let length = request.header("content-length").map_or(Ok(0), str::parse)?;
        if length > 0 {
            // Not filled with zeros before it is read.
            request.body = memory.take(length);
            let read = from.by_ref().take(length as u64).read_to_end(&mut request.body)?;
            if read != length {
                bail!("the body breaks off");
            }
        }
        Ok(Some(request))
    }
}

/// `a=b&c=d`, decoded.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

pub enum Body {
    Text(String),
    Block(std::sync::Arc<Vec<u8>>),
}

impl Answer {
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Self { status, headers, body: Body::Text(value.to_string()) }
    }

    pub fn xml(text: String) -> Self {
        Self { status: 200, headers: vec![("Content-Type", "text/xml".to_owned())], body: Body::Text(text) }
    }

    /// An error as rest-json services tell it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let mut answer = Self::json(status, &serde_json::json!({ "Message": message }));
        answer.headers.push(("x-amzn-ErrorType", code.to_owned()));
        answer
    }

    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let body: &[u8] = match &self.body {
            Body::Text(text) => text.as_bytes(),
            Body::Block(data) => data,
        };
        let mut head = format!("HTTP/1.1 {} OK\r\nContent-Length: {}\r\n", self.status, body.len());
        head += "x-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n";
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let (mut head, mut body) = (head.as_bytes(), body);
        while !head.is_empty() {
            let written = to.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_head = written.min(head.len());
            head = &head[of_head..];
            body = &body[written - of_head..];
        }
        to.write_all(body)?;
        to.flush()
    }
}
