//! Plans, as pure tables: a recipe and facts in, a plan or an error out.

use jiff::Timestamp;

use super::*;
use crate::cloud::{AccountId, ImageState, Key, Partition, Region};
use crate::recipe::Recipe;

fn recipe(rest: serde_json::Value) -> Recipe {
    let mut whole = serde_json::json!({
        "version": 1,
        "name": "web",
        "architecture": "x86_64",
        "base": { "family": "os-base" },
    });
    for (key, value) in rest.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn place() -> Place {
    Place {
        partition: Partition::local(),
        account: AccountId::parse("000000000000").unwrap(),
        region: Region::parse("local").unwrap(),
    }
}

fn base() -> Image {
    Image {
        id: ImageId::parse("ami-0123456789abcdef0").unwrap(),
        owner: place().account,
        name: "os-base-1".into(),
        description: String::new(),
        state: ImageState::Available,
        state_reason: None,
        created: Timestamp::UNIX_EPOCH,
        attributes: ImageAttributes {
            architecture: Architecture::X86_64,
            boot_mode: Some(BootMode::UefiPreferred),
            ena: true,
            sriov: None,
            imds_v2: true,
            tpm: false,
            uefi_data: Some("AAAA".into()),
            root_device: "/dev/sda1".into(),
            devices: vec![
                BlockDevice {
                    name: "/dev/sda1".into(),
                    ebs: Some(EbsDisk {
                        snapshot: SnapshotId::parse("snap-0123456789abcdef0"),
                        size: 4,
                        kind: DiskType::Gp2,
                        iops: None,
                        throughput: None,
                        delete_on_termination: true,
                    }),
                    virtual_name: None,
                },
                BlockDevice { name: "/dev/sdb".into(), ebs: None, virtual_name: Some("ephemeral0".into()) },
            ],
        },
        tags: Tags::new(),
        usage_operation: "RunInstances".into(),
        platform: "Linux/UNIX".into(),
        product_codes: vec![],
    }
}

fn facts(base: BaseFacts) -> Facts {
    Facts {
        bake: "bake-1".into(),
        now: "2026-03-04T05:06:07Z".parse().unwrap(),
        wall: "2026-03-05T05:06:07Z".parse().unwrap(),
        place: place(),
        host: Architecture::X86_64,
        base,
        encryption: EncryptionFacts::default(),
        volumes: std::collections::BTreeMap::new(),
        name_taken: false,
        source: Source::default(),
        inputs: Inputs::new(),
        warnings: vec![],
    }
}

fn on(image: Image) -> Facts {
    let lineage = vec![image.id.clone()];
    facts(BaseFacts::Image { image: Box::new(image), lineage, key: None, copyable: true, own: vec![] })
}

fn scratch() -> Facts {
    let scratch = serde_json::json!({ "distribution": "debian", "suite": "bookworm" });
    facts(BaseFacts::Scratch(serde_json::from_value(scratch).unwrap()))
}

fn error(recipe: &Recipe, facts: &Facts) -> String {
    make(recipe, facts).unwrap_err().to_string()
}

#[test]
fn a_plain_image_is_baked_directly_with_every_attribute_of_its_base() {
    let plan = make(&recipe(serde_json::json!({})), &on(base())).unwrap();
    assert_eq!(plan.method, MethodKind::Direct);
    assert_eq!(plan.attributes, base().attributes);
    assert_eq!(plan.image_name, "web-20260304-050607");
    assert_eq!(plan.tags[&tag("base")], "ami-0123456789abcdef0");
    assert_eq!(plan.tags[&tag("family")], "web");
    // By the real time: `now` may be a commit's.
    assert_eq!(plan.temporary_tags()[&tag("expires")], "2026-03-05T17:06:07Z");
    assert!(!plan.tags.contains_key(&tag("expires")));
}

#[test]
fn a_base_from_scratch_has_an_image_made_for_ec2() {
    let plan = make(&recipe(serde_json::json!({})), &scratch()).unwrap();
    assert_eq!(plan.method, MethodKind::Scratch);
    assert_eq!(plan.attributes.boot_mode, Some(BootMode::UefiPreferred));
    assert!(plan.attributes.ena && plan.attributes.imds_v2);
    assert_eq!(plan.attributes.root_device, "/dev/xvda");
}

#[test]
fn a_root_from_scratch_lies_on_ext4_or_what_the_recipe_says() {
    let usual = make(&recipe(serde_json::json!({})), &scratch()).unwrap();
    assert!(usual.to_string().contains("Debian bookworm from its packages, on ext4\n"), "{usual}");
    let on_xfs = recipe(serde_json::json!({ "disk": { "filesystem": "xfs" } }));
    let plan = make(&on_xfs, &scratch()).unwrap();
    let BasePlan::Scratch { filesystem, .. } = plan.base else { panic!("{plan}") };
    assert_eq!(filesystem, RootFilesystem::Xfs);
    assert!(plan.to_string().contains("on xfs\n"), "{plan}");
    assert_ne!(plan.fingerprint, usual.fingerprint);
}

#[test]
fn bases_with_billing_codes_are_refused_by_name() {
    type Change = fn(&mut Image);
    let cases: [(Change, &str); 3] = [
        (|image| image.usage_operation = "RunInstances:0010".into(), "RunInstances:0010"),
        (|image| image.platform = "Windows".into(), "Windows"),
        (|image| image.product_codes.push("abc".into()), "abc"),
    ];
    for (change, named) in cases {
        let mut image = base();
        change(&mut image);
        let error = error(&recipe(serde_json::json!({ "method": "direct" })), &on(image));
        assert!(error.contains(named) && error.contains("ami-0123456789abcdef0"), "{error}");
    }
}

#[test]
fn what_the_base_cannot_give_is_an_error_that_names_the_key() {
    let cases = [
        (serde_json::json!({ "disk": { "size": "2GiB" } }), "disk.size"),
        (serde_json::json!({ "image": { "imds": "optional" } }), "image.imds"),
        (serde_json::json!({ "method": "scratch" }), "method"),
        (serde_json::json!({ "architecture": "arm64" }), "architecture"),
        (serde_json::json!({ "image": { "name": "web-{commit}" } }), "image.name"),
    ];
    for (rest, key) in cases {
        let error = error(&recipe(rest), &on(base()));
        assert!(error.starts_with(key), "{error}");
    }
    let direct = error(&recipe(serde_json::json!({ "method": "direct" })), &scratch());
    assert!(direct.starts_with("method"), "{direct}");
    let elsewhere = Facts { host: Architecture::Arm64, ..scratch() };
    let arm = error(&recipe(serde_json::json!({ "architecture": "arm64" })), &elsewhere);
    assert!(arm.starts_with("base.scratch") && arm.contains("x86_64 only"), "{arm}");
}

#[test]
fn a_name_that_exists_is_an_error_before_anything_is_made() {
    let mut facts = on(base());
    let fixed = recipe(serde_json::json!({ "image": { "name": "fixed" } }));
    assert!(make(&fixed, &facts).unwrap().check_name().is_ok());
    facts.name_taken = true;
    let error = make(&fixed, &facts).unwrap().check_name().unwrap_err().to_string();
    assert!(error.contains("`fixed` exists"), "{error}");
}

#[test]
fn names_are_filled_in_and_keep_to_ec2s_rule() {
    let mut facts = on(base());
    facts.source.commit = Some("0123456789abcdef0123".into());
    let named = |name: &str| make(&recipe(serde_json::json!({ "image": { "name": name } })), &facts);
    assert_eq!(named("{name}-{architecture}-{commit}").unwrap().image_name, "web-x86_64-0123456789ab");
    for bad in ["a", "what?", &"x".repeat(129)] {
        assert!(named(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_fingerprint_is_of_the_recipe_the_base_and_the_inputs() {
    let fingerprint = |recipe: &Recipe, facts: &Facts| make(recipe, facts).unwrap().fingerprint;
    let same = recipe(serde_json::json!({}));
    let first = fingerprint(&same, &on(base()));
    let mut later = on(base());
    later.now = "2027-01-01T00:00:00Z".parse().unwrap();
    later.bake = "bake-2".into();
    assert_eq!(first, fingerprint(&same, &later));
    let mut other = on(base());
    other.inputs.insert("a".into(), Input { sha256: None, link: None, mode: "0755".into(), owner: None });
    assert_ne!(first, fingerprint(&same, &other));
    let mut newer = base();
    newer.id = ImageId::parse("ami-0123456789abcdef1").unwrap();
    assert_ne!(first, fingerprint(&same, &on(newer)));
    assert_ne!(first, fingerprint(&recipe(serde_json::json!({ "disk": { "size": "8GiB" } })), &on(base())));
}

#[test]
fn a_plan_says_its_method_and_why_and_survives_its_json() {
    let plan = make(&recipe(serde_json::json!({ "disk": { "size": "8GiB" } })), &on(base())).unwrap();
    let text = plan.to_string();
    assert!(text.contains("direct: ") && text.contains("8 GiB") && text.contains("os-base-1"), "{text}");
    let json = serde_json::to_string(&plan).unwrap();
    let back: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!(back.to_string(), text);
}

fn foreign() -> Facts {
    let mut image = base();
    image.owner = AccountId::parse("111111111111").unwrap();
    on(image)
}

/// Changes what is known of the base.
fn with_base(mut facts: Facts, key: Option<&str>, copyable: bool, own: Vec<Image>) -> Facts {
    let BaseFacts::Image { image, lineage, .. } = facts.base else { panic!("no image") };
    facts.base = BaseFacts::Image { image, lineage, key: key.map(str::to_owned), copyable, own };
    facts
}

fn import(plan: &Plan) -> &Import {
    let BasePlan::Image { import: Some(import), .. } = &plan.base else { panic!("{plan}") };
    import
}

#[test]
fn a_base_of_another_account_is_imported_under_a_name_that_all_bakes_share() {
    let plan = make(&recipe(serde_json::json!({})), &foreign()).unwrap();
    let mut later = foreign();
    later.bake = "bake-2".into();
    let again = make(&recipe(serde_json::json!({ "name": "other" })), &later).unwrap();
    assert_eq!(import(&plan).name, import(&again).name);
    assert!(!import(&plan).tags.contains_key(&tag("expires")));
    assert_eq!(import(&plan).tags[&tag("import")], "ami-0123456789abcdef0");
    assert!(plan.to_string().contains("will import ami-0123456789abcdef0 once"), "{plan}");
    assert!(plan.to_string().contains("if its root turns out to be LVM"), "{plan}");

    let mut copy = base();
    copy.id = ImageId::parse("ami-0123456789abcdef9").unwrap();
    copy.name.clone_from(&import(&plan).name);
    copy.tags.insert(tag(LAYOUT), "ext4 on partition 1".into());
    let facts = with_base(foreign(), None, true, vec![copy.clone()]);
    let found = make(&recipe(serde_json::json!({})), &facts).unwrap();
    assert_eq!(import(&found).found, Some(copy.id.clone()));
    assert!(!found.to_string().contains("LVM"), "{found}");
    // One that failed is not counted as here.
    copy.state = ImageState::Failed;
    let failed = make(&recipe(serde_json::json!({})), &with_base(foreign(), None, true, vec![copy]));
    assert_eq!(import(&failed.unwrap()).found, None);
}

#[test]
fn what_direct_cannot_take_is_launched_or_refused_with_launch_as_advice() {
    let (auto, direct) = (recipe(serde_json::json!({})), recipe(serde_json::json!({ "method": "direct" })));
    let mut lvm = base();
    lvm.name.clone_from(&import(&make(&auto, &foreign()).unwrap()).name);
    lvm.tags.insert(tag(LAYOUT), format!("{REFUSED}an LVM physical volume"));
    let cases = [
        (with_base(foreign(), None, false, vec![]), "cannot be copied"),
        (with_base(foreign(), None, true, vec![lvm]), "an LVM physical volume"),
    ];
    for (facts, why) in cases {
        let plan = make(&auto, &facts).unwrap();
        assert_eq!(plan.method, MethodKind::Launch);
        assert!(plan.why.contains(why), "{}", plan.why);
        let refused = error(&direct, &facts);
        assert!(refused.contains(why) && refused.contains("method: launch"), "{refused}");
    }
}

/// By wish alone, with the base that the direct method would take and the same import.
#[test]
fn a_volume_is_attached_where_the_recipe_asks_for_it_and_nowhere_else() {
    let chroot = recipe(serde_json::json!({ "method": "chroot" }));
    let plan = make(&chroot, &on(base())).unwrap();
    assert_eq!(plan.method, MethodKind::Chroot);
    assert_eq!(plan.attributes, base().attributes);
    let told = plan.to_string();
    assert!(
        told.contains("chroot: the recipe asks for it") && told.contains("one snapshot of a volume"),
        "{told}"
    );
    let direct = make(&recipe(serde_json::json!({ "method": "direct" })), &foreign()).unwrap();
    let plan = make(&chroot, &foreign()).unwrap();
    assert_eq!(import(&plan), import(&direct));
    assert!(plan.to_string().contains("the import, which stays; one snapshot of a volume"), "{plan}");
    // What registering would lose, it loses by any method that registers.
    let mut billed = base();
    billed.product_codes.push("abc".into());
    let refused = error(&chroot, &on(billed));
    assert!(refused.contains("by the chroot method") && refused.contains("method: launch"), "{refused}");
    let refused = error(&chroot, &scratch());
    assert!(refused.starts_with("method: chroot cannot be used"), "{refused}");
    let auto = recipe(serde_json::json!({}));
    assert_eq!(make(&auto, &with_base(foreign(), None, false, vec![])).unwrap().method, MethodKind::Launch);
}

/// An image of an instance boots as that did, and has its volumes: nothing is promised that is not kept.
#[test]
fn what_an_image_of_an_instance_cannot_have_is_refused() {
    let cases = [
        (
            "disk.volumes",
            serde_json::json!({ "disk": { "volumes": [{ "device": "/dev/sdf", "size": "1GiB" }] } }),
        ),
        ("image.boot-mode", serde_json::json!({ "image": { "boot-mode": "uefi" } })),
    ];
    for (key, mut rest) in cases {
        rest["method"] = "launch".into();
        let refused = error(&recipe(rest), &on(base()));
        assert!(refused.starts_with(key) && refused.contains("launch"), "{key}: {refused}");
    }
}

/// EC2 encrypts the volumes of an instance as it makes them, whatever their snapshots are: no copy is made for it.
#[test]
fn an_instance_has_the_disk_and_the_key_that_the_recipe_names() {
    let arn = "arn:aws:kms:eu-west-1:123456789012:key/a";
    let key = Key {
        arn: arn.to_owned(),
        enabled: true,
        state: "Enabled".to_owned(),
        symmetric: true,
        aws_managed: false,
    };
    let disk =
        serde_json::json!({ "type": "gp3", "iops": 4000, "throughput": "250MiB", "encrypt": "alias/a" });
    let launched =
        recipe(serde_json::json!({ "method": "launch", "disk": disk, "image": { "imds": "required" } }));
    for own in [true, false] {
        let mut facts = if own { on(base()) } else { foreign() };
        facts.encryption.key = Some(key.clone());
        let plan = make(&launched, &facts).unwrap();
        assert_eq!(plan.encryption.key.as_deref(), Some(arn));
        assert_eq!(plan.encryption.told, format!("with {arn}"));
        let wanted = VolumeKind { kind: DiskType::Gp3, iops: Some(4000), throughput: Some(250) };
        assert_eq!(plan.root_volume, Some(wanted));
        assert!(plan.attributes.imds_v2);
        assert!(matches!(plan.base, BasePlan::Image { import: None, .. }));
    }
}

#[test]
fn the_accounts_default_and_the_recipes_key_decide_whether_an_own_base_is_copied() {
    let plain = recipe(serde_json::json!({}));
    let mut facts = on(base());
    facts.encryption.by_default = Some(true);
    let plan = make(&plain, &facts).unwrap();
    assert!(import(&plan).why.contains("encrypts by default"), "{}", import(&plan).why);
    let off = recipe(serde_json::json!({ "disk": { "encrypt": false } }));
    let refused = error(&off, &facts);
    assert!(refused.starts_with("disk.encrypt"), "{refused}");
    let encrypted = with_base(facts, Some("arn:aws:kms:eu-west-1:123456789012:key/a"), true, vec![]);
    let plan = make(&plain, &encrypted).unwrap();
    assert!(matches!(plan.base, BasePlan::Image { import: None, .. }));
    assert!(error(&off, &with_base(on(base()), Some("k"), true, vec![])).starts_with("disk.encrypt"));
}

#[test]
fn volumes_are_the_bases_and_what_the_recipe_says_of_them() {
    let disk = serde_json::json!({ "disk": {
        "type": "gp3", "iops": 4000, "throughput": "250MiB",
        "volumes": [
            { "device": "/dev/sdb", "no-device": true },
            { "device": "/dev/sdf", "size": "20GiB", "delete-on-termination": false },
            { "device": "/dev/sdg", "snapshot": "snap-0123456789abcdef7" },
        ],
    } });
    let snapshot = SnapshotId::parse("snap-0123456789abcdef7").unwrap();
    let mut facts = on(base());
    facts.volumes.insert(snapshot.clone(), 3);
    let devices = make(&recipe(disk), &facts).unwrap().attributes.devices;
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["/dev/sda1", "/dev/sdf", "/dev/sdg"]);
    let ebs: Vec<_> = devices.into_iter().map(|device| device.ebs.unwrap()).collect();
    assert_eq!((ebs[0].kind, ebs[0].iops, ebs[0].throughput), (DiskType::Gp3, Some(4000), Some(250)));
    assert_eq!((ebs[1].size, ebs[1].kind, ebs[1].delete_on_termination), (20, DiskType::Gp3, false));
    assert_eq!((ebs[2].size, ebs[2].snapshot.as_ref()), (3, Some(&snapshot)));
    let volumes = |volume: serde_json::Value| recipe(serde_json::json!({ "disk": { "volumes": [volume] } }));
    for wrong in [
        serde_json::json!({ "device": "/dev/sda1", "size": "9GiB" }),
        serde_json::json!({ "device": "/dev/sdz", "no-device": true }),
        serde_json::json!({ "device": "/dev/sdg", "size": "2GiB", "snapshot": "snap-0123456789abcdef7" }),
    ] {
        let told = error(&volumes(wrong), &facts);
        assert!(told.starts_with("disk.volumes"), "{told}");
    }
}
