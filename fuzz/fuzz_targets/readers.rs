//! One program for all targets: `BAKEHOUSE_FUZZ_TARGET` names the one that is tried.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "one field is for the suite alone")]
mod targets;

use std::sync::LazyLock;

static TARGET: LazyLock<&targets::Target> = LazyLock::new(|| {
    let name = std::env::var("BAKEHOUSE_FUZZ_TARGET").unwrap_or_default();
    targets::TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        let names: Vec<&str> = targets::TARGETS.iter().map(|target| target.name).collect();
        panic!("BAKEHOUSE_FUZZ_TARGET names none of {}", names.join(", "))
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
