//! An endpoint of the EBS direct APIs with its blocks in memory, as fast as two processors allow that the client needs
//! too: a thread for each connection, nothing copied that need not be, memory that is there before the run. It is strict where
//! speed could cheat: the count and the checksum of a snapshot, tokens of blocks, nothing readable before it is completed, and
//! every block's checksum. The last is verified after the run: EBS does it on other processors than the client's.
//!
//! Options: what each answer waits for, how many calls on blocks it takes in a second, TLS.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::account::{ACCOUNT, Account, Shown, Storage};
use crate::http::{Answer, Body, Request};
use crate::memory::Memory;

pub const BLOCK_SIZE: usize = 524_288;
const NOT_FOUND: &str = "ResourceNotFoundException";
const INVALID: &str = "ValidationException";
/// Calls on blocks that a limited endpoint takes at once: a tenth of a second's.
const BURST: f64 = 0.1;

#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Before each answer.
    pub latency: Duration,
    /// Puts, and as many gets, a second.
    pub rate: Option<f64>,
}

pub struct Endpoint {
    options: Options,
    snapshots: RwLock<BTreeMap<String, Arc<Snapshot>>>,
    started: AtomicU64,
    puts: Mutex<Tokens>,
    gets: Mutex<Tokens>,
    memory: Arc<Memory>,
    pub account: Account,
    pub told: Told,
}

/// What happened, for the measurement.
#[derive(Default)]
pub struct Told {
    pub blocks: AtomicU64,
    pub throttled: AtomicU64,
    /// How often each call on a block was refused.
    pub refusals: Mutex<HashMap<(String, u32), u32>>,
}

struct Snapshot {
    /// GiB.
    size: u64,
    parent: Option<Arc<Snapshot>>,
    blocks: Mutex<BTreeMap<u32, Stored>>,
    completed: Mutex<bool>,
}

#[derive(Clone)]
struct Stored {
    data: Arc<Vec<u8>>,
    /// As the client claimed it; [`Endpoint::verify`] looks.
    digest: [u8; 32],
}

/// A bucket of calls that fills with time.
struct Tokens {
    left: f64,
    at: Instant,
}

impl Tokens {
    fn take(&mut self, rate: f64) -> bool {
        let now = Instant::now();
        let filled = self.left + rate * now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = filled.min(rate * BURST);
        let good = self.left >= 1.0;
        if good {
            self.left -= 1.0;
        }
        good
    }
}

impl Endpoint {
    pub fn new(options: Options, memory: Arc<Memory>) -> Arc<Self> {
        let tokens = || Mutex::new(Tokens { left: 0.0, at: Instant::now() });
        Arc::new(Self {
            options,
            snapshots: RwLock::default(),
            started: AtomicU64::new(1),
            puts: tokens(),
            gets: tokens(),
            memory,
            account: Account::default(),
            told: Told::default(),
        })
    }

    /// That every block that was put has the checksum that came with it.
    pub fn verify(&self) -> anyhow::Result<()> {
        let snapshots = self.snapshots.read().ok().context("poisoned")?;
        for (id, snapshot) in snapshots.iter() {
            for (index, stored) in snapshot.blocks.lock().ok().context("poisoned")?.iter() {
                if Sha256::digest(&*stored.data)[..] != stored.digest {
                    bail!("block {index} of {id} does not have the checksum that it came with");
                }
            }
        }
        Ok(())
    }

    /// Forgets all snapshots.
    pub fn clear(&self) {
        let snapshots = self.snapshots.write().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
        for snapshot in snapshots.into_values() {
            let blocks = snapshot.blocks.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
            for data in blocks.into_values().filter_map(|stored| Arc::into_inner(stored.data)) {
                self.memory.give(data);
            }
        }
    }

