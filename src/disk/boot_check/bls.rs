//! Entries in files of their own (UAPI Boot Loader Specification, type 1), as they are written: systemd-boot and
//! Fedora's GRUB read them. Decides nothing about where their paths lead.

use super::Sight;
use super::entry::Found;

/// No system has more; a hostile one could have millions.
pub(super) const MOST: usize = 200;
/// In bytes. A kernel's command line has 2 KiB (Linux, `COMMAND_LINE_SIZE` of x86 and arm64).
const LONGEST: usize = 16 << 10;

/// One file's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BlsEntry {
    pub file: String,
    /// The file's name without `.conf` and without the count of tries (`+3-1`).
    pub id: String,
    pub title: String,
    pub linux: Option<String>,
    /// A program of UEFI; a unified kernel is one.
    pub efi: Option<String>,
    pub initrds: Vec<String>,
    /// `None` where the key is not there at all.
    pub options: Option<String>,
}

/// The entries in a folder, by their names. None where the folder is not there.
pub(super) fn read(disk: &Sight<'_>, folder: &str, found: &mut Found) -> Vec<BlsEntry> {
    let names: Vec<String> = disk
        .root
        .list(folder)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.ends_with(".conf") && !name.starts_with('.'))
        .collect();
    if names.len() > MOST {
        found.problem(folder, format!("it has more than {MOST} entries"));
        return Vec::new();
    }
    let mut entries = Vec::new();
    for name in names {
        let file = format!("{folder}/{name}");
        let Some(text) = found.text(disk, &file) else { continue };
        if text.len() > LONGEST {
            found.problem(&file, format!("it is larger than {} KiB", LONGEST >> 10));
        } else {
            entries.push(BlsEntry { file, id: id(&name).to_owned(), ..parse(&text) });
        }
    }
    entries
}

/// A file's name without its ending and its count of tries.
fn id(name: &str) -> &str {
    let stem = name.strip_suffix(".conf").unwrap_or(name);
    match stem.rsplit_once('+') {
        Some((id, tries)) if tries.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => id,
        _ => stem,
    }
}

fn parse(text: &str) -> BlsEntry {
    let mut entry = BlsEntry::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once([' ', '\t']) else {
            continue;
        };
        let value = value.trim();
        match key {
            "title" => value.clone_into(&mut entry.title),
            "linux" => entry.linux = Some(value.to_owned()),
            "efi" | "uki" => entry.efi = Some(value.to_owned()),
            "initrd" => entry.initrds.push(value.to_owned()),
            "options" => {
                let options = entry.options.get_or_insert_default();
                options.push(' ');
                options.push_str(value);
            }
            _ => {}
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_with_repeated_keys_and_comments() {
        let entry = parse(
            "# a comment\ntitle  Fedora Linux (6.1)\nversion 6.1\nlinux\t/vmlinuz-6.1\ninitrd /a\ninitrd /b\n\
             options root=UUID=1\noptions  ro quiet\nlonely\n",
        );
        assert_eq!(entry.title, "Fedora Linux (6.1)");
        assert_eq!(entry.linux.as_deref(), Some("/vmlinuz-6.1"));
        assert_eq!(entry.initrds, ["/a", "/b"]);
        assert_eq!(entry.options.as_deref(), Some(" root=UUID=1 ro quiet"));
    }

    #[test]
    fn an_id_is_the_name_without_its_tries() {
        for (name, wanted) in [
            ("debian-6.1.conf", "debian-6.1"),
            ("debian-6.1+3.conf", "debian-6.1"),
            ("debian-6.1+2-1.conf", "debian-6.1"),
            ("debian-6.1+deb12.conf", "debian-6.1+deb12"),
        ] {
            assert_eq!(id(name), wanted);
        }
    }
}
