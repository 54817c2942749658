//! Rules of volumes: what EBS takes of each type. The limits of gp3 are those of CreateVolume in EC2's API model; those of
//! the other types are of the EBS user guide ("Amazon EBS volume types").

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::{Look, Verdict, wrong};
use crate::cloud::SnapshotId;
use crate::recipe::Size;
use crate::recipe::problem::{At, Findings, ProblemKind, quoted};

/// What EBS takes of a type.
struct Limits {
    kind: &'static str,
    gib: RangeInclusive<u32>,
    iops: Option<RangeInclusive<u32>>,
    /// At most so many for each GiB.
    iops_per_gib: u32,
    /// Whether they must be said.
    needs_iops: bool,
    /// MiB a second.
    throughput: Option<RangeInclusive<u32>>,
    boots: bool,
}

const LIMITS: [Limits; 7] = [
    Limits {
        kind: "gp3",
        gib: 1..=65_536,
        iops: Some(3000..=80_000),
        iops_per_gib: 500,
        needs_iops: false,
        throughput: Some(125..=2000),
        boots: true,
    },
    Limits {
        kind: "io2",
        gib: 4..=65_536,
        iops: Some(100..=256_000),
        iops_per_gib: 1000,
        needs_iops: true,
        throughput: None,
        boots: true,
    },
    Limits {
        kind: "io1",
        gib: 4..=16_384,
        iops: Some(100..=64_000),
        iops_per_gib: 50,
        needs_iops: true,
        throughput: None,
        boots: true,
    },
    plain("gp2", 1..=16_384, true),
    plain("st1", 125..=16_384, false),
    plain("sc1", 125..=16_384, false),
    plain("standard", 1..=1024, true),
];

/// One that has the same speed whatever is asked for.
const fn plain(kind: &'static str, gib: RangeInclusive<u32>, boots: bool) -> Limits {
    Limits { kind, gib, iops: None, iops_per_gib: 0, needs_iops: false, throughput: None, boots }
}

/// So many IOPS are needed for each MiB a second (gp3: 0.25 MiB/s for each IOPS).
const IOPS_PER_MIB: u32 = 4;
/// What gp3 has where nothing is said.
const GP3_IOPS: u32 = 3000;

pub(super) fn device(text: &str) -> Verdict {
    let name = text.strip_prefix("/dev/").unwrap_or_default();
    let good = (3..=16).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if good { Ok(()) } else { wrong(format!("{} is no device", quoted(text)), "write one like /dev/sdf") }
}

pub(super) fn snapshot(text: &str) -> Verdict {
    if SnapshotId::parse(text).is_some() {
        return Ok(());
    }
    wrong(format!("{} is no snapshot's id", quoted(text)), "one looks like snap-0123456789abcdef0")
}

/// Each device once.
pub(super) fn list(look: &Look<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (number, volume) in look.value.as_array().into_iter().flatten().enumerate() {
        let Some(device) = volume.get("device").and_then(Value::as_str) else { continue };
        if !seen.insert(device) {
            findings.error(
                ProblemKind::Conflict,
                &look.path.item(number).key("device"),
                At::Value,
                format!("{} is the device of two volumes", quoted(device)),
                "give one of them another",
            );
        }
    }
}

/// The root volume.
pub(super) fn root(look: &Look<'_>, findings: &mut Findings) {
    let Some(kind) = look.get("type").and_then(Value::as_str) else {
        for key in ["iops", "throughput"] {
            if look.get(key).is_some() {
                look.conflict(
                    key,
                    findings,
                    format!("`{key}` goes with `type` only: the base's volume may be of one that has none"),
                    "add `type: gp3`, or take the key out",
                );
            }
        }
        return;
    };
    if let Some(limits) = limits(kind).filter(|limits| !limits.boots) {
        look.conflict(
            "type",
            findings,
            format!("nothing boots from a volume of type {}", limits.kind),
            "write `type: gp3`",
        );
        return;
    }
    fits(look, findings, kind);
}

