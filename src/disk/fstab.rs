//! `/etc/fstab` as it is written: fields, escapes, comments. Decides nothing about disks.

use crate::host::namespace;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FstabLine {
    /// `UUID=…`, `/dev/…`, `tmpfs`.
    pub device: String,
    pub path: String,
    pub kind: String,
    pub options: Vec<String>,
}

impl FstabLine {
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }
}

/// Reads a whole file. Lines of fewer than two fields say nothing and are left out, as mount(8) does.
#[must_use]
pub fn parse(text: &str) -> Vec<FstabLine> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().map(unescape);
            Some(FstabLine {
                device: fields.next()?,
                path: fields.next()?,
                kind: fields.next().unwrap_or_else(|| "auto".to_owned()),
                options: fields
                    .next()
                    .unwrap_or_default()
                    .split(',')
                    .filter(|option| !option.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        })
        .collect()
}

fn unescape(text: &str) -> String {
    String::from_utf8_lossy(&namespace::unescape(text.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_short_lines_are_left_out_and_escapes_are_read() {
        let lines = parse(
            "# a comment\n  # another\n\nlonely\nUUID=1 / ext4 rw,discard 0 1\nLABEL=a\\040b /mnt\\040x\n\
             tmpfs /tmp tmpfs defaults,,nodev\n",
        );
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].options, ["rw", "discard"]);
        assert!(lines[0].has_option("discard"));
        assert_eq!(
            (lines[1].device.as_str(), lines[1].path.as_str(), lines[1].kind.as_str()),
            ("LABEL=a b", "/mnt x", "auto")
        );
        assert_eq!(lines[2].options, ["defaults", "nodev"]);
        assert_eq!(unescape(r"\999\04\777é"), r"\999\04\777é");
    }
}
