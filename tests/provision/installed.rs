//! Lists of packages in each format that rpm has had, with headers as rpm itself writes them.

use std::path::Path;

use bakehouse::host::exec::Cmd;
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use bakehouse::provision::{PackageFormat, installed};

use super::repository::{self, Package};
use crate::gate;

/// Takes the headers out of SQLite's database, and writes them as text for db_load and as ndb (rpm's sources,
/// lib/backend/ndb/rpmpkg.c).
const CONVERT: &str = r#"
import sqlite3, struct, zlib
headers = sqlite3.connect("rpmdb.sqlite").execute("SELECT hnum, blob FROM Packages ORDER BY hnum").fetchall()
with open("dump", "w") as dump:
    dump.write("VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END\n")
    for key, value in [(0, struct.pack("<I", headers[-1][0])), *headers]:
        dump.write(" %s\n %s\n" % (struct.pack("<I", key).hex(), value.hex()))
    dump.write("DATA=END\n")
slots, blobs = [], b""
for number, header in headers:
    blob = struct.pack("<4s3I", b"BlbS", number, 1, len(header)) + header
    blob += bytes(-(len(blob) + 12) % 16)
    blob += struct.pack("<2I4s", zlib.adler32(blob), len(header), b"BlbE")
    slots.append(struct.pack("<4s3I", b"Slot", number, (4096 + len(blobs)) // 16, len(blob) // 16))
    blobs += blob
slots += [struct.pack("<4s3I", b"Slot", 0, 0, 0)] * (254 - len(slots))
with open("Packages.db", "wb") as ndb:
    ndb.write(struct.pack("<4s7I", b"RpmP", 0, 1, 1, headers[-1][0] + 1, 0, 0, 0) + b"".join(slots) + blobs)
"#;

#[tokio::test]
async fn rpms_lists_of_every_format_say_the_same() {
    if !gate::has(&["rpm", "rpmbuild", "python3", "db_load"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    let run = async |command: Cmd| command.cwd(dir.path()).run(&Stop::never()).await.unwrap();
    let packages = [
        Package("app", "1.0~rc1-3", "Epoch: 2\n"),
        Package("kernel", "6.1-1", ""),
        Package("kernel", "6.2-1", ""),
    ];
    repository::build(&at("made"), &packages).await;
    let files = std::fs::read_dir(at("made")).unwrap().map(|entry| entry.unwrap().path());
    let rpm = || Cmd::new("rpm").arg("--dbpath").arg(dir.path());
    run(rpm().arg("--initdb")).await;
    run(rpm().args(["--install", "--justdb", "--nodeps", "--force"]).args(files)).await;
    run(Cmd::new("python3").args(["-c", CONVERT])).await;
    run(Cmd::new("db_load").args(["-f", "dump", "Packages"])).await;

    for file in ["rpmdb.sqlite", "Packages.db", "Packages"] {
        for folder in ["var/lib/rpm", "usr/lib/sysimage/rpm"] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            std::fs::copy(at(file), root.path().join(folder).join(file)).unwrap();
            assert_eq!(
                listed(root.path()).await,
                ["app 2:1.0~rc1-3", "kernel 6.1-1", "kernel 6.2-1"],
                "{file}"
            );
        }
    }
}

async fn listed(root: &Path) -> Vec<String> {
    let found = installed(&RootDir::open(root).unwrap(), &Stop::never()).await.unwrap();
    assert_eq!(found.system.packages, Some(PackageFormat::Rpm));
    assert!(found.packages.iter().all(|package| package.architecture == "noarch"));
    found.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect()
}
