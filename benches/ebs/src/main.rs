//! The block engine beside coldsnap: a disk of 2 GiB goes up and comes down against an endpoint on the same machine, in
//! turns, and a table says how long each took, what processor time and what memory. Ends with 1 where a limit is missed.
//!
//! ```text
//! ebs-bench --bakehouse PROGRAM --coldsnap PROGRAM --folder FOLDER [--runs 3] [--only WORD]
//! ebs-bench serve [--port 8080] [--latency MILLISECONDS] [--rate BLOCKS-A-SECOND] [--tls FOLDER]
//! ```

mod account;
mod bake;
#[path = "../../speed/child.rs"]
mod child;
mod client;
mod endpoint;
mod http;
mod memory;
#[path = "../../speed/process.rs"]
mod process;
mod tls;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Client, Clients, Target};
use endpoint::{BLOCK_SIZE, Endpoint, Options};
use memory::Memory;
use process::Cost;

/// Bytes of the disk.
const DISK: u64 = 2 << 30;
/// What an account may put and get in a second.
const QUOTA: f64 = 1000.0;

/// What a call takes from another region, or a busy one.
const FAR: Duration = Duration::from_millis(30);

/// How many times as fast as coldsnap.
const FASTER: f64 = 1.5;
/// Of coldsnap's processor time.
const PROCESSOR: f64 = 0.6;
/// Of the quota.
const OF_THE_QUOTA: f64 = 0.9;
/// Seconds that a direct bake on an imported base may take besides provisioning, at the quota and 30 ms.
const BESIDES: f64 = 6.0;

fn main() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args().skip(1).peekable();
    let serve = words.next_if(|word| word == "serve").is_some();
    let mut options = BTreeMap::new();
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").with_context(|| format!("`{word}` is no option"))?.to_owned();
        options.insert(name, words.next().with_context(|| format!("{word} needs a value"))?);
    }
    let option = |name: &str| options.get(name).map(String::as_str);
    if serve {
        let (tls, _) = match option("tls") {
            Some(folder) => {
                tls::make(Path::new(folder)).map(|(config, authority)| (Some(config), Some(authority)))?
            }
            None => (None, None),
        };
        let options = Options {
            latency: Duration::from_millis(option("latency").map_or(Ok(0), str::parse)?),
            rate: option("rate").map(str::parse).transpose()?,
        };
        let endpoint = Endpoint::new(options, Arc::default());
        let address = endpoint.serve(option("port").map_or(Ok(8080), str::parse)?, tls)?;
        println!("{address}");
        loop {
            std::thread::park();
        }
    }
    let path = |name: &str| option(name).map(PathBuf::from).with_context(|| format!("--{name} is missing"));
    let base = path("folder")?;
    fs::create_dir_all(&base)?;
    let clients = Clients {
        bakehouse: path("bakehouse")?.canonicalize().context("--bakehouse")?,
        coldsnap: path("coldsnap")?.canonicalize().context("--coldsnap")?,
        folder: base.canonicalize()?.join("ebs-bench"),
    };
    // What a killed run left.
    let _ = fs::remove_dir_all(&clients.folder);
    fs::create_dir_all(&clients.folder)?;
    let mut bench = Bench {
        runs: option("runs").map_or(Ok(3), str::parse)?,
        rows: Vec::new(),
        missed: 0,
        clients,
        memory: Arc::new(Memory::of(DISK as usize / BLOCK_SIZE)),
    };
    let measured = bench.measure(option("only").unwrap_or(""));
    fs::remove_dir_all(&bench.clients.folder)?;
    measured?;
    println!("{}", bench.table());
    if bench.missed > 0 {
        eprintln!("error: {} limits are missed", bench.missed);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    clients: Clients,
    runs: usize,
    rows: Vec<[String; 5]>,
    missed: usize,
    /// The endpoints'.
    memory: Arc<Memory>,
}

impl Bench {
    /// All of it, or the parts whose name has `only` in it.
    fn measure(&mut self, only: &str) -> anyhow::Result<()> {
        eprintln!("==> filling the page cache");
        fill_page_cache(&self.clients.folder.join("zeros"))?;
        eprintln!("==> writing a disk of {} GiB", DISK >> 30);
        let disk = self.clients.folder.join("disk.raw");
        write_disk(&disk)?;
        for latency in [Duration::ZERO, FAR] {
            let name = format!("{} ms", latency.as_millis());
            if name.contains(only) {
                self.side_by_side(&name, latency, false, &disk)?;
            }
        }
        if "tls".contains(only) {
            self.side_by_side("TLS", Duration::ZERO, true, &disk)?;
        }
        if "rate".contains(only) {
            self.at_the_quota(&disk)?;
        }
        fs::remove_file(&disk)?;
        if "bake".contains(only) {
            self.bake()?;
        }
        Ok(())
    }

