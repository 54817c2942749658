//! GRUB's menu as it is written: what each entry would load, from where, with which arguments. Reads the script top to
//! bottom and takes every branch; runs nothing and looks at no file.

use std::collections::HashMap;

/// A longer value is not followed: a script can double a variable in every line.
const LONGEST_VALUE: usize = 8 * 1024;
/// No menu has more; a hostile one could have millions.
const MOST_BOOTS: usize = 1000;
const MOST_FURTHER: usize = 32;
/// Other variables than the first so many are not known, and so many bytes of values go into one command: a script can
/// name one in every word. The kernel's own command line has 2 KiB.
const MOST_VARIABLES: usize = 1000;
const LONGEST_COMMAND: usize = 64 * 1024;

/// The variables of a script, by name.
pub type Variables = HashMap<String, String>;

/// What a menu says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu {
    pub boots: Vec<Boot>,
    /// What can be chosen in it, in its order.
    pub items: Vec<Item>,
    /// What a branch of the script makes the default: a number, a title, an id, or several of these with `>` between.
    pub defaults: Vec<String>,
    /// Other files that it goes on with, and where it takes entries from that stand in files of their own.
    pub further: Vec<Further>,
    /// Every file system that the script searches for, as fstab would name it: `UUID=…`, `LABEL=…`.
    pub searches: Vec<String>,
    /// What is done that cannot be followed here: `chainloader`.
    pub unknown: Vec<String>,
}

/// A line of the menu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    pub title: String,
    pub id: Option<String>,
    /// The submenu that it stands in, by its place in [`Menu::items`].
    pub within: Option<usize>,
    /// Stands for all entries that have files of their own.
    pub bls: bool,
}

/// Where a menu goes on, with the variables as they are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Further {
    /// `configfile PATH`
    Config { path: String, variables: Variables },
    /// `blscfg`: entries in files of their own (UAPI Boot Loader Specification, as Fedora's GRUB reads them).
    Bls { variables: Variables },
}

/// One kernel that an entry loads. An entry has several where it tries one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    pub title: String,
    /// What GRUB's `root` is: `UUID=…` after a search, `hd0,gpt1`, or empty where nothing was said.
    pub place: String,
    pub kernel: String,
    pub args: Vec<String>,
    pub initrds: Vec<String>,
}

/// Reads a script that begins with these variables.
///
/// # Errors
/// Where it is so large that no firmware would read it.
pub fn parse(text: &str, variables: Variables) -> Result<Menu, String> {
    let mut reader = Reader { variables, ..Reader::default() };
    for command in commands(text) {
        reader.take(&command)?;
    }
    Ok(reader.menu)
}

/// A text with its variables put in; those that are not set are nothing, as for GRUB itself.
#[must_use]
pub fn filled_in(text: &str, variables: &Variables) -> String {
    let mut filled = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '$' {
            filled.push(c);
        } else if let Some(name) = variable(&mut chars)
            && let Some(value) = variables.get(&name).filter(|_| filled.len() < LONGEST_COMMAND)
        {
            filled.push_str(value);
        }
    }
    filled
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

type Word = Vec<Piece>;

/// The braces that are open.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Entry {
        title: String,
        /// The variables as they were before it: an entry's own do not last.
        before: Variables,
    },
    /// By its place among the items.
    Submenu(usize),
    /// Called by name, if at all: its text is not the menu's.
    Function,
}

#[derive(Default)]
struct Reader {
    menu: Menu,
    variables: Variables,
    blocks: Vec<Block>,
    /// A variable that is set only where it has no value yet (`if [ -z "$x" ]`), and has one.
    settled: Option<String>,
}

