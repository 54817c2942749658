//! What a bake on AWS stores and registers, byte by byte and field by field.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::aws::StandIn;
use crate::faults::run::{continued, until_stopped};
use crate::yard::small::recipe;
use crate::yard::{Said, Yard};

const STEP: &str = "provision:\n  - shell: { run: 'echo made >/etc/made' }\n";
const BLOCK: usize = 524_288;

/// The small base's disk. What a yard has in memory is seen by its own thread alone, and the stand-in is everybody's.
fn base_disk() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw")
}

/// The parameters of the only call of an operation.
fn asked(cloud: &StandIn, operation: &str) -> Value {
    let all = cloud.exchanges();
    let mut of_it = all.iter().filter(|one| one["operation"] == operation);
    let (first, second) = (of_it.next(), of_it.next());
    assert!(second.is_none(), "{operation} was called twice");
    first.unwrap()["parameters"].clone()
}

#[test]
fn the_roots_type_and_further_volumes_are_registered_as_the_recipe_has_them() {
    let Some(yard) = Yard::small() else { return };
    let cloud = StandIn::start();
    let vendors = json!({
        "name": "vendors-1", "disk": base_disk(), "size": 1, "holes": true, "public": true, "snapshot_public": true,
        "volume": { "VolumeType": "io2", "Iops": 500 },
        "mappings": [
            { "DeviceName": "/dev/sdb", "VirtualName": "ephemeral0" },
            { "DeviceName": "/dev/sdc", "VirtualName": "ephemeral1" },
        ],
    });
    let (base, _) = cloud.seed_image(&cloud.other_account(1), vendors);
    let (_, data) =
        cloud.seed_image(cloud.account(), json!({ "name": "data", "disk": base_disk(), "size": 3 }));
    let rest = format!(
        "disk:\n\
         \x20 type: gp3\n\
         \x20 iops: 3000\n\
         \x20 throughput: 250MiB\n\
         \x20 volumes:\n\
         \x20   - {{ device: /dev/sdf, size: 100GiB, type: io2, iops: 10000, delete-on-termination: false }}\n\
         \x20   - {{ device: /dev/sdg, snapshot: {data} }}\n\
         \x20   - {{ device: /dev/sdh, size: 16GiB, type: gp3, iops: 4000, throughput: 500MiB }}\n\
         \x20   - {{ device: /dev/sdb, no-device: true }}\n{STEP}"
    );
    yard.recipe("web", &recipe("web", &format!("{{ image: {base} }}"), &rest));
    let said: Said = cloud.program(&yard).args(["bake", "web"]).output().unwrap().into();
    let image = said.ok().out.trim().to_owned();
    let own = yard.record("web")["images"][0]["snapshot"].clone();
    let wanted = json!([
        { "DeviceName": "/dev/xvda", "Ebs": {
            "SnapshotId": own, "VolumeSize": 1, "VolumeType": "gp3", "Iops": 3000, "Throughput": 250,
            "DeleteOnTermination": true,
        } },
        { "DeviceName": "/dev/sdc", "VirtualName": "ephemeral1" },
        { "DeviceName": "/dev/sdf", "Ebs": {
            "VolumeSize": 100, "VolumeType": "io2", "Iops": 10000, "DeleteOnTermination": false,
        } },
        { "DeviceName": "/dev/sdg", "Ebs": {
            "SnapshotId": data, "VolumeSize": 3, "VolumeType": "gp3", "DeleteOnTermination": true,
        } },
        { "DeviceName": "/dev/sdh", "Ebs": {
            "VolumeSize": 16, "VolumeType": "gp3", "Iops": 4000, "Throughput": 500, "DeleteOnTermination": true,
        } },
    ]);
    assert_eq!(asked(&cloud, "RegisterImage")["BlockDeviceMappings"], wanted);
    // And EC2 has them so.
    let described = cloud.state()["images"][&image]["described"]["BlockDeviceMappings"].clone();
    for (shown, wanted) in described.as_array().unwrap().iter().zip(wanted.as_array().unwrap()) {
        assert_eq!(shown["DeviceName"], wanted["DeviceName"]);
        for (key, value) in wanted["Ebs"].as_object().into_iter().flatten() {
            assert_eq!(shown["Ebs"][key], *value, "{key} of {}", wanted["DeviceName"]);
        }
    }
    cloud.finish();
}