/// A further volume.
pub(super) fn further(look: &Look<'_>, findings: &mut Findings) {
    if look.get("no-device") == Some(&Value::Bool(true)) {
        for key in ["size", "type", "iops", "throughput", "snapshot", "delete-on-termination"] {
            if look.get(key).is_some() {
                look.conflict(
                    key,
                    findings,
                    format!("where there is no volume it has no `{key}`"),
                    format!("take out `{key}` or `no-device`"),
                );
            }
        }
        return;
    }
    if look.get("size").is_none() && look.get("snapshot").is_none() {
        findings.error(
            ProblemKind::MissingKey,
            &look.path,
            At::Key,
            "this volume has neither a size nor a snapshot that has one",
            "add `size: 8GiB`, or `snapshot:`; `no-device: true` takes the base's away",
        );
        return;
    }
    fits(look, findings, look.get("type").and_then(Value::as_str).unwrap_or("gp3"));
}

fn limits(kind: &str) -> Option<&'static Limits> {
    LIMITS.iter().find(|limits| limits.kind == kind)
}

/// Size, IOPS and throughput, each by itself and together.
fn fits(look: &Look<'_>, findings: &mut Findings, kind: &str) {
    let Some(limits) = limits(kind) else { return };
    let number = |key: &str| look.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let size = |key: &str| look.get(key).and_then(Value::as_str).and_then(|text| Size::parse(text).ok());
    let (gib, iops) = (size("size").map(Size::gib), number("iops"));
    let throughput = size("throughput").map(Size::mib);
    let mut wrong = |key: &str, message: String, hint: String| {
        findings.error(ProblemKind::BadValue, &look.path.key(key), At::Value, message, hint);
    };
    if let Some(gib) = gib.filter(|gib| !limits.gib.contains(gib)) {
        let (low, high) = (limits.gib.start(), limits.gib.end());
        wrong(
            "size",
            format!("a volume of type {kind} is not of {gib} GiB"),
            format!("write {low}GiB to {high}GiB"),
        );
    }
    match (&limits.iops, iops) {
        (None, Some(_)) => wrong(
            "iops",
            format!("a volume of type {kind} takes no `iops`"),
            "take the key out, or write `type: gp3`".to_owned(),
        ),
        (Some(range), Some(iops)) if !range.contains(&iops) => wrong(
            "iops",
            format!("a volume of type {kind} does not have {iops} IOPS"),
            format!("write {} to {}", range.start(), range.end()),
        ),
        (Some(_), Some(iops)) => {
            // What it may have without asking is not bound to its size.
            let most = gib.map(|gib| gib.saturating_mul(limits.iops_per_gib).max(GP3_IOPS));
            if let Some(most) = most.filter(|most| iops > *most) {
                let each = limits.iops_per_gib;
                wrong(
                    "iops",
                    format!("{iops} IOPS are too many for its size: {kind} takes {each} for each GiB"),
                    format!("write {most} at most, or a larger `size`"),
                );
            }
        }
        (Some(range), None) if limits.needs_iops => findings.error(
            ProblemKind::MissingKey,
            &look.path,
            At::Key,
            format!("a volume of type {kind} needs its `iops` said"),
            format!("add `iops:`, {} to {}", range.start(), range.end()),
        ),
        _ => {}
    }
    let mut wrong = |message: String, hint: String| {
        findings.error(ProblemKind::BadValue, &look.path.key("throughput"), At::Value, message, hint);
    };
    match (&limits.throughput, throughput) {
        (None, Some(_)) => wrong(
            format!("a volume of type {kind} takes no `throughput`"),
            "take the key out, or write `type: gp3`".to_owned(),
        ),
        (Some(range), Some(mib)) if !range.contains(&mib) => wrong(
            format!("a volume of type {kind} does not move {mib} MiB a second"),
            format!("write {}MiB to {}MiB", range.start(), range.end()),
        ),
        (Some(_), Some(mib)) if mib > iops.unwrap_or(GP3_IOPS).max(GP3_IOPS) / IOPS_PER_MIB => wrong(
            format!("{mib} MiB a second need more IOPS than it has: {IOPS_PER_MIB} for each"),
            format!("add `iops: {}`", mib * IOPS_PER_MIB),
        ),
        _ => {}
    }
}