impl Reader {
    fn take(&mut self, command: &[Word]) -> Result<(), String> {
        self.condition(command);
        let mut room = LONGEST_COMMAND;
        let mut words: Vec<String> = command.iter().map(|word| self.expand(word, &mut room)).collect();
        while words.first().is_some_and(|word| {
            matches!(word.as_str(), "if" | "elif" | "then" | "else" | "do" | "while" | "until" | "!")
        }) {
            words.remove(0);
        }
        while words.first().is_some_and(|word| word == "}") {
            if let Some(Block::Entry { before, .. }) = self.blocks.pop() {
                self.variables = before;
            }
            words.remove(0);
        }
        let Some((name, args)) = words.split_first() else {
            return Ok(());
        };
        if args.last().is_some_and(|word| word == "{") {
            let title = args.first().cloned().unwrap_or_default();
            let block = match name.as_str() {
                // Within another it is what that one does when it is chosen.
                "menuentry" if !self.blocks.iter().any(|block| matches!(block, Block::Entry { .. })) => {
                    self.item(Item { title: title.clone(), id: id(args), ..Item::default() })?;
                    Block::Entry { title, before: self.variables.clone() }
                }
                "submenu" => {
                    self.item(Item { title, id: id(args), ..Item::default() })?;
                    Block::Submenu(self.menu.items.len() - 1)
                }
                _ => Block::Function,
            };
            self.blocks.push(block);
            return Ok(());
        }
        if self.blocks.contains(&Block::Function) {
            return Ok(());
        }
        match name.as_str() {
            "set" => {
                if let Some((name, value)) = args.first().and_then(|arg| arg.split_once('='))
                    && self.settled.as_deref() != Some(name)
                {
                    // An empty value is the first entry, and a variable that nothing sets is empty.
                    if name == "default" && !value.is_empty() && !value.contains('$') {
                        self.menu.defaults.push(value.to_owned());
                    }
                    self.set(name, value);
                }
            }
            "search" => self.search(args),
            "search.fs_uuid" | "search.fs_label" => {
                let tag = if name == "search.fs_uuid" { "UUID" } else { "LABEL" };
                if let Some(value) = args.first() {
                    self.found(format!("{tag}={value}"), args.get(1).map_or("root", String::as_str));
                }
            }
            "linux" | "linux16" | "linuxefi" => self.kernel(args)?,
            "initrd" | "initrd16" | "initrdefi" => {
                if let Some(boot) = self.menu.boots.last_mut() {
                    boot.initrds.extend(args.iter().cloned());
                }
            }
            "configfile" => {
                if let Some(path) = args.first() {
                    self.further(Further::Config { path: path.clone(), variables: self.variables.clone() })?;
                }
            }
            "blscfg" => {
                self.item(Item { bls: true, ..Item::default() })?;
                self.further(Further::Bls { variables: self.variables.clone() })?;
            }
            "chainloader" | "multiboot" | "multiboot2" | "uki" => {
                let what = format!("{name} {}", args.join(" ")).trim_end().to_owned();
                if self.menu.unknown.len() < MOST_BOOTS && !self.menu.unknown.contains(&what) {
                    self.menu.unknown.push(what);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `if [ -z "${x}" ]` before `set x=…`: both branches are taken, but a value that is there is kept.
    fn condition(&mut self, command: &[Word]) {
        let text = |word: &Word, text: &str| *word == [Piece::Text(text.to_owned())];
        let Some(first) = command.first() else { return };
        if text(first, "fi") || text(first, "else") || text(first, "elif") {
            self.settled = None;
        }
        if text(first, "if")
            && let Some(at) = command.iter().position(|word| text(word, "-z"))
            && let Some(word) = command.get(at + 1)
        {
            self.settled = word.iter().find_map(|piece| match piece {
                Piece::Variable(name) if self.variables.get(name).is_some_and(|value| !value.is_empty()) => {
                    Some(name.clone())
                }
                _ => None,
            });
        }
    }

    fn item(&mut self, mut item: Item) -> Result<(), String> {
        if self.menu.items.len() == MOST_BOOTS {
            return Err(format!("it has more than {MOST_BOOTS} entries"));
        }
        item.within = self.blocks.iter().rev().find_map(|block| match block {
            Block::Submenu(at) => Some(*at),
            _ => None,
        });
        self.menu.items.push(item);
        Ok(())
    }

    fn further(&mut self, further: Further) -> Result<(), String> {
        // Each carries its variables, so the bound is lower than that of the entries.
        if self.menu.further.len() == MOST_FURTHER {
            return Err(format!("it goes on with more than {MOST_FURTHER} others"));
        }
        self.menu.further.push(further);
        Ok(())
    }

    fn kernel(&mut self, args: &[String]) -> Result<(), String> {
        let Some((kernel, args)) = args.split_first() else {
            return Ok(());
        };
        if self.menu.boots.len() == MOST_BOOTS {
            return Err(format!("it has more than {MOST_BOOTS} entries"));
        }
        let title = self
            .blocks
            .iter()
            .rev()
            .find_map(|block| match block {
                Block::Entry { title, .. } => Some(title.clone()),
                _ => None,
            })
            .unwrap_or_else(|| "(outside of an entry)".to_owned());
        self.menu.boots.push(Boot {
            title,
            place: self.variables.get("root").cloned().unwrap_or_default(),
            kernel: kernel.clone(),
            args: args.to_vec(),
            initrds: Vec::new(),
        });
        Ok(())
    }

    /// `search [--no-floppy] --fs-uuid --set=root [--hint…] NAME` (GRUB manual, "search").
    fn search(&mut self, args: &[String]) {
        let mut tag = None;
        let mut variable = "root".to_owned();
        let mut name = None;
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--fs-uuid" | "-u" => tag = Some("UUID"),
                "--label" | "--fs-label" | "-l" => tag = Some("LABEL"),
                // The variable's name may be left out, and a hint's value follows its option.
                "--set" | "-s" if args.len() > 1 => variable = args.next().cloned().unwrap_or_default(),
                "--hint" | "-h" => drop(args.next()),
                option if option.starts_with("--set=") => option["--set=".len()..].clone_into(&mut variable),
                option if option.starts_with('-') => {}
                other => name = Some(other.to_owned()),
            }
        }
        if let (Some(tag), Some(name)) = (tag, name) {
            self.found(format!("{tag}={name}"), &variable);
        }
    }

    fn found(&mut self, place: String, variable: &str) {
        if self.menu.searches.len() < MOST_BOOTS && !self.menu.searches.contains(&place) {
            self.menu.searches.push(place.clone());
        }
        self.set(variable, &place);
    }

    fn set(&mut self, name: &str, value: &str) {
        let known = self.variables.len() < MOST_VARIABLES || self.variables.contains_key(name);
        if known && value.len() <= LONGEST_VALUE {
            self.variables.insert(name.to_owned(), value.to_owned());
        } else {
            self.variables.remove(name);
        }
    }

    /// A word with the variables that are known; one that is not, or has no room, stays as it is written.
    fn expand(&self, word: &Word, room: &mut usize) -> String {
        word.iter().fold(String::new(), |mut text, piece| {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(name) => {
                    match self.variables.get(name).filter(|value| value.len() <= *room) {
                        Some(value) => {
                            *room -= value.len();
                            text.push_str(value);
                        }
                        None => {
                            text.push_str("${");
                            text.push_str(name);
                            text.push('}');
                        }
                    }
                }
            }
            text
        })
    }
}

/// An entry's id: `--id x`, or the variable that stands for `--id` where GRUB knows it.
fn id(args: &[String]) -> Option<String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--id" || arg == "${menuentry_id_option}" {
            return args.next().filter(|id| *id != "{").cloned();
        }
        if let Some(id) = arg.strip_prefix("--id=") {
            return Some(id.to_owned());
        }
    }
    None
}

