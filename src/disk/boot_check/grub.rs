//! GRUB: its menus, the entries in files of their own that Fedora's GRUB adds to them, the environment block in which a
//! default is saved, and the small menus on the EFI system partition that lead to the real one.

pub mod menu;

use super::Sight;
use super::bls;
use super::entry::{Entry, Found, Image};
use super::loader::Loader;
use crate::disk::ids::DeviceName;
use menu::{Boot, Further, Item, Menu, Variables, filled_in};

/// Menus, in the places of Debian's and of Red Hat's GRUB.
const MENUS: [&str; 4] =
    ["/boot/grub/grub.cfg", "/boot/grub/custom.cfg", "/boot/grub2/grub.cfg", "/boot/grub2/custom.cfg"];
/// Where entries have files of their own, if `blsdir` does not say otherwise.
const BLS_FOLDER: &str = "/boot/loader/entries";
/// Menus that one disk has together; one that goes on with itself has no end.
const MOST_MENUS: usize = 64;

#[derive(Debug)]
pub(super) struct Grub;

impl Loader for Grub {
    fn find(&self, disk: &Sight<'_>) -> Found {
        let mut reader = Reader { disk, done: Vec::new(), found: Found::default() };
        for file in MENUS {
            reader.menu(file, Variables::new());
        }
        if let Some(esp) = disk.layout.esp.as_ref().and_then(|esp| disk.mounted_at(esp)) {
            let folder = disk.on_fat(esp, "EFI");
            for name in disk.root.list(&folder).unwrap_or_default() {
                reader.menu(&disk.on_fat(&folder, &format!("{name}/grub.cfg")), Variables::new());
            }
        }
        reader.found
    }
}

struct Reader<'a> {
    disk: &'a Sight<'a>,
    /// The menus that were read, or are being read.
    done: Vec<String>,
    found: Found,
}