/// The one disk in a yard's work folder.
fn work_disk(yard: &Yard) -> PathBuf {
    let folders = fs::read_dir(yard.work()).unwrap().map(|one| one.unwrap().path().join("disk.raw"));
    let disks: Vec<_> = folders.filter(|disk| disk.exists()).collect();
    assert_eq!(disks.len(), 1, "{disks:?}");
    disks[0].clone()
}

/// A volume of the snapshot has noise wherever nothing was put: what reads as zeros there was put as zeros.
#[test]
fn a_scratch_bake_stores_its_disk_byte_by_byte_zeros_included() {
    let Some(yard) = Yard::small_on_disk() else { return };
    let cloud = StandIn::start();
    let mut command = cloud.program(&yard);
    command.args(["bake", "scratch"]).env("BAKEHOUSE_FAULT", "call:StartSnapshot#1:before:stop");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    until_stopped(child.id());
    let finished = yard.path().join("finished.raw");
    let copied = Command::new("cp").arg("--sparse=always").args([&work_disk(&yard), &finished]).status();
    assert!(copied.unwrap().success());
    continued(child).ok();

    let snapshot = yard.record("scratch")["images"][0]["snapshot"].as_str().unwrap().to_owned();
    let volume = yard.path().join("volume.raw");
    cloud.write_disk(&snapshot, &volume);
    let (disk, volume) = (fs::read(&finished).unwrap(), File::open(&volume).unwrap());
    assert_eq!(disk.len(), 64 << 20);
    let (mut block, mut zeros) = (vec![0; BLOCK], 0);
    for (number, wanted) in disk.chunks(BLOCK).enumerate() {
        volume.read_exact_at(&mut block, (number * BLOCK) as u64).unwrap();
        assert!(block == wanted, "block {number} is not the disk's");
        zeros += u32::from(wanted.iter().all(|byte| *byte == 0));
    }
    assert!(zeros > 0, "no block of the disk is zero: nothing was learned of those");
    assert_eq!(cloud.state()["snapshots"][&snapshot]["own_blocks"], disk.len() / BLOCK);
    cloud.finish();
}

/// ext4 zeroes the rest of a small reserved extent when a part of it is used, of which the loop device makes a hole. The
/// vendor's base has no blocks there: what is not stored reads as noise. In a container /sys is read-only.
#[test]
fn what_ext4_would_zero_in_blocks_that_the_base_lacks_reads_as_zeros() {
    let Some(yard) = Yard::small_on_disk() else { return };
    let cloud = StandIn::start();
    // No `holes`: those of the disk are blocks that the snapshot does not have.
    let vendors =
        json!({ "name": "vendors-1", "disk": base_disk(), "public": true, "snapshot_public": true });
    let (base, _) = cloud.seed_image(&cloud.other_account(1), vendors);
    let steps = "provision:\n\
                 \x20 - shell:\n\
                 \x20     run: |\n\
                 \x20       for n in $(busybox seq 1 200); do\n\
                 \x20         busybox fallocate -l 32768 /srv/reserved-$n\n\
                 \x20         echo used | busybox dd of=/srv/reserved-$n bs=4096 seek=2 conv=notrunc 2>/dev/null\n\
                 \x20       done\n";
    for (name, prepare) in [("writable", ""), ("read-only", "mount -o remount,bind,ro /sys && ")] {
        yard.recipe(name, &recipe(name, &format!("{{ image: {base} }}"), steps));
        let bake = cloud.program(&yard);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{prepare}exec \"$@\""), "sh"]).arg(bake.get_program());
        command.args(["bake", name]).current_dir(yard.path()).env_clear();
        command.envs(bake.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Said::from(command.output().unwrap()).ok();
        let snapshot = yard.record(name)["images"][0]["snapshot"].as_str().unwrap().to_owned();
        let volume = yard.path().join("volume.raw");
        cloud.write_disk(&snapshot, &volume);
        let mut wanted = vec![0; 8192];
        wanted.extend(b"used\n");
        wanted.resize(32768, 0);
        for number in [1, 50, 100, 150, 200] {
            let file = yard.path().join("file");
            let dump = format!("dump /srv/reserved-{number} {}", file.display());
            let read = Command::new("debugfs").args(["-R", &dump]).arg(&volume).output().unwrap();
            assert!(read.status.success(), "{read:?}");
            assert!(fs::read(&file).unwrap() == wanted, "{name}: reserved-{number} is not what was written");
        }
    }
    cloud.finish();
}
