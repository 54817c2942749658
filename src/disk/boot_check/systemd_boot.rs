//! systemd-boot: entries in files and unified kernels, on the EFI system partition and on the extended boot partition
//! (UAPI Boot Loader Specification). Unified kernels are looked at without systemd-boot too: the firmware can start
//! them by itself.

use super::Sight;
use super::bls;
use super::entry::{Entry, Found, Image};
use super::loader::Loader;
use super::unified::{self, Unified};
use crate::disk::table::TYPE_XBOOTLDR;
use crate::host::glob;

/// Where nothing but unified kernels is.
const KERNELS: &str = "EFI/Linux";

#[derive(Debug)]
pub(super) struct SystemdBoot;

impl Loader for SystemdBoot {
    fn find(&self, disk: &Sight<'_>) -> Found {
        let mut found = Found::default();
        let Some(esp) = disk.layout.esp.as_ref().and_then(|esp| disk.mounted_at(esp)) else {
            return found;
        };
        let extended = disk
            .layout
            .ids
            .volumes
            .iter()
            .filter(|volume| volume.partition.type_id.eq_ignore_ascii_case(TYPE_XBOOTLDR))
            .find_map(|volume| disk.mounted_at(volume));
        // The ids of all entries, by which a default is chosen.
        let mut ids = Vec::new();
        let installed = ["EFI/systemd", "loader/loader.conf", "loader/entries"]
            .iter()
            .any(|path| disk.root.exists(&disk.on_fat(esp, path)));
        for folder in [Some(esp), extended].into_iter().flatten() {
            // Elsewhere the files on an extended boot partition are GRUB's.
            if installed {
                type_one(disk, folder, &mut ids, &mut found);
            }
            ids.extend(unified_kernels(disk, folder, KERNELS, &mut found));
        }
        // One in place of a loader, which the firmware starts.
        unified_kernels(disk, esp, "EFI/BOOT", &mut found);
        if installed {
            default(disk, esp, &ids, &mut found);
        }
        found
    }
}

fn type_one(disk: &Sight<'_>, folder: &str, ids: &mut Vec<String>, found: &mut Found) {
    for entry in bls::read(disk, &disk.on_fat(folder, "loader/entries"), found) {
        ids.push(format!("{}.conf", entry.id));
        let title = if entry.title.is_empty() { entry.id } else { entry.title };
        let args = entry.options.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
        let at = |path: &String| disk.on_fat(folder, path);
        match (&entry.linux, &entry.efi) {
            (Some(linux), _) => found.entries.push(Entry {
                file: entry.file,
                title,
                kernel: Image::file(at(linux)),
                initrds: entry.initrds.iter().map(|path| Image::file(at(path))).collect(),
                args,
                tells_disk: true,
            }),
            (None, Some(efi)) => {
                let path = at(efi);
                match unified::read(disk.root, &path) {
                    Ok(Some(kernel)) => push(kernel, &entry.file, title, &path, args, found),
                    Ok(None) => found.unjudged(format!("{}: the program {path} is not judged", entry.file)),
                    Err(error) => {
                        found.problem(
                            &entry.file,
                            format!("the program {path} of the entry `{title}`: {error}"),
                        );
                    }
                }
            }
            (None, None) => found.warning(format!("{}: it names neither a kernel nor a program", entry.file)),
        }
    }
}

/// Gives the ids of those that are found.
fn unified_kernels(disk: &Sight<'_>, at: &str, folder: &str, found: &mut Found) -> Vec<String> {
    let place = disk.on_fat(at, folder);
    let mut ids = Vec::new();
    let mut names = disk.root.list(&place).unwrap_or_default();
    names.retain(|name| name.to_ascii_lowercase().ends_with(".efi"));
    if names.len() > bls::MOST {
        found.problem(&place, format!("it has more than {} programs", bls::MOST));
        return ids;
    }
    for name in names {
        let path = format!("{place}/{name}");
        match unified::read(disk.root, &path) {
            Ok(Some(kernel)) => {
                ids.push(name.clone());
                push(kernel, &path, name, &path, Vec::new(), found);
            }
            // Another program.
            Ok(None) => {}
            Err(error) if folder == KERNELS => found.problem(&path, error.to_string()),
            Err(error) => found.warning(format!("{path}: {error}")),
        }
    }
    ids
}

/// `args` of an entry's file take the place of those within the kernel.
fn push(kernel: Unified, file: &str, title: String, path: &str, args: Vec<String>, found: &mut Found) {
    let own = kernel.command_line.split_ascii_whitespace().map(str::to_owned).collect();
    found.entries.push(Entry {
        file: file.to_owned(),
        title,
        kernel: Image { path: path.to_owned(), part: Some(kernel.linux) },
        initrds: kernel
            .initrd
            .into_iter()
            .map(|part| Image { path: path.to_owned(), part: Some(part) })
            .collect(),
        args: if args.is_empty() { own } else { args },
        tells_disk: true,
    });
}

/// loader.conf's `default`, a pattern (loader.conf(5)). Where no entry fits it, the newest one boots.
fn default(disk: &Sight<'_>, esp: &str, ids: &[String], found: &mut Found) {
    let file = disk.on_fat(esp, "loader/loader.conf");
    let Some(text) = found.text(disk, &file) else { return };
    let pattern = text.lines().rev().find_map(|line| {
        let (key, value) = line.trim().split_once([' ', '\t'])?;
        (key == "default").then(|| value.trim())
    });
    let Some(pattern) = pattern else { return };
    // `@saved` is what the firmware remembers, which is no part of an image.
    if pattern.starts_with('@') {
        return;
    }
    let fits = |id: &String| {
        let stem = id.strip_suffix(".conf").or_else(|| id.strip_suffix(".efi")).unwrap_or(id);
        let pattern = pattern.to_ascii_lowercase();
        [id.as_str(), stem].iter().any(|id| glob::fits(&pattern, &id.to_ascii_lowercase()))
    };
    if !ids.iter().any(fits) {
        found
            .warning(format!("{file}: no entry fits the default `{pattern}`; systemd-boot takes the newest"));
    }
}
