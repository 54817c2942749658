//! extlinux, and what reads the same file: U-Boot. The shortest of the loaders here.

use super::Sight;
use super::entry::{Entry, Found, Image};
use super::loader::Loader;

/// Where the file is looked for, as extlinux and U-Boot do.
const FILES: [&str; 5] = [
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
];
/// Files that one includes, and those that these include.
const MOST_FILES: usize = 32;
/// Labels in all of them.
const MOST_LABELS: usize = 1000;
/// Bytes of arguments that one has; a kernel's command line has 2 KiB.
const LONGEST: usize = 16 << 10;
/// What SYSLINUX takes for a program of its own and not for Linux (SYSLINUX wiki, "KERNEL").
const NOT_LINUX: [&str; 7] = [".c32", ".com", ".cbt", ".0", ".bin", ".bss", ".bs"];

#[derive(Debug)]
pub(super) struct Extlinux;

impl Loader for Extlinux {
    fn find(&self, disk: &Sight<'_>) -> Found {
        let mut found = Found::default();
        for file in FILES {
            let mut menu = Menu::default();
            menu.read(disk, file, &mut found);
            menu.tell(disk, file, &mut found);
        }
        found
    }
}

#[derive(Default)]
struct Menu {
    files: usize,
    default: Option<String>,
    /// `APPEND` before the first label: for all that have none of their own.
    append: Option<String>,
    labels: Vec<Label>,
}

#[derive(Default)]
struct Label {
    file: String,
    name: String,
    kernel: Option<String>,
    initrds: Vec<String>,
    append: Option<String>,
}

impl Menu {
    fn read(&mut self, disk: &Sight<'_>, file: &str, found: &mut Found) {
        self.files += 1;
        let Some(text) = found.text(disk, file) else { return };
        for line in text.lines() {
            let (key, value) = word(line);
            let (second, rest) = word(value);
            match (key.to_ascii_uppercase().as_str(), second.to_ascii_uppercase().as_str()) {
                ("INCLUDE", _) => self.include(disk, file, second, found),
                ("MENU", "INCLUDE") => self.include(disk, file, word(rest).0, found),
                ("MENU", "DEFAULT") => self.default = self.labels.last().map(|label| label.name.clone()),
                ("DEFAULT", _) => self.default = Some(value.to_owned()),
                ("LABEL", _) if self.labels.len() == MOST_LABELS => {
                    found.problem(file, format!("it has more than {MOST_LABELS} labels"));
                    return;
                }
                ("LABEL", _) => self.labels.push(Label {
                    file: file.to_owned(),
                    name: value.to_owned(),
                    ..Label::default()
                }),
                ("APPEND", _) if value.len() > LONGEST => {
                    found.problem(file, format!("it has arguments of more than {} KiB", LONGEST >> 10));
                    return;
                }
                ("APPEND", _) => match self.labels.last_mut() {
                    Some(label) => label.append = Some(value.to_owned()),
                    None => self.append = Some(value.to_owned()),
                },
                ("KERNEL" | "LINUX", _) => {
                    if let Some(label) = self.labels.last_mut() {
                        label.kernel = Some(second.to_owned());
                    }
                }
                ("INITRD", _) => {
                    if let Some(label) = self.labels.last_mut() {
                        label.initrds = value.split(',').map(|one| one.trim().to_owned()).collect();
                    }
                }
                _ => {}
            }
        }
    }

    fn include(&mut self, disk: &Sight<'_>, file: &str, name: &str, found: &mut Found) {
        let path = resolve(disk, file, name);
        if !disk.root.exists(&path) {
            found.problem(file, format!("it includes {path}, which is not in the image"));
        } else if self.files == MOST_FILES {
            found.problem(file, format!("it includes more than {MOST_FILES} files"));
        } else {
            self.read(disk, &path, found);
        }
    }

    fn tell(self, disk: &Sight<'_>, file: &str, found: &mut Found) {
        if let Some(default) = &self.default
            && !self.labels.iter().any(|label| label.name.eq_ignore_ascii_case(default))
            // Without a label of that name it is itself the name of a kernel or a menu, with its arguments.
            && !disk.root.exists(&resolve(disk, file, word(default).0))
            && !default.ends_with(".c32")
        {
            found.problem(file, format!("its default `{default}` is no label in it"));
        }
        for label in self.labels {
            // A label without a kernel boots something else (LOCALBOOT), or is a line of a menu.
            let Some(kernel) = label.kernel else { continue };
            if NOT_LINUX.iter().any(|end| kernel.to_ascii_lowercase().ends_with(end)) {
                found.unjudged(format!(
                    "{}: `{kernel}` of the label `{}` is not judged",
                    label.file, label.name
                ));
                continue;
            }
            let append = match label.append.or_else(|| self.append.clone()) {
                // A single hyphen keeps the one for all labels away.
                Some(append) if append != "-" => append,
                _ => String::new(),
            };
            let mut initrds = label.initrds;
            let mut args = Vec::new();
            for arg in append.split_ascii_whitespace() {
                match arg.strip_prefix("initrd=") {
                    Some(named) if initrds.is_empty() => {
                        initrds = named.split(',').map(str::to_owned).collect();
                    }
                    Some(_) => {}
                    None => args.push(arg.to_owned()),
                }
            }
            found.entries.push(Entry {
                kernel: Image::file(resolve(disk, &label.file, &kernel)),
                initrds: initrds.iter().map(|one| Image::file(resolve(disk, &label.file, one))).collect(),
                file: label.file,
                title: label.name,
                args,
                tells_disk: false,
            });
        }
    }
}

/// The first word of a line, and the rest.
fn word(line: &str) -> (&str, &str) {
    let line = line.trim();
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (first, rest.trim())
}

/// Where a path of the file leads in the root: one with a slash begins at the top of the file system that the file
/// lies on, any other beside the file.
fn resolve(disk: &Sight<'_>, file: &str, path: &str) -> String {
    let (volume, _) = disk.volume_of(file);
    let beside = || format!("{}/{path}", file.rsplit_once('/').map_or("", |(folder, _)| folder));
    path.starts_with('/').then(|| disk.found_again(volume, path)).flatten().unwrap_or_else(beside)
}