    /// Serves on a port of its own until the process ends.
    pub fn serve(self: &Arc<Self>, port: u16, tls: Option<Arc<ServerConfig>>) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let address = listener.local_addr()?;
        let endpoint = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (endpoint, tls) = (endpoint.clone(), tls.clone());
                std::thread::spawn(move || {
                    // A client that goes away is none of the endpoint's failures; what it sent wrong it is told.
                    if let Err(error) = endpoint.connection(stream, tls) {
                        if error.downcast_ref::<std::io::Error>().is_none() {
                            eprintln!("endpoint: {error:#}");
                        }
                    }
                });
            }
        });
        Ok(address)
    }

    fn connection(&self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        match tls {
            Some(config) => {
                let connection = ServerConnection::new(config)?;
                self.talk(BufReader::new(StreamOwned::new(connection, stream)))
            }
            None => self.talk(BufReader::new(stream)),
        }
    }

    fn talk<S: Read + Write>(&self, mut stream: BufReader<S>) -> anyhow::Result<()> {
        while let Some(request) = Request::read(&mut stream, &self.memory)? {
            let answer = self.answer(request)?;
            if !self.options.latency.is_zero() {
                std::thread::sleep(self.options.latency);
            }
            answer.write(stream.get_mut())?;
        }
        Ok(())
    }

    fn answer(&self, request: Request) -> anyhow::Result<Answer> {
        let path = request.path.clone();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("PUT", ["snapshots", id, "blocks", index]) => self.put(id, index.parse()?, request),
            ("GET", ["snapshots", id, "blocks", index]) => Ok(self.get(id, index.parse()?, &request)),
            ("GET", ["snapshots", id, "blocks"]) => self.list(id, &request),
            ("POST", ["snapshots", "completion", id]) => self.complete(id, &request),
            ("POST", ["snapshots"]) => self.start(&request),
            ("POST", [""]) => self.account.answer(&request, self),
            (method, _) => {
                Ok(Answer::error(404, "UnknownOperationException", &format!("{method} {path} is not served")))
            }
        }
    }

    fn snapshot(&self, id: &str) -> Option<Arc<Snapshot>> {
        self.snapshots.read().ok()?.get(id).cloned()
    }

    fn throttled(&self, tokens: &Mutex<Tokens>, id: &str, index: u32) -> Option<Answer> {
        let rate = self.options.rate?;
        if tokens.lock().is_ok_and(|mut tokens| tokens.take(rate)) {
            return None;
        }
        self.told.throttled.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut refusals) = self.told.refusals.lock() {
            *refusals.entry((id.to_owned(), index)).or_default() += 1;
        }
        Some(Answer::error(400, "RequestThrottledException", "too many calls on blocks"))
    }

    fn start(&self, request: &Request) -> anyhow::Result<Answer> {
        let asked: Value = serde_json::from_slice(&request.body)?;
        let parent = match asked["ParentSnapshotId"].as_str() {
            Some(id) => match self.snapshot(id) {
                Some(parent) => Some(parent),
                None => return Ok(Answer::error(404, NOT_FOUND, "no such parent")),
            },
            None => None,
        };
        let size = asked["VolumeSize"].as_u64().context("no VolumeSize")?;
        let snapshot = Snapshot { size, parent, blocks: Mutex::default(), completed: Mutex::new(false) };
        let id = self.add(snapshot)?;
        Ok(Answer::json(
            201,
            &json!({
                "SnapshotId": id, "OwnerId": ACCOUNT, "Status": "pending", "StartTime": 1.7e9,
                "VolumeSize": size, "BlockSize": BLOCK_SIZE,
            }),
        ))
    }

    fn add(&self, snapshot: Snapshot) -> anyhow::Result<String> {
        let mut snapshots = self.snapshots.write().ok().context("poisoned")?;
        let id = format!("snap-{:017x}", self.started.fetch_add(1, Ordering::Relaxed));
        snapshots.insert(id.clone(), Arc::new(snapshot));
        Ok(id)
    }

    fn put(&self, id: &str, index: u32, request: Request) -> anyhow::Result<Answer> {
        let Some(snapshot) = self.snapshot(id) else {
            return Ok(Answer::error(404, NOT_FOUND, "no such snapshot"));
        };
        if let Some(answer) = self.throttled(&self.puts, id, index) {
            return Ok(answer);
        }
        let claimed = request.header("x-amz-checksum").unwrap_or_default().to_owned();
        let digest = STANDARD.decode(&claimed).ok().and_then(|raw| <[u8; 32]>::try_from(raw).ok());
        let Some(digest) = digest.filter(|_| request.body.len() == BLOCK_SIZE) else {
            return Ok(Answer::error(400, INVALID, "the block's size or checksum is wrong"));
        };
        if u64::from(index) >= snapshot.size * 2048 || *snapshot.completed.lock().ok().context("poisoned")? {
            return Ok(Answer::error(
                400,
                INVALID,
                "the block is outside of the volume, or the snapshot completed",
            ));
        }
        let stored = Stored { data: Arc::new(request.body), digest };
        snapshot.blocks.lock().ok().context("poisoned")?.insert(index, stored);
        self.told.blocks.fetch_add(1, Ordering::Relaxed);
        let headers = vec![("x-amz-Checksum", claimed), ("x-amz-Checksum-Algorithm", "SHA256".to_owned())];
        Ok(Answer { status: 201, headers, body: Body::Text("{}".to_owned()) })
    }

    fn complete(&self, id: &str, request: &Request) -> anyhow::Result<Answer> {
        let Some(snapshot) = self.snapshot(id) else {
            return Ok(Answer::error(404, NOT_FOUND, "no such snapshot"));
        };
        let blocks = snapshot.blocks.lock().ok().context("poisoned")?;
        let count: usize = request.header("x-amz-changedblockscount").unwrap_or_default().parse()?;
        let mut sum = Sha256::new();
        for stored in blocks.values() {
            sum.update(stored.digest);
        }
        let sum = STANDARD.encode(sum.finalize());
        if count != blocks.len() || request.header("x-amz-checksum").is_some_and(|claimed| claimed != sum) {
            return Ok(Answer::error(400, INVALID, "the count or the checksum of the blocks is wrong"));
        }
        *snapshot.completed.lock().ok().context("poisoned")? = true;
        Ok(Answer::json(202, &json!({ "Status": "completed" })))
    }

    fn list(&self, id: &str, request: &Request) -> anyhow::Result<Answer> {
        let Some(snapshot) = self.snapshot(id).filter(|one| one.is_completed()) else {
            return Ok(Answer::error(404, NOT_FOUND, "no such completed snapshot"));
        };
        let from: u32 = match request.query("pageToken").or(request.query("startingBlockIndex")) {
            Some(token) => token.trim_start_matches("page-").parse()?,
            None => 0,
        };
        let most: usize = request.query("maxResults").map_or(Ok(10_000), str::parse)?;
        let all = snapshot.all();
        let mut rest = all.range(from..);
        let blocks: Vec<Value> = rest
            .by_ref()
            .take(most)
            .map(|(index, _)| json!({ "BlockIndex": index, "BlockToken": token(id, *index) }))
            .collect();
        let mut answer = json!({
            "Blocks": blocks, "ExpiryTime": 4.0e9, "VolumeSize": snapshot.size, "BlockSize": BLOCK_SIZE,
        });
        if let Some((next, _)) = rest.next() {
            answer["NextToken"] = format!("page-{next}").into();
        }
        Ok(Answer::json(200, &answer))
    }

    fn get(&self, id: &str, index: u32, request: &Request) -> Answer {
        let Some(snapshot) = self.snapshot(id).filter(|one| one.is_completed()) else {
            return Answer::error(404, NOT_FOUND, "no such completed snapshot");
        };
        if let Some(answer) = self.throttled(&self.gets, id, index) {
            return answer;
        }
        let stored = snapshot.block(index).filter(|_| request.query("blockToken") == Some(&token(id, index)));
        let Some(stored) = stored else {
            return Answer::error(400, INVALID, "no such block, or a wrong token");
        };
        self.told.blocks.fetch_add(1, Ordering::Relaxed);
        let headers = vec![
            ("x-amz-Data-Length", BLOCK_SIZE.to_string()),
            ("x-amz-Checksum", STANDARD.encode(stored.digest)),
            ("x-amz-Checksum-Algorithm", "SHA256".to_owned()),
            ("Content-Type", "application/octet-stream".to_owned()),
        ];
        Answer { status: 200, headers, body: Body::Block(stored.data) }
    }
}

