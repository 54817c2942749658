//! Instances that really run, of a boot sector that writes to the serial port: no system is needed to see a launch, a
//! console, an end.

use bakehouse::cloud::{
    BootMode, Cloud, ErrorKind, Image, InstanceId, InstanceQuery, InstanceState, NewInstance, Tags, Token,
};

use bakehouse::host::stop::Stop;
use bakehouse::local::qemu::{DiskBus, Session, interactive};

use crate::gate;
use crate::stored;

pub const TOOLS: [&str; 4] = ["qemu-system-x86_64", "flock", "timeout", "setsid"];
pub const WORDS: &str = "the boot sector speaks\r\n";

/// Writes [`WORDS`] to the first serial port; then powers off by ACPI (port 0x604, as SeaBIOS sets QEMU's `pc` up) or
/// halts for ever.
pub fn boot_sector(power_off: bool) -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, 0xfc, // xor %ax,%ax; mov %ax,%ds; cld
        0xbe, 0x80, 0x7c, 0xba, 0xf8, 0x03, // mov $0x7c80,%si; mov $0x3f8,%dx
        0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb,
        0xf8, // 1: lodsb; test %al,%al; jz 2f; out %al,%dx; jmp 1b
    ];
    if power_off {
        code.extend([0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef]); // 2: mov $0x604,%dx; mov $0x2000,%ax; out %ax,%dx
    }
    code.extend([0xfa, 0xf4, 0xeb, 0xfd]); // cli; 3: hlt; jmp 3b
    code.resize(512, 0);
    code[0x80..0x80 + WORDS.len()].copy_from_slice(WORDS.as_bytes());
    code[510..].copy_from_slice(&[0x55, 0xaa]);
    code
}

fn new(image: &Image) -> NewInstance {
    NewInstance {
        image: image.id.clone(),
        kind: None,
        user_data: b"#!/bin/sh\n".to_vec(),
        boot_mode: None,
        root_size: None,
        lifetime_seconds: 120,
        build: None,
        tags: Tags::from([("bakehouse:bake".to_owned(), "test".to_owned())]),
    }
}

fn token(text: &str) -> Token {
    Token::of("test", text, 1)
}