impl Reader<'_> {
    fn menu(&mut self, file: &str, mut variables: Variables) {
        if self.done.iter().any(|done| done == file) {
            return;
        }
        if self.done.len() == MOST_MENUS {
            self.found.unjudged(format!("{file}: it is not judged, since {MOST_MENUS} menus lead to it"));
            return;
        }
        let Some(text) = self.found.text(self.disk, file) else { return };
        self.done.push(file.to_owned());
        let environment = file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned() + "/grubenv";
        let saved =
            super::read_text(self.disk.root, &environment).map(|text| saved(&text)).unwrap_or_default();
        variables.extend(saved.clone());
        let menu = match menu::parse(&text, variables) {
            Ok(menu) => menu,
            Err(reason) => return self.found.problem(file, reason),
        };
        for search in &menu.searches {
            if search.contains('$') {
                self.found.warning(format!("{file}: a search for `{search}` is not judged"));
            } else if DeviceName::parse(search).and_then(|name| self.disk.layout.ids.find(&name)).is_none() {
                self.found.problem(file, format!("it searches for {search}, which is not on this disk"));
            }
        }
        for what in &menu.unknown {
            self.found.unjudged(format!("{file}: `{what}` is not judged"));
        }
        for boot in &menu.boots {
            self.boot(file, boot);
        }
        let mut own = Vec::new();
        for further in &menu.further {
            match further {
                Further::Bls { variables } => own.extend(self.bls(file, variables)),
                Further::Config { path, variables } => self.config(file, &menu, path, variables),
            }
        }
        self.default(file, &environment, &menu, &own, &saved);
    }

    fn boot(&mut self, file: &str, boot: &Boot) {
        let title = &boot.title;
        // The memory test boots like a kernel and needs no root.
        if boot.kernel.rsplit('/').next().is_some_and(|name| name.starts_with("memtest")) {
            return;
        }
        if boot.kernel.contains('$') {
            let kernel = &boot.kernel;
            return self
                .found
                .unjudged(format!("{file}: the entry `{title}` with the kernel `{kernel}` is not judged"));
        }
        let locate = |path: &String| self.locate(file, title, &boot.place, path);
        match (locate(&boot.kernel), boot.initrds.iter().map(locate).collect::<Result<Vec<_>, _>>()) {
            (Ok(kernel), Ok(initrds)) => self.found.entries.push(Entry {
                file: file.to_owned(),
                title: title.clone(),
                kernel: Image::file(kernel),
                initrds: initrds.into_iter().map(Image::file).collect(),
                args: boot.args.clone(),
                tells_disk: false,
            }),
            (Err(miss), _) | (_, Err(miss)) => self.missed(file, miss),
        }
    }

    fn missed(&mut self, file: &str, miss: Miss) {
        match miss {
            Miss::Wrong(reason) => self.found.problem(file, reason),
            Miss::Unknown(text) => self.found.unjudged(format!("{file}: {text}")),
        }
    }

    /// The entries that have files of their own. Gives their ids and titles, by which a default names them.
    fn bls(&mut self, file: &str, variables: &Variables) -> Vec<Item> {
        let place = variables.get("root").map_or("", String::as_str);
        let folder = match variables.get("blsdir") {
            Some(folder) => match self.locate(file, "blscfg", place, folder) {
                Ok(folder) => folder,
                Err(miss) => {
                    self.missed(file, miss);
                    return Vec::new();
                }
            },
            None => BLS_FOLDER.to_owned(),
        };
        let entries = bls::read(self.disk, &folder, &mut self.found);
        if entries.is_empty() {
            self.found.warning(format!("{file}: `blscfg` finds no entry in {folder}"));
        }
        let mut items = Vec::new();
        for entry in entries {
            let title = if entry.title.is_empty() { &entry.id } else { &entry.title };
            items.push(Item { title: title.clone(), id: Some(entry.id.clone()), ..Item::default() });
            let Some(linux) = &entry.linux else {
                self.found.warning(format!("{}: it names no kernel", entry.file));
                continue;
            };
            // Without options of its own an entry gets the ones for all.
            let options = entry.options.as_deref().unwrap_or("$kernelopts");
            let words = |text: &str| -> Vec<String> {
                filled_in(text, variables).split_ascii_whitespace().map(str::to_owned).collect()
            };
            self.boot(
                &entry.file,
                &Boot {
                    title: title.clone(),
                    place: place.to_owned(),
                    kernel: filled_in(linux, variables),
                    args: words(options),
                    initrds: entry.initrds.iter().flat_map(|line| words(line)).collect(),
                },
            );
        }
        items
    }

    /// `configfile`: this menu is then only the way to another.
    fn config(&mut self, file: &str, menu: &Menu, path: &str, variables: &Variables) {
        let place = variables.get("root").map_or("", String::as_str);
        match self.locate(file, "configfile", place, path) {
            Ok(next) if self.disk.root.exists(&next) => {
                // What an entry or a menu has set does not reach further than its folder and its root.
                self.menu(&next, Variables::from([("root".to_owned(), place.to_owned())]));
            }
            Ok(next) if menu.boots.is_empty() => {
                self.found.problem(file, format!("it goes on with {next}, which is not in the image"));
            }
            Ok(next) => {
                self.found.warning(format!("{file}: {next}, with which it can go on, is not in the image"));
            }
            Err(miss) => self.missed(file, miss),
        }
    }

    /// What is chosen when nobody chooses. GRUB takes the first entry where there is none of that name.
    fn default(&mut self, file: &str, environment: &str, menu: &Menu, own: &[Item], saved: &Variables) {
        if menu.items.is_empty() {
            return;
        }
        let items = with_own(&menu.items, own);
        for default in &menu.defaults {
            if names_one(&items, default) {
                continue;
            }
            let at = if saved.values().any(|value| value == default) { environment } else { file };
            self.found.warning(format!(
                "{at}: the default `{default}` is no entry of {file}; GRUB takes the first"
            ));
        }
    }

    /// Where a path that GRUB reads is in the root.
    fn locate(&self, title_file: &str, title: &str, place: &str, path: &str) -> Result<String, Miss> {
        let (place, path) = match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((place, path)) => (place, path),
            None => (place, path),
        };
        let layout = self.disk.layout;
        if path.contains('$') || place.contains('$') {
            return Err(Miss::Unknown(format!("`({place}){path}` of the entry `{title}` is not judged")));
        }
        let volume = if place.is_empty() {
            // GRUB's root is then where its own folder is.
            match self.disk.volume_of(title_file).0 {
                own if own.partition.is_esp() => own,
                _ => layout.boot.as_ref().unwrap_or(&layout.root),
            }
        } else {
            let name = device(place).or_else(|| DeviceName::parse(place));
            name.and_then(|name| layout.ids.find(&name)).ok_or_else(|| {
                Miss::Wrong(format!("the entry `{title}` loads from ({place}), which is not on this disk"))
            })?
        };
        // GRUB's paths begin at the top level, SUSE's at the default subvolume.
        if let (Some(own), Some(default)) = (&layout.subvolume, &layout.default_subvolume)
            && volume.number() == layout.root.number()
            && own != default
            && !own.path.is_empty()
            && !self.disk.is_below_subvolume(volume, path)
        {
            return Err(Miss::Wrong(format!(
                "`{path}` of the entry `{title}` is in no subvolume that is mounted; the root's begin with /{}/",
                own.path
            )));
        }
        self.disk.found_again(volume, path).ok_or_else(|| {
            Miss::Unknown(format!("`{path}` of the entry `{title}` is on {volume}, which is not mounted"))
        })
    }
}

