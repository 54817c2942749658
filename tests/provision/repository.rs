//! A folder of rpm packages as a source for dnf, yum and zypper: tiny packages, made here.

use std::path::Path;

use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;

/// What the tests need to make one.
pub const TOOLS: [&str; 3] = ["rpmbuild", "createrepo_c", "modifyrepo_c"];

/// A package: its name, `version-release`, and the rest of its spec file, which may hold lines of its preamble, then
/// sections.
pub struct Package<'a>(pub &'a str, pub &'a str, pub &'a str);

/// Builds packages into a folder.
pub async fn build(folder: &Path, packages: &[Package<'_>]) {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    for Package(name, version, rest) in packages {
        let (version, release) = version.split_once('-').unwrap();
        // Sections begin with a `%` at the beginning of a line.
        let lines = || rest.split_inclusive('\n');
        let preamble: String = lines().take_while(|line| !line.starts_with('%')).collect();
        let sections: String = lines().skip_while(|line| !line.starts_with('%')).collect();
        let files = if sections.contains("%files") { "" } else { "%files\n" };
        let text = format!(
            "Name: {name}\nVersion: {version}\nRelease: {release}\nSummary: for a test\nLicense: none\nBuildArch: noarch\n\
             {preamble}\n%description\nFor a test.\n{sections}\n{files}"
        );
        let spec = top.path().join(format!("{name}.spec"));
        std::fs::write(&spec, text).unwrap();
        let define = |name: &str, value: &str| ["--define".to_owned(), format!("{name} {value}")];
        let build = Cmd::new("rpmbuild")
            .args(["-bb", "--quiet"])
            .args(define("_topdir", &top.path().display().to_string()))
            .args(define("_rpmdir", &folder.display().to_string()))
            .args(define("_build_name_fmt", "%%{NAME}-%%{VERSION}-%%{RELEASE}.noarch.rpm"))
            .arg(spec);
        build.run(&Stop::never()).await.unwrap();
    }
}

/// Makes a folder of packages a source. `fixed` are those, as `name version-release`, that an advisory for security
/// is about; after them a reboot is wanted.
pub async fn index(folder: &Path, fixed: &[&str]) {
    Cmd::new("createrepo_c").args(["--quiet", "--update"]).arg(folder).run(&Stop::never()).await.unwrap();
    let packages: String = fixed
        .iter()
        .map(|package| {
            let (name, version) = package.split_once(' ').unwrap();
            let (version, release) = version.split_once('-').unwrap();
            format!(
                "<package name=\"{name}\" version=\"{version}\" release=\"{release}\" epoch=\"0\" arch=\"noarch\">\
                 <filename>{name}-{version}-{release}.noarch.rpm</filename>\
                 <reboot_suggested>True</reboot_suggested></package>"
            )
        })
        .collect();
    let text = format!(
        "<updates><update from=\"security@example.org\" status=\"stable\" type=\"security\" version=\"1\">\
         <id>TEST-1</id><title>a hole</title><issued date=\"2026-01-01 00:00:00\"/><severity>Important</severity>\
         <description>A hole.</description><pkglist><collection short=\"test\"><name>test</name>{packages}\
         </collection></pkglist></update></updates>"
    );
    let file = folder.join("updateinfo.xml");
    std::fs::write(&file, text).unwrap();
    let add = Cmd::new("modifyrepo_c").arg(&file).arg(folder.join("repodata"));
    add.run(&Stop::never()).await.unwrap();
    std::fs::remove_file(file).unwrap();
}
