//! `bakehouse test` on instances of the stand-in that really boot: baked, launched, read from the console and ended by the
//! same program and the same code as on AWS.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::StandIn;
use super::fixture::REGION;
use super::policy::Judge;
use crate::acceptance::qemu::{TOOLS, WORDS, boot_sector};
use crate::gate;
use crate::yard::{Said, Yard, machine, small};

fn run(cloud: &StandIn, yard: &Yard, args: &[&str]) -> Said {
    cloud.program(yard).args(args).output().unwrap().into()
}

/// The account's instances, all of which have ended, and whose volumes and interfaces are gone.
#[track_caller]
fn ended(cloud: &StandIn, number: usize) -> Vec<Value> {
    let began = std::time::Instant::now();
    let over = |state: &Value| {
        let all = state["instances"].as_object().unwrap();
        all.values().all(|one| one["state"] == "terminated")
            && state["volumes"] == json!({})
            && state["interfaces"] == json!({})
    };
    let mut state = cloud.state();
    while !over(&state) && began.elapsed() < std::time::Duration::from_secs(60) {
        std::thread::sleep(std::time::Duration::from_millis(200));
        state = cloud.state();
    }
    assert!(over(&state), "{state:#}");
    let all: Vec<Value> = state["instances"].as_object().unwrap().values().cloned().collect();
    assert_eq!(all.len(), number, "{all:#?}");
    all
}

/// The small base with a boot sector that speaks: an ext4 leaves its first 1,024 bytes to whoever boots it.
fn speaking(folder: &Path, power_off: bool) -> PathBuf {
    let disk = folder.join(format!("speaking-{power_off}.raw"));
    let small = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let mut content = std::fs::read(small).unwrap();
    content[..512].copy_from_slice(&boot_sector(power_off));
    std::fs::write(&disk, content).unwrap();
    disk
}

/// Baked directly and booted. What has no cloud-init is judged by its console; one that says nothing of what it should
/// fails when its time is over, and one that ends by itself fails at once. None is left running.
#[test]
fn an_image_is_booted_on_an_instance_that_is_always_ended() {
    if !gate::has(&TOOLS) {
        return;
    }
    let Some(yard) = Yard::small() else { return };
    let cloud = StandIn::start();
    cloud.settings(json!({ "machines": "qemu", "noise_mebibytes": 1 }));
    // The stand-in is another process: what a yard has in memory is seen by this thread alone.
    let folder = tempfile::tempdir().unwrap();
    let words = WORDS.trim();
    let mut launched = 0;
    for (power_off, wanted, code, told) in [
        (false, words, 0, "boot"),
        (true, "never said", 6, "ended"),
        (false, "never said", 6, "no answer within 40 s"),
    ] {
        let disk = speaking(folder.path(), power_off);
        let name = format!("speaking-{}", launched + 1);
        let (base, _) =
            cloud.seed_image(cloud.account(), json!({ "name": format!("base-{name}"), "disk": disk }));
        let rest = format!(
            "provision:\n  - shell: {{ run: 'echo made >/etc/made' }}\n\
             checks:\n  - file: {{ path: /etc/made, contains: made }}\n\
             boot: {{ within: 40s, console: \"{wanted}\" }}\n"
        );
        yard.recipe(&name, &small::recipe(&name, &format!("{{ image: {base} }}"), &rest));
        run(&cloud, &yard, &["bake", &name]).ok();
        let judge = Judge::new(&yard, &cloud, &[&name, "--for", "test"]);
        let from = cloud.operations().len();
        let boot = machine();
        let said = run(&cloud, &yard, &["test", &name]).code(code);
        drop(boot);
        launched += 1;
        assert!(said.out.contains(told) || said.err.contains(told), "{told}: {}\n{}", said.out, said.err);
        let record = yard.record(&name);
        assert_eq!(record["test"]["failed"], json!(u8::from(code != 0)), "{record:#}");
        let called = cloud.operations().split_off(from);
        let is_called = |wanted: &str| called.iter().any(|name| name == wanted);
        assert!(is_called("ec2:RunInstances") && is_called("ec2:GetConsoleOutput"), "{called:?}");
        let needless = judge.allowed();
        // One that turned itself off is gone already; and the snapshot of a further volume, which need not be of the family,
        // this image has none of.
        let gone = power_off.then_some("Own: ec2:TerminateInstances");
        let volumes = format!("LaunchFrom: arn:aws:ec2:{REGION}::snapshot/*");
        assert_eq!(needless, Vec::from_iter(gone.into_iter().chain([volumes.as_str()])));
        assert_eq!(is_called("ec2:TerminateInstances"), !power_off, "{called:?}");
        for one in ended(&cloud, launched) {
            assert!(one["tags"]["bakehouse:expires"].is_string(), "{one:#}");
            let family = one["tags"]["bakehouse:family"].as_str().unwrap();
            assert!(family.starts_with("speaking-"), "{one:#}");
        }
    }
    yard.assert_nothing_left();
    cloud.finish();
}

/// A whole system: its checks come as user data, run in the guest, and answer on its console.
#[test]
fn a_systems_checks_run_on_an_instance_and_answer_on_its_console() {
    if !gate::has(&TOOLS) {
        return;
    }
    let Some(shared) = Yard::shared() else { return };
    let (yard, cloud) = (Yard::new(), StandIn::start());
    cloud.settings(json!({ "machines": "qemu", "noise_mebibytes": 1 }));
    let record = shared.record("os-base");
    let disk = yard.path().join("base.raw");
    let snapshot = record["images"][0]["snapshot"].as_str().unwrap();
    shared.run(&["snapshot", "download", snapshot, disk.to_str().unwrap()]).ok();
    let (base, _) = cloud.seed_image(cloud.account(), json!({ "name": "os-base", "disk": disk }));
    std::fs::remove_file(&disk).unwrap();
    yard.recipe(
        "web",
        &small::recipe(
            "web",
            &format!("{{ image: {base} }}"),
            "provision:\n  - shell: { run: 'echo made >/etc/made' }\n\
             checks:\n  - command: { run: 'cat /etc/made', contains: made }\n  \
             - service: { name: ssh, running: true }\n\
             boot: { within: 15m }\n",
        ),
    );
    run(&cloud, &yard, &["bake", "web"]).ok();
    let boot = machine();
    let said = run(&cloud, &yard, &["test", "web"]).ok();
    drop(boot);
    assert!(!said.out.contains("not judged"), "{}", said.out);
    assert_eq!(yard.record("web")["test"]["failed"], 0);
    ended(&cloud, 1);
    yard.assert_nothing_left();
    cloud.finish();
}