/// Splits a script into commands of words: quotes, escapes, comments, `;` and line ends (GRUB manual, "Shell-like
/// scripting").
fn commands(text: &str) -> Vec<Vec<Word>> {
    let mut commands = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\'' if !quoted => {
                let piece: String = chars.by_ref().take_while(|c| *c != '\'').collect();
                push(&mut word, &piece);
            }
            '"' => {
                quoted = !quoted;
                push(&mut word, "");
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => push(&mut word, escaped.encode_utf8(&mut [0; 4])),
            },
            '$' => match variable(&mut chars) {
                Some(name) => word.get_or_insert_default().push(Piece::Variable(name)),
                None => push(&mut word, "$"),
            },
            '#' if !quoted && word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' | ';' if !quoted => {
                words.extend(word.take());
                if !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            '{' if !quoted && word.is_none() => {
                // It ends the line that opens a block, whatever follows it.
                words.push(vec![Piece::Text("{".to_owned())]);
                commands.push(std::mem::take(&mut words));
            }
            c => push(&mut word, c.encode_utf8(&mut [0; 4])),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        commands.push(words);
    }
    commands
}

fn push(word: &mut Option<Word>, text: &str) {
    let word = word.get_or_insert_default();
    if let Some(Piece::Text(last)) = word.last_mut() {
        last.push_str(text);
    } else {
        word.push(Piece::Text(text.to_owned()));
    }
}

/// The name after a `$`: `${name}`, `$name`, `$?`.
fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    if chars.next_if_eq(&'{').is_some() {
        return Some(chars.by_ref().take_while(|c| *c != '}').collect());
    }
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_' || (*c == '?')) {
        name.push(c);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Menu, String> {
        parse(text, Variables::new())
    }

    /// As grub-mkconfig of Debian 12 writes it, shortened.
    const DEBIAN: &str = r#"
