//! Whatever is given to a reader of ours: no panic, no hang, no more memory than a bound. Each target of `fuzz/targets.rs`
//! gets its seeds, among them every input that once broke it, and mutations of them; `make fuzz` goes on from there.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use targets::{TARGETS, Target};

/// Bytes that a reader may take, with those of the test's own process.
const MEMORY: u64 = 256 << 20;
/// Far beyond what any input takes: a target that runs longer hangs.
const HANG: Duration = Duration::from_secs(120);
/// In which order mutations come; the same in every run. `BAKEHOUSE_FUZZ_SEED` gives another.
const SEED: u64 = 4;
/// Tells the child its target.
const PART: &str = "BAKEHOUSE_FUZZ_TARGET";

fn seed() -> u64 {
    std::env::var("BAKEHOUSE_FUZZ_SEED").map_or(SEED, |text| text.parse().unwrap())
}

fn folder(of: &str, target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(of).join(target.name)
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder("seeds", target)).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no seeds", target.name);
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// A change of some bytes at a place: what is there goes, and what is given comes, each up to a few.
type Change = (Index, u8, Vec<u8>);

/// One of the seeds with some changes, and sometimes with the end of another.
fn mutations(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    // Numbers and signs at the edge of what formats have.
    let odd = prop_oneof![
        Just(vec![0]),
        Just(vec![0xff; 4]),
        Just(vec![0, 0, 0, 0x80]),
        Just(b"9999999999".to_vec()),
        proptest::sample::select(b"\n\t $\"'\\{}[]:;=,&*%/.-".to_vec()).prop_map(|sign| vec![sign]),
        vec(any::<u8>(), 0..8),
    ];
    let changes = vec((any::<Index>(), 0..16_u8, odd), 0..6);
    let seed = proptest::sample::select(seeds);
    (seed.clone(), changes, proptest::option::weighted(0.2, (seed, any::<Index>(), any::<Index>()))).prop_map(
        |(mut input, changes, spliced): (Vec<u8>, Vec<Change>, _)| {
            if let Some((other, from, to)) = spliced {
                input.truncate(to.index(input.len() + 1));
                input.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
            for (at, gone, new) in changes {
                let at = at.index(input.len() + 1);
                let end = input.len().min(at + usize::from(gone));
                input.splice(at..end, new);
            }
            input
        },
    )
}

/// The seeds themselves, each again and again up to a mebibyte, and mutations.
fn try_all(target: &Target) {
    let last = std::env::temp_dir().join("input");
    let attempt = |input: &[u8]| {
        // Written first: what ends the process can then be named.
        std::fs::write(&last, input).unwrap();
        (target.run)(input);
    };
    let seeds = seeds(target);
    for whole in &seeds {
        attempt(whole);
        if !target.runs_programs {
            // What costs the square of its length shows here.
            let long: Vec<u8> = whole.iter().copied().cycle().take(1 << 20).collect();
            attempt(&long);
        }
    }
    let cases = if target.runs_programs { 20 } else { 300 };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed().to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
    let mut runner = TestRunner::new_with_rng(config, random);
    let tried = runner.run(&mutations(seeds), |input| {
        attempt(&input);
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
    std::fs::remove_file(&last).unwrap();
}

/// In a process of its own for each, whose memory and time are bounded.
#[tokio::test]
async fn no_reader_panics_hangs_or_takes_memory_without_bound() {
    if let Ok(name) = std::env::var(PART) {
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        // On a thread of its own, since a target may wait for what is asynchronous.
        return std::thread::scope(|scope| scope.spawn(|| try_all(target)).join().unwrap());
    }
    let mut wrong = Vec::new();
    for target in &TARGETS {
        let kept = tempfile::tempdir().unwrap();
        let child = Cmd::new("prlimit")
            .arg(format!("--data={MEMORY}"))
            .arg(std::env::current_exe().unwrap())
            .args(["fuzz::no_reader_panics_hangs_or_takes_memory_without_bound", "--exact", "--nocapture"])
            .env(PART, target.name)
            .env("TMPDIR", kept.path())
            .timeout(HANG);
        if let Err(error) = child.run(&Stop::never()).await {
            let keep = folder("artifacts", target);
            std::fs::create_dir_all(&keep).unwrap();
            let named = keep.join("from-the-suite");
            // Not there where the child did not come that far; its last lines say why.
            let _ = std::fs::copy(kept.path().join("input"), &named);
            wrong.push(format!("{}: {error}\nits input is {}", target.name, named.display()));
        }
    }
    assert!(wrong.is_empty(), "with BAKEHOUSE_FUZZ_SEED={}:\n{}", seed(), wrong.join("\n\n"));
}
