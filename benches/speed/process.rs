//! A program that is run to its end: how long it took, what processor time it needed and how much memory. Shared by both
//! measurements.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How often memory is looked at. The kernel keeps the peak: only what grows in the last of these is missed.
const LOOK: Duration = Duration::from_millis(5);
/// The unit of times in /proc: `USER_HZ`, the same on all machines of Linux (proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the start of the process to its end.
    pub wall: Duration,
    /// Of the process with all its threads, in user mode and in the kernel, to a hundredth of a second.
    pub processor: Duration,
    /// The peak of its resident memory, in bytes.
    pub memory: u64,
}

/// Runs it, and gives its output.
pub fn run(command: &mut Command) -> anyhow::Result<(String, Cost)> {
    let name = command.get_program().display().to_string();
    let began = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let child = child.with_context(|| format!("cannot start {name}"))?;
    let mut memory = 0;
    // Not `wait4`: its peak begins with that of the process that started this one, which has gigabytes of blocks.
    let processor = loop {
        memory = memory.max(peak(&child).unwrap_or(0));
        if let Some(processor) = ended(&child)? {
            break processor;
        }
        std::thread::sleep(LOOK);
    };
    let wall = began.elapsed();
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("{name} ended with {}", out.status);
    }
    Ok((String::from_utf8(out.stdout)?, Cost { wall, processor, memory }))
}

/// The most memory that a process had so far.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// The processor time of a process that has ended, and nobody asked about yet.
fn ended(child: &Child) -> anyhow::Result<Option<Duration>> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    // ID (NAME) STATE …; the name may hold anything. `utime` and `stime` are 14 and 15.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let fields = fields.filter(|fields| fields.len() > 12).context("/proc/PID/stat cannot be read")?;
    if fields[0] != "Z" {
        return Ok(None);
    }
    let ticks = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(Some(TICK * ticks))
}
