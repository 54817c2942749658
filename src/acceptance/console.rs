//! What a serial console says about how far a boot came. Reads text that anybody may have written: for messages only,
//! never for a verdict but the login prompt of an image without cloud-init.

use std::fmt;

/// How far a boot came, by the last thing on the console that tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was written.
    Silent,
    /// The firmware found nothing to boot; its words.
    Firmware(String),
    /// The boot loader stopped; its words.
    BootLoader(String),
    LoadingKernel,
    Kernel,
    KernelPanic(String),
    /// The initramfs did not find the root; its words.
    Initramfs(String),
    /// systemd fell into its emergency shell; its words.
    Emergency(String),
    Systemd,
    CloudInit,
    Login,
    /// The checks began and did not end.
    Checks,
    /// Something was written, and nothing that is known.
    Unknown,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str(
                "nothing was written to the serial console: the firmware found no boot loader, or the image's console is elsewhere (console=ttyS0 on the kernel's command line)",
            ),
            Self::Firmware(line) => write!(f, "the firmware found nothing to boot: {line}"),
            Self::BootLoader(line) => write!(f, "the boot loader stopped: {line}"),
            Self::LoadingKernel => f.write_str("the boot loader began to load the kernel, which wrote nothing"),
            Self::Kernel => f.write_str("the kernel started; systemd did not"),
            Self::KernelPanic(line) => write!(f, "the kernel gave up: {line}"),
            Self::Initramfs(line) => write!(f, "the initramfs did not find the root: {line}"),
            Self::Emergency(line) => write!(f, "systemd fell into emergency mode: {line}"),
            Self::Systemd => f.write_str("systemd started; cloud-init was not seen"),
            Self::CloudInit => f.write_str("cloud-init started; the checks did not"),
            Self::Login => f.write_str("the login prompt came; cloud-init did not run the checks"),
            Self::Checks => f.write_str("the checks began and did not end"),
            Self::Unknown => f.write_str("nothing on the console tells"),
        }
    }
}

/// Makes a stage of the line that tells it.
type End = fn(String) -> Stage;

/// Words that end a boot, in the order in which they win.
const ENDS: [(&str, End); 10] = [
    ("Kernel panic", Stage::KernelPanic),
    ("Gave up waiting for root", Stage::Initramfs),
    ("does not exist.  Dropping to a shell", Stage::Initramfs),
    ("emergency mode", Stage::Emergency),
    ("grub rescue>", Stage::BootLoader),
    ("error: no such device", Stage::BootLoader),
    ("error: file `", Stage::BootLoader),
    ("No bootable device", Stage::Firmware),
    ("Boot failed: not a bootable disk", Stage::Firmware),
    ("BdsDxe: No bootable option", Stage::Firmware),
];

/// Words that show progress, the furthest first.
const MARKS: [(&str, Stage); 10] = [
    ("Cloud-init v.", Stage::CloudInit),
    ("cloud-init[", Stage::CloudInit),
    (" login:", Stage::Login),
    ("systemd[1]:", Stage::Systemd),
    ("Welcome to ", Stage::Systemd),
    ("Linux version ", Stage::Kernel),
    ("[    0.000000]", Stage::Kernel),
    ("Begin: ", Stage::Kernel),
    ("Booting `", Stage::LoadingKernel),
    ("Loading Linux", Stage::LoadingKernel),
];

/// How far the boot came.
#[must_use]
pub fn stage(console: &[u8]) -> Stage {
    let text = plain(console);
    if text.trim().is_empty() {
        return Stage::Silent;
    }
    for (word, stage) in ENDS {
        if let Some(line) = text.lines().rev().find(|line| line.contains(word)) {
            return stage(line.trim().to_owned());
        }
    }
    if text.contains("grub>") {
        return Stage::BootLoader("it waits at its own prompt: it found no configuration".to_owned());
    }
    MARKS.into_iter().find(|(word, _)| text.contains(word)).map_or(Stage::Unknown, |(_, stage)| stage)
}

/// Whether a getty waits for somebody: the host's name and `login:`, as agetty writes it. The kernel and systemd write
/// on the same line when they come next, and both begin with a bracket.
#[must_use]
pub fn has_login_prompt(console: &[u8]) -> bool {
    plain(console).lines().filter_map(|line| line.split_once(" login:")).any(|(host, rest)| {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let rest = rest.trim();
        !host.is_empty() && host.chars().all(letters) && (rest.is_empty() || rest.starts_with('['))
    })
}