    /// Direct bakes at the quota and from afar; the middle one counts.
    fn bake(&mut self) -> anyhow::Result<()> {
        eprintln!("==> a base of 2 GiB with 750 MiB in use (most of it is mmdebstrap)");
        let disk = bake::base(&self.clients)?;
        eprintln!("==> direct bakes on its import, at {QUOTA} blocks a second and {FAR:?}");
        let (endpoint, target) = self.endpoint(Options { latency: FAR, rate: Some(QUOTA) }, false)?;
        let mut runs = bake::children(&self.clients, &endpoint, &target, &disk, self.runs)?;
        endpoint.verify()?;
        if runs.iter().any(|run| run.import != runs[0].import) {
            bail!("there is more than one import");
        }
        runs.sort_by(|a, b| a.besides.total_cmp(&b.besides));
        let middle = &runs[runs.len() / 2];
        let row = |seconds: f64| [format!("{seconds:.2} s"), String::new(), String::new()];
        let verdict = (middle.besides < BESIDES, format!("{BESIDES} s"));
        let what = "a direct bake besides provisioning, 64 MiB delta, at 1,000 blocks/s and 30 ms";
        self.row(what.to_owned(), row(middle.besides), Some(verdict));
        for (part, seconds) in &middle.parts {
            self.row(format!("  of it: {part}"), row(*seconds), None);
        }
        Ok(())
    }

    fn endpoint(&self, options: Options, tls: bool) -> anyhow::Result<(Arc<Endpoint>, Target)> {
        let endpoint = Endpoint::new(options, self.memory.clone());
        let (config, authority) = if tls {
            let (config, authority) = tls::make(&self.clients.folder)?;
            (Some(config), Some(authority))
        } else {
            (None, None)
        };
        let address = endpoint.serve(0, config)?;
        let scheme = if tls { "https" } else { "http" };
        Ok((
            endpoint,
            Target { url: format!("{scheme}://{address}"), authority, is_limited: options.rate.is_some() },
        ))
    }

    /// Both clients in turns, the same disk up and down.
    fn side_by_side(&mut self, name: &str, latency: Duration, tls: bool, disk: &Path) -> anyhow::Result<()> {
        let (mut up, mut down) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for run in 0..self.runs {
            for (number, client) in [Client::Bakehouse, Client::Coldsnap].into_iter().enumerate() {
                eprintln!("==> {name}: {client:?}, run {} of {}", run + 1, self.runs);
                let (endpoint, target) = self.endpoint(Options { latency, rate: None }, tls)?;
                let (snapshot, cost) = self.clients.upload(client, &target, disk, &[])?;
                up[number].push(cost);
                let back = self.clients.folder.join("back.raw");
                down[number].push(self.clients.download(client, &target, &snapshot, &back)?);
                endpoint.verify()?;
                same(disk, &back)?;
                fs::remove_file(&back)?;
                endpoint.clear();
            }
        }
        for (what, costs) in [("upload", up), ("download", down)] {
            let [ours, theirs] = costs.map(|costs| median(&costs));
            let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
            let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
            let limit = !tls;
            let ratio = theirs.wall.as_secs_f64() / ours.wall.as_secs_f64();
            let row = [seconds(ours.wall), seconds(theirs.wall), format!("{ratio:.2} times as fast")];
            self.row(format!("{what}, {name}"), row, limit.then_some((ratio >= FASTER, format!("{FASTER}"))));
            let ratio = ours.processor.as_secs_f64() / theirs.processor.as_secs_f64();
            let row = [seconds(ours.processor), seconds(theirs.processor), format!("{ratio:.2} of it")];
            let verdict = limit.then_some((ratio <= PROCESSOR, format!("{PROCESSOR}")));
            self.row("  processor time".to_owned(), row, verdict);
            let ratio = ours.memory as f64 / theirs.memory as f64;
            let row = [mebibytes(ours.memory), mebibytes(theirs.memory), format!("{ratio:.2} of it")];
            self.row("  memory".to_owned(), row, limit.then_some((ratio <= 1.0, "1".to_owned())));
        }
        Ok(())
    }