async fn until_state(cloud: &Cloud, id: &InstanceId, wanted: InstanceState) -> Option<String> {
    // More than a machine that is busy needs; a hang ends here and says so.
    for _ in 0..1200 {
        let found = cloud.instances.describe(id).await.unwrap();
        if found.state == wanted {
            return found.reason;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{id} never became {wanted:?}");
}

async fn until_spoken(cloud: &Cloud, id: &InstanceId) {
    for _ in 0..1200 {
        let text = cloud.instances.console(id).await.unwrap();
        if text.windows(WORDS.len()).any(|window| window == WORDS.as_bytes()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{id} wrote nothing to its console");
}

#[tokio::test]
async fn an_instance_lives_speaks_and_is_terminated() {
    if !gate::has(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cloud, _) = stored::cloud(dir.path());
    let image = stored::image(&cloud, boot_sector(false).as_slice(), 1, None).await;

    let id = cloud.instances.launch(&new(&image), &token("a")).await.unwrap();
    until_state(&cloud, &id, InstanceState::Running).await;
    until_spoken(&cloud, &id).await;

    // The same token is the same instance; another request under it is refused.
    let again = cloud.instances.launch(&new(&image), &token("a")).await.unwrap();
    assert_eq!(again, id);
    let other = NewInstance { lifetime_seconds: 121, ..new(&image) };
    let error = cloud.instances.launch(&other, &token("a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exists);

    let about = cloud.instances.describe(&id).await.unwrap();
    assert_eq!(about.image, image.id);
    assert_eq!(about.tags["bakehouse:bake"], "test");
    // It is found by its tags, and by what it is.
    let query = |key: &str, value: &str| InstanceQuery {
        tags: Tags::from([(key.to_owned(), value.to_owned())]),
        tag_keys: vec![key.to_owned()],
        ..InstanceQuery::default()
    };
    let found = cloud.instances.find(&query("bakehouse:bake", "test")).await.unwrap();
    assert_eq!(found.iter().map(|one| (&one.id, one.state)).collect::<Vec<_>>(), [(&id, about.state)]);
    assert!(cloud.instances.find(&query("bakehouse:bake", "other")).await.unwrap().is_empty());

    cloud.instances.terminate(&id).await.unwrap();
    let reason = until_state(&cloud, &id, InstanceState::Terminated).await;
    assert_eq!(reason.as_deref(), Some("terminated by the user"));
    cloud.instances.terminate(&id).await.unwrap();
    // Its console is still there, its disk is not.
    until_spoken(&cloud, &id).await;
    let disks = files_named(dir.path(), "disk.raw");
    assert!(disks.is_empty(), "{disks:?}");
}

#[tokio::test]
async fn a_guest_that_powers_off_is_terminated_and_its_disk_goes_with_the_next_launch() {
    if !gate::has(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cloud, _) = stored::cloud(dir.path());
    let image = stored::image(&cloud, boot_sector(true).as_slice(), 1, None).await;
    let virtio = NewInstance { kind: Some("qemu.virtio".to_owned()), ..new(&image) };
    let first = cloud.instances.launch(&virtio, &token("first")).await.unwrap();
    let reason = until_state(&cloud, &first, InstanceState::Terminated).await.unwrap();
    assert!(reason.contains("powered itself off"), "{reason}");
    until_spoken(&cloud, &first).await;
    let second = cloud.instances.launch(&virtio, &token("second")).await.unwrap();
    until_state(&cloud, &second, InstanceState::Terminated).await;
    cloud.instances.terminate(&second).await.unwrap();
    let disks = files_named(dir.path(), "disk.raw");
    assert!(disks.is_empty(), "{disks:?}");
}

#[tokio::test]
async fn an_instance_ends_by_itself_when_its_life_is_over() {
    if !gate::has(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cloud, _) = stored::cloud(dir.path());
    let image = stored::image(&cloud, boot_sector(false).as_slice(), 1, None).await;
    let brief = NewInstance { lifetime_seconds: 2, ..new(&image) };
    let id = cloud.instances.launch(&brief, &token("brief")).await.unwrap();
    let reason = until_state(&cloud, &id, InstanceState::Terminated).await.unwrap();
    assert!(reason.contains("life of 2 s was over"), "{reason}");
    cloud.instances.terminate(&id).await.unwrap();
}

#[tokio::test]
async fn a_session_on_the_terminal_ends_with_the_guest_and_leaves_the_disk_as_it_was() {
    if !gate::has(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cloud, _) = stored::cloud(&dir.path().join("store"));
    let mut content = boot_sector(true);
    let image = stored::image(&cloud, content.as_slice(), 1, None).await;
    // SeaBIOS takes a disk of one sector for none.
    content.resize(1 << 20, 0);
    let disk = dir.path().join("disk.raw");
    std::fs::write(&disk, &content).unwrap();
    let folder = dir.path().join("session");
    std::fs::create_dir(&folder).unwrap();
    let session = Session {
        image: &image,
        disk: &disk,
        folder: &folder,
        memory: &dir.path().join("emulator.json"),
        program: std::path::Path::new(env!("CARGO_BIN_EXE_bakehouse")),
        boot_mode: None,
        bus: DiskBus::Virtio,
        user_data: b"",
    };
    let exit = interactive(session, &Stop::never()).await.unwrap();
    assert_eq!(exit.code, 0);
    assert!(std::fs::read(&disk).unwrap() == content);
    // The throw-away layer went with QEMU.
    let mut left: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["metadata.json", "user-data"]);
}

#[tokio::test]
async fn wrong_requests_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, _) = stored::cloud(dir.path());
    let image = stored::image(&cloud, boot_sector(false).as_slice(), 1, Some(BootMode::LegacyBios)).await;
    let good = new(&image);
    let wrong = [
        NewInstance { user_data: vec![0; 16 * 1024 + 1], ..good.clone() },
        NewInstance { kind: Some("t3.small".to_owned()), ..good.clone() },
        NewInstance { boot_mode: Some(BootMode::Uefi), ..good.clone() },
        NewInstance { root_size: Some(0), ..good.clone() },
        NewInstance { lifetime_seconds: 0, ..good.clone() },
    ];
    for (number, request) in wrong.iter().enumerate() {
        let error = cloud.instances.launch(request, &token(&number.to_string())).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{number}: {error}");
    }
    let missing = NewInstance { image: bakehouse::cloud::ImageId::parse("ami-01234567").unwrap(), ..good };
    let error = cloud.instances.launch(&missing, &token("missing")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(files_named(dir.path(), "instance.json").is_empty());

    let nobody = InstanceId::parse("i-0123456789abcdef0").unwrap();
    for error in [
        cloud.instances.describe(&nobody).await.unwrap_err(),
        cloud.instances.console(&nobody).await.unwrap_err(),
        cloud.instances.terminate(&nobody).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::NotFound);
    }
}

fn files_named(folder: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_named(&path, name));
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found
}