/// The last lines as plain text, oldest first: at most `lines` of them and `bytes` in all.
#[must_use]
pub fn tail(console: &[u8], lines: usize, bytes: usize) -> String {
    let text = plain(console);
    let kept: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = &kept[kept.len().saturating_sub(lines)..];
    let joined = kept.join("\n");
    let mut from = joined.len().saturating_sub(bytes);
    while !joined.is_char_boundary(from) {
        from += 1;
    }
    joined[from..].to_owned()
}

/// Without terminal sequences and control characters.
#[must_use]
pub fn plain(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            if c == '\n' || c == '\t' || !c.is_control() {
                plain.push(c);
            }
            continue;
        }
        match chars.next() {
            // CSI: parameters, then one letter or sign.
            Some('[') => while chars.next_if(|c| !('@'..='~').contains(c) && *c != '\n').is_some() {},
            // OSC and the like: up to BEL or ESC \.
            Some(']' | 'P' | '^' | '_') => {
                while chars.next_if(|c| *c != '\x07' && *c != '\x1b' && *c != '\n').is_some() {}
            }
            _ => continue,
        }
        // The sequence's own end.
        chars.next_if(|c| *c != '\n' && *c != '\x1b');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    type Right = fn(&Stage) -> bool;

    #[test]
    fn the_stage_is_the_furthest_or_what_ended_it() {
        let table: [(&str, Right); 10] = [
            ("", |stage| *stage == Stage::Silent),
            ("\x1b[2J\x1b[1;1H", |stage| *stage == Stage::Silent),
            ("Boot failed: not a bootable disk\r\n", |stage| matches!(stage, Stage::Firmware(_))),
            (
                "error: no such device: 1234.\r\ngrub rescue> ",
                |stage| matches!(stage, Stage::BootLoader(line) if line.contains("rescue")),
            ),
            ("  Booting `Debian'\r\n", |stage| *stage == Stage::LoadingKernel),
            ("[    0.000000] Linux version 6.1.0\r\n", |stage| *stage == Stage::Kernel),
            (
                "[    0.0] Linux version 6\r\nALERT!  UUID=12 does not exist.  Dropping to a shell!\r\n(initramfs) ",
                |stage| matches!(stage, Stage::Initramfs(line) if line.contains("UUID=12")),
            ),
            (
                "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n",
                |stage| matches!(stage, Stage::KernelPanic(line) if line.contains("VFS")),
            ),
            ("Welcome to Debian\r\n[  5] cloud-init[300]: Cloud-init v. 22.4\r\nx login: ", |stage| {
                *stage == Stage::CloudInit
            }),
            ("qwerty", |stage| *stage == Stage::Unknown),
        ];
        for (console, right) in table {
            let found = stage(console.as_bytes());
            assert!(right(&found), "{console:?}: {found:?}");
        }
    }

    #[test]
    fn a_prompt_is_the_end_of_a_line() {
        assert!(has_login_prompt(b"Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login: "));
        assert!(has_login_prompt(b"localhost login: [   28.160084] SVM: Virtual GIF supported\r\n"));
        assert!(has_login_prompt(b"\r\nweb login: [  OK  ] Started nginx.service\r\n"));
        assert!(!has_login_prompt(b"[  3.0] last login: never seen\r\n"));
        assert!(!has_login_prompt(b"web login: root\r\nLast login: Fri Nov 20\r\n"));
        assert!(!has_login_prompt(b""));
    }

    #[test]
    fn text_is_plain_and_its_end_is_bounded() {
        assert_eq!(plain(b"\x1b[0;32m  OK  \x1b[0m] a\r\n\x1b]0;title\x07b\x00\x1bMc"), "  OK  ] a\nbc");
        assert_eq!(plain(b"\x1b["), "");
        assert_eq!(plain(b"\x1b[12\nnext"), "\nnext");
        assert_eq!(tail(b"a\n\nb\nc\n", 2, 100), "b\nc");
        assert_eq!(tail("ää".as_bytes(), 5, 3), "ä");
        assert_eq!(tail(b"", 5, 3), "");
    }
}