impl Storage for Endpoint {
    fn all(&self) -> Vec<Shown> {
        let snapshots = self.snapshots.read().into_iter().flat_map(|all| all.clone());
        snapshots
            .map(|(id, snapshot)| Shown { id, size: snapshot.size, completed: snapshot.is_completed() })
            .collect()
    }

    fn delete(&self, id: &str) {
        if let Ok(mut snapshots) = self.snapshots.write() {
            snapshots.remove(id);
        }
    }

    fn copy(&self, id: &str) -> Option<String> {
        let parent = self.snapshot(id)?;
        let copy = Snapshot {
            size: parent.size,
            parent: Some(parent),
            blocks: Mutex::default(),
            completed: Mutex::new(true),
        };
        self.add(copy).ok()
    }
}

impl Snapshot {
    fn is_completed(&self) -> bool {
        self.completed.lock().is_ok_and(|completed| *completed)
    }

    fn block(&self, index: u32) -> Option<Stored> {
        let own = self.blocks.lock().ok()?.get(&index).cloned();
        own.or_else(|| self.parent.as_ref()?.block(index))
    }

    fn all(&self) -> BTreeMap<u32, ()> {
        let mut all = self.parent.as_ref().map(|parent| parent.all()).unwrap_or_default();
        if let Ok(blocks) = self.blocks.lock() {
            all.extend(blocks.keys().map(|index| (*index, ())));
        }
        all
    }
}

fn token(id: &str, index: u32) -> String {
    // As long as AWS's are, about.
    format!("{id}-{index:08}-AAABAdzxxvGCCNZTxdP3mLBzZCCtHgDCwaWLHjsQmVr7VdXn5hj5Qg5ERBKJ")
}
