//! Users and groups as a root knows them: from its own /etc/passwd and /etc/group, never the host's.

use std::io;

use crate::host::root_dir::RootDir;

/// The numbers of `user` or `user:group`. A user without a group has their own, group 0 where the root does not know
/// them; a number stands for itself.
///
/// # Errors
/// What is not known, as a sentence's part; or the kernel's error.
pub(super) fn ids(root: &RootDir, owner: &str) -> io::Result<(u32, u32)> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (owner, None),
    };
    let passwd = table(root, "/etc/passwd")?;
    let known = entry(&passwd, user);
    let uid = match (user.parse(), &known) {
        (Ok(number), _) => number,
        (_, Some(fields)) => number(fields, 2, "/etc/passwd")?,
        _ => return Err(unknown("user", user, "/etc/passwd")),
    };
    let gid = match group {
        Some(group) => match group.parse() {
            Ok(number) => number,
            Err(_) => {
                let groups = table(root, "/etc/group")?;
                let fields = entry(&groups, group).ok_or_else(|| unknown("group", group, "/etc/group"))?;
                number(&fields, 2, "/etc/group")?
            }
        },
        None => known.map_or(Ok(0), |fields| number(&fields, 3, "/etc/passwd"))?,
    };
    Ok((uid, gid))
}

fn table(root: &RootDir, path: &str) -> io::Result<String> {
    match root.read_text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// The line whose first field is the name, or whose third is the number.
fn entry<'a>(table: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut lines = lines.filter(|fields| fields.len() >= 3);
    lines.find(|fields| fields[0] == name || (name.parse::<u32>().is_ok() && fields[2] == name))
}

fn number(fields: &[&str], at: usize, table: &str) -> io::Result<u32> {
    let field = fields.get(at).copied().unwrap_or_default();
    field.parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{table}: `{}` has no number in field {}", fields[0], at + 1),
        )
    })
}

fn unknown(what: &str, name: &str, table: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the root has no {what} `{name}` ({table}); an earlier step must make it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_looked_up_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        assert_eq!(ids(&root, "7:8").unwrap(), (7, 8));
        assert_eq!(ids(&root, "7").unwrap(), (7, 0));
        root.make_dirs("/etc", 0o755).unwrap();
        root.write(
            "/etc/passwd",
            b"root:x:0:0::/root:/bin/sh\napp:x:990:991::/:/bin/false\nbroken:x:many:0::/:\n",
            0o644,
        )
        .unwrap();
        root.write("/etc/group", b"root:x:0:\nweb:x:33:\n", 0o644).unwrap();
        assert_eq!(ids(&root, "root").unwrap(), (0, 0));
        assert_eq!(ids(&root, "app").unwrap(), (990, 991));
        assert_eq!(ids(&root, "990").unwrap(), (990, 991));
        assert_eq!(ids(&root, "app:web").unwrap(), (990, 33));
        assert_eq!(ids(&root, "app:12").unwrap(), (990, 12));
        for wrong in ["nobody-here", "app:nobody-here", "", ":web", "app:", "broken", "-1", "99999999999"] {
            assert!(ids(&root, wrong).is_err(), "{wrong}");
        }
    }
}