/// Why a path cannot be followed.
enum Miss {
    Wrong(String),
    Unknown(String),
}

/// The environment block (GRUB manual, "The GRUB environment block"): assignments, filled up with `#`. It has 1 KiB.
fn saved(text: &str) -> Variables {
    const LONGEST: usize = 64 * 1024;
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST).unwrap_or(text.len());
    text[..end]
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The menu's lines, with the entries that have files of their own where `blscfg` puts them.
fn with_own(items: &[Item], own: &[Item]) -> Vec<Item> {
    // Submenus keep their places, by which their entries name them: what is put in goes to the end, where it counts the
    // same for every choice but a number, of which only the largest matters.
    let bls: Vec<&Item> = items.iter().filter(|item| item.bls).collect();
    let mut all = items.to_vec();
    if let Some(bls) = bls.first() {
        all.extend(own.iter().map(|item| Item { within: bls.within, ..item.clone() }));
    }
    all
}

/// Whether a default names one of the lines: `2`, a title, an id, `SUBMENU>ENTRY`; `>>` is a `>` within a title.
fn names_one(items: &[Item], default: &str) -> bool {
    const GREATER: &str = "\u{1}";
    let mut within = None;
    for part in default.replace(">>", GREATER).split('>') {
        let part = part.replace(GREATER, ">");
        let mut here = items.iter().enumerate().filter(|(_, item)| item.within == within && !item.bls);
        let chosen = match part.parse::<usize>() {
            Ok(number) => here.nth(number),
            Err(_) => here.find(|(_, item)| item.title == part || item.id.as_ref() == Some(&part)),
        };
        let Some((at, _)) = chosen else { return false };
        within = Some(at);
    }
    true
}

/// GRUB's own names of partitions of the first disk: `hd0,gpt1`, `hd0,msdos1`, `hd0`.
fn device(text: &str) -> Option<DeviceName> {
    let rest = text.strip_prefix("hd0")?;
    if rest.is_empty() {
        return Some(DeviceName::Number(0));
    }
    let part = rest.strip_prefix(',')?;
    part.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().ok().map(DeviceName::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grubs_names_of_partitions_are_read() {
        for (text, number) in [
            ("hd0,gpt1", Some(1)),
            ("hd0,msdos5", Some(5)),
            ("hd0,2", Some(2)),
            ("hd0", Some(0)),
            ("hd1,gpt1", None),
            ("lvm/x", None),
            ("hd0,gpt", None),
        ] {
            assert_eq!(device(text), number.map(DeviceName::Number), "{text}");
        }
    }

    #[test]
    fn a_default_is_a_number_a_title_an_id_or_a_way() {
        let item = |title: &str, id: &str, within| Item {
            title: title.to_owned(),
            id: Some(id.to_owned()),
            within,
            bls: false,
        };
        let bls = Item { bls: true, ..Item::default() };
        let items = [
            item("Debian", "simple", None),
            item("Advanced > all", "advanced", None),
            item("Old", "old", Some(1)),
            bls,
        ];
        let items = with_own(&items, &[item("Fedora", "f-6.1", None)]);
        for good in ["0", "2", "Debian", "simple", "1>0", "advanced>old", "Advanced >> all>Old", "f-6.1"] {
            assert!(names_one(&items, good), "{good}");
        }
        for bad in ["3", "old", "1>1", "advanced>simple", "Debian 12", ""] {
            assert!(!names_one(&items, bad), "{bad}");
        }
    }
}
