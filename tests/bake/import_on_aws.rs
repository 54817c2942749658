//! The same on AWS, as its stand-in has it: a whole direct bake of a vendor's base, by the program.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::aws::StandIn;
use crate::yard::Yard;
use crate::yard::small::recipe;

const STEP: &str = "provision:\n  - shell: { run: 'echo made >/etc/made' }\n";

struct Vendors {
    yard: Yard,
    cloud: StandIn,
    base: String,
    /// What DescribeImages says of it.
    described: Value,
    snapshot: String,
}

/// A public base of another account with everything that an image can have.
fn vendors() -> Option<Vendors> {
    let yard = Yard::small()?;
    let cloud = StandIn::start();
    // As slow and as scattered as AWS may be.
    cloud.settings(json!({
        "put_not_found_seconds": 0.5, "complete_seconds": 0.5, "image_seconds": 0.5, "list_not_found_seconds": 0.5,
        "page_blocks": 50,
    }));
    let vendor = cloud.other_account(1);
    // On disk: what a yard has in memory is seen by its own thread alone, and the stand-in is everybody's.
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let (base, snapshot) = cloud.seed_image(
        &vendor,
        json!({
            "name": "vendors-1", "disk": disk, "size": 1, "holes": true, "public": true, "snapshot_public": true,
            "uefi_data": "QUJD",
            "fields": {
                "Architecture": "x86_64", "VirtualizationType": "hvm", "EnaSupport": true, "RootDeviceName": "/dev/xvda",
                "BootMode": "uefi", "TpmSupport": "v2.0", "ImdsSupport": "v2.0", "SriovNetSupport": "simple",
            },
            "volume": { "VolumeType": "gp3", "Iops": 4000, "Throughput": 250 },
            "mappings": [{ "DeviceName": "/dev/sdb", "VirtualName": "ephemeral0" }],
        }),
    );
    let described = cloud.state_of(&vendor)["images"][&base]["described"].clone();
    for name in ["web", "app"] {
        yard.recipe(name, &recipe(name, &format!("{{ image: {base} }}"), STEP));
    }
    Some(Vendors { yard, cloud, base, described, snapshot })
}

impl Vendors {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.yard.command();
        command.args(args).env_remove("BAKEHOUSE_LOCAL").envs(self.cloud.environment());
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> crate::yard::Said {
        crate::yard::Said::from(self.command(args).output().unwrap()).ok()
    }

    fn imports(&self) -> Vec<String> {
        let state = self.cloud.state();
        let images = state["images"].as_object().unwrap();
        let of = |image: &Value| image["tags"]["bakehouse:import"] == self.base.as_str();
        images.iter().filter(|(_, image)| of(image)).map(|(id, _)| id.clone()).collect()
    }
}

/// What a bake may never change of its base without being told.
fn attributes(described: &Value) -> Value {
    let mut kept = serde_json::Map::new();
    for name in [
        "Architecture",
        "VirtualizationType",
        "EnaSupport",
        "RootDeviceName",
        "RootDeviceType",
        "BootMode",
        "TpmSupport",
        "ImdsSupport",
        "SriovNetSupport",
        "PlatformDetails",
        "UsageOperation",
        "ProductCodes",
        "BlockDeviceMappings",
    ] {
        kept.insert(name.to_owned(), described[name].clone());
    }
    for mapping in kept["BlockDeviceMappings"].as_array_mut().unwrap() {
        if let Some(ebs) = mapping.get_mut("Ebs").and_then(Value::as_object_mut) {
            ebs.remove("SnapshotId");
        }
    }
    kept.into()
}

#[test]
fn a_vendors_base_is_imported_once_and_baked_with_all_that_it_has() {
    let Some(vendors) = vendors() else { return };
    let plan = vendors.run(&["plan", "web"]);
    assert!(plan.out.contains(&format!("will import {} once", vendors.base)), "{}", plan.out);
    assert!(!vendors.cloud.operations().iter().any(|call| call.contains("CopyImage")));
    let web = vendors.run(&["bake", "web"]);
    let imports = vendors.imports();
    assert_eq!(imports.len(), 1);
    let record = vendors.yard.record("web");
    assert_eq!(record["base"]["image"]["import"], imports[0].as_str());

    let state = vendors.cloud.state();
    let image = &state["images"][web.out.trim()];
    assert_eq!(attributes(&image["described"]), attributes(&vendors.described));
    assert_eq!(image["uefi_data"], "QUJD");
    assert_eq!(image["tags"]["bakehouse:base"], vendors.base.as_str());
    // The child has the import's blocks and its own; the vendor's was never read.
    let parent = record["base"]["image"]["snapshot"].as_str().unwrap();
    let own = image["snapshots"][0].as_str().unwrap();
    assert_eq!(state["snapshots"][own]["parent"], parent);
    assert_ne!(parent, vendors.snapshot);
    assert_eq!(state["snapshots"][own]["own_blocks"], record["disk"]["changed-blocks"]);
    let disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_temp_path();
    vendors.cloud.write_disk(own, &disk);
    let bytes = std::fs::read(&disk).unwrap();
    assert!(bytes.windows(5).any(|five| five == b"made\n"));
    let checked = Command::new("e2fsck").args(["-fn"]).arg(&*disk).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    // The next bake, of another family, has the import.
    vendors.run(&["bake", "app"]);
    assert_eq!(vendors.imports(), imports);
    let copies = vendors.cloud.operations().iter().filter(|call| *call == "ec2:CopyImage").count();
    assert_eq!(copies, 1);
    vendors.run(&["sweep"]);
    assert_eq!(vendors.imports(), imports);
    vendors.cloud.finish();
}

#[test]
fn two_bakes_at_once_make_one_import_on_aws() {
    let Some(vendors) = vendors() else { return };
    let begin = |name: &str| {
        let mut command = vendors.command(&["bake", name]);
        // Both have looked for an import, and neither has made one.
        command.env("BAKEHOUSE_FAULT", "call:CopyImage#1:before:stop");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = ["web", "app"].map(begin);
    for child in &both {
        crate::faults::run::until_stopped(child.id());
    }
    let both = both.map(|child| std::thread::spawn(|| crate::faults::run::continued(child)));
    for ended in both {
        ended.join().unwrap().ok();
    }
    let imports = vendors.imports();
    assert_eq!(imports.len(), 1);
    for name in ["web", "app"] {
        assert_eq!(vendors.yard.record(name)["base"]["image"]["import"], imports[0].as_str());
    }
    vendors.cloud.finish();
}