    /// How much of a quota of calls is used, and what is refused.
    fn at_the_quota(&mut self, disk: &Path) -> anyhow::Result<()> {
        let blocks = DISK as f64 / BLOCK_SIZE as f64;
        eprintln!("==> at {QUOTA} blocks a second");
        let options = Options { latency: FAR, rate: Some(QUOTA) };
        let (endpoint, target) = self.endpoint(options, false)?;
        let back = self.clients.folder.join("back.raw");
        let (snapshot, up) = self.clients.upload(Client::Bakehouse, &target, disk, &[])?;
        let down = self.clients.download(Client::Bakehouse, &target, &snapshot, &back)?;
        endpoint.verify()?;
        fs::remove_file(&back)?;
        for (what, cost) in [("upload", up), ("download", down)] {
            let reached = blocks / cost.wall.as_secs_f64() / QUOTA;
            let row = [
                format!("{:.2} s", cost.wall.as_secs_f64()),
                String::new(),
                format!("{:.0} %", reached * 100.0),
            ];
            let verdict = (reached >= OF_THE_QUOTA, format!("{:.0} %", OF_THE_QUOTA * 100.0));
            self.row(format!("{what}, at 1,000 blocks/s"), row, Some(verdict));
        }
        let refused = endpoint.told.throttled.load(Ordering::Relaxed);
        let most =
            endpoint.told.refusals.lock().ok().and_then(|all| all.values().max().copied()).unwrap_or(0);
        let row = [format!("{refused}"), String::new(), format!("{most} tries more at most")];
        self.row("  throttled calls".to_owned(), row, Some((most <= 1, "1".to_owned())));
        endpoint.clear();
        Ok(())
    }

    fn row(&mut self, what: String, [ours, theirs, ratio]: [String; 3], verdict: Option<(bool, String)>) {
        let limit = match verdict {
            Some((true, limit)) => limit,
            Some((false, limit)) => {
                self.missed += 1;
                format!("{limit} MISSED")
            }
            None => "-".to_owned(),
        };
        self.rows.push([what, ours, theirs, ratio, limit]);
    }

    fn table(&self) -> String {
        let mut text =
            String::from("| what | bakehouse | coldsnap | ratio | limit |\n|---|---|---|---|---|\n");
        for row in &self.rows {
            text += &format!("| {} |\n", row.join(" | "));
        }
        text
    }
}

/// The one in the middle, each value by itself.
fn median(costs: &[Cost]) -> Cost {
    let middle = |mut values: Vec<u128>| {
        values.sort_unstable();
        values[values.len() / 2]
    };
    let time = |of: fn(&Cost) -> Duration| {
        let nanoseconds = middle(costs.iter().map(|cost| of(cost).as_nanos()).collect());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    };
    Cost {
        wall: time(|cost| cost.wall),
        processor: time(|cost| cost.processor),
        memory: u64::try_from(middle(costs.iter().map(|cost| cost.memory.into()).collect()))
            .unwrap_or(u64::MAX),
    }
}

/// Reads a file of zeros as large as memory, which stays until the end. In a virtual machine, memory that nothing is in may
/// be its host's: who writes a file then waits for the host, which is several times the work of a copy and hits one of
/// two and not the other. Pages that only the cache has come from the machine itself.
fn fill_page_cache(file: &Path) -> anyhow::Result<()> {
    let said = fs::read_to_string("/proc/meminfo")?;
    let total = said.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let bytes = total.context("/proc/meminfo has no MemTotal")?.parse::<u64>()? << 10;
    File::create(file)?.set_len(bytes)?;
    std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    Ok(())
}

/// Random bytes, no two blocks alike, on the disk and in the page cache.
fn write_disk(path: &Path) -> anyhow::Result<()> {
    let mut random = vec![0; 64 << 20];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut file = File::create(path)?;
    for round in 0..DISK / random.len() as u64 {
        for block in random.chunks_exact_mut(BLOCK_SIZE) {
            block[..8].copy_from_slice(&round.to_le_bytes());
        }
        file.write_all(&random)?;
    }
    Ok(file.sync_all()?)
}

fn same(one: &Path, other: &Path) -> anyhow::Result<()> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        bail!("what came down has another size");
    }
    let (mut a, mut b) = (vec![0; 8 << 20], vec![0; 8 << 20]);
    for _ in 0..DISK / a.len() as u64 {
        one.read_exact(&mut a)?;
        other.read_exact(&mut b)?;
        if a != b {
            bail!("what came down is not what went up");
        }
    }
    Ok(())
}