# DO NOT EDIT THIS FILE
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    search --fs-uuid --set=root in-a-function
  fi
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
insmod ext2
search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 --hint='hd0,gpt1'  AAAA
fi
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	set root='hd0,gpt1'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint hd0,gpt1 BBBB
	fi
	echo	'Loading Linux ...'
	linux	/boot/vmlinuz-6.1 root=UUID=BBBB ro  console=tty0 x="a b"
	initrd	/boot/ucode.img /boot/initrd.img-6.1
}
submenu 'Advanced' $menuentry_id_option 'x' {
	menuentry "Second; {one}" --class debian {
		linux	/boot/vmlinuz-5 root=PARTUUID=CC ro ${extra}
	}
}
menuentry 'UEFI Firmware Settings' { fwsetup
}
menuentry "Other" { chainloader /EFI/other.efi; }
"#;

    #[test]
    fn debians_menu_is_read() {
        let menu = read(DEBIAN).unwrap();
        assert_eq!(menu.searches, ["UUID=AAAA", "UUID=BBBB"]);
        assert_eq!(menu.unknown, ["chainloader /EFI/other.efi"]);
        assert_eq!(menu.boots.len(), 2, "{menu:?}");
        let first = &menu.boots[0];
        assert_eq!(first.title, "Debian GNU/Linux");
        assert_eq!(first.place, "UUID=BBBB");
        assert_eq!(first.kernel, "/boot/vmlinuz-6.1");
        assert_eq!(first.args, ["root=UUID=BBBB", "ro", "console=tty0", "x=a b"]);
        assert_eq!(first.initrds, ["/boot/ucode.img", "/boot/initrd.img-6.1"]);
        let second = &menu.boots[1];
        // The first entry's own search does not last.
        assert_eq!((second.title.as_str(), second.place.as_str()), ("Second; {one}", "UUID=AAAA"));
        assert_eq!(second.args, ["root=PARTUUID=CC", "ro", "${extra}"]);
        assert!(second.initrds.is_empty());
    }

    #[test]
    fn ubuntus_two_attempts_are_two_boots() {
        let menu = read(
            "set root='hd0,gpt1'\nsearch.fs_uuid AB dev\nmenuentry 'Ubuntu' {\nset root=$dev\nif [ \"${initrdfail}\" = 1 ]; then\n\
             linux /boot/vmlinuz root=PARTUUID=A ro\ninitrd /boot/initrd.img\nelse\nlinux /boot/vmlinuz root=PARTUUID=A ro panic=-1\n\
             #Don't use initrd\nfi\n}\n",
        )
        .unwrap();
        assert_eq!(menu.boots.len(), 2);
        assert_eq!(menu.boots[0].initrds, ["/boot/initrd.img"]);
        assert!(menu.boots[1].initrds.is_empty());
        assert_eq!(menu.boots[1].place, "UUID=AB");
    }

    #[test]
    fn hostile_scripts_end() {
        let doubling =
            "set a=aaaaaaaaaaaaaaaa\n".to_owned() + &"set a=$a$a\n".repeat(100) + "linux $a root=x\n";
        let menu = read(&doubling).unwrap();
        assert!(menu.boots[0].kernel.len() <= 2 * LONGEST_VALUE);
        let naming = "set a=aaaaaaaaaaaaaaaa\n".to_owned()
            + &"set a=$a$a\n".repeat(9)
            + "linux /k "
            + &"$a ".repeat(100_000);
        let menu = read(&naming).unwrap();
        assert!(menu.boots[0].args.iter().map(String::len).sum::<usize>() <= LONGEST_COMMAND + 4 * 100_000);
        let variables = Variables::from([("a".to_owned(), "a".repeat(LONGEST_VALUE))]);
        assert!(filled_in(&"$a".repeat(100_000), &variables).len() <= LONGEST_COMMAND + LONGEST_VALUE);
        assert!(read(&"linux /k\n".repeat(2000)).is_err());
        for text in [
            "}}}}",
            "menuentry {",
            "'",
            "\"",
            "${",
            "$",
            "\\",
            "menuentry 'a' {{{{",
            "search",
            "set",
            "linux",
        ] {
            read(text).unwrap();
        }
        read(&"menuentry x {\n".repeat(1000)).unwrap();
    }
}
