//! Which mode each file of a `files` step gets: the recipe's patterns, its one mode for all, or the file's own.
//!
//! A source that came as a zip file has lost its modes where the zip's maker wrote none (CodePipeline's S3 artifacts,
//! `python3 -m zipfile -e`): a program is then no program in the image, and says so only when it is started.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::StepError;
use crate::host::glob;
use crate::recipe::Files;

/// How many files a warning names.
const NAMED: usize = 5;

pub(super) struct Modes<'a> {
    /// Longest first.
    patterns: Vec<(&'a str, u32)>,
    /// `None`: as each file has it in the recipe's folder.
    rest: Option<u32>,
    from: &'a str,
    fitted: RefCell<BTreeSet<&'a str>>,
    /// Scripts that cannot be executed, as paths below `from`.
    scripts: RefCell<Vec<String>>,
}

impl<'a> Modes<'a> {
    /// # Errors
    /// Where a mode is none.
    pub(super) fn new(files: &'a Files) -> Result<Self, StepError> {
        let rest = match files.mode.as_deref() {
            None | Some("keep") => None,
            Some(text) => Some(octal(text).ok_or_else(|| {
                StepError::recipe("mode", text, "is neither `keep` nor octal digits such as \"0644\"")
            })?),
        };
        let mut patterns = Vec::new();
        for (pattern, text) in &files.modes {
            let mode = octal(text)
                .ok_or_else(|| StepError::recipe("modes", text, "is not octal digits such as \"0755\""))?;
            patterns.push((pattern.as_str(), mode));
        }
        patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.chars().count()));
        Ok(Self {
            patterns,
            rest,
            from: &files.from,
            fitted: RefCell::default(),
            scripts: RefCell::default(),
        })
    }

    /// The mode of a file, whose own in the recipe's folder is `own`. `is_script` is asked only where that matters.
    ///
    /// # Errors
    /// Where two patterns disagree; or `is_script`'s.
    pub(super) fn file(
        &self,
        path: &str,
        own: u32,
        is_script: impl FnOnce() -> Result<bool, StepError>,
    ) -> Result<u32, StepError> {
        if let Some(mode) = self.by_pattern(path, false)?.or(self.rest) {
            return Ok(mode);
        }
        if own & 0o111 == 0 && is_script()? {
            self.scripts.borrow_mut().push(path.to_owned());
        }
        Ok(own)
    }

    /// The mode of a folder. With one mode for all files, a folder may be entered by whoever may read it.
    ///
    /// # Errors
    /// Where two patterns disagree.
    pub(super) fn folder(&self, path: &str, own: u32) -> Result<u32, StepError> {
        let all = || self.rest.map_or(own, |mode| mode | (mode & 0o444) >> 2);
        Ok(self.by_pattern(path, true)?.unwrap_or_else(all))
    }

    fn by_pattern(&self, path: &str, is_folder: bool) -> Result<Option<u32>, StepError> {
        let mut fit = self
            .patterns
            .iter()
            .filter(|(pattern, _)| pattern.ends_with('/') == is_folder && glob::fits_path(pattern, path));
        let Some((pattern, mode)) = fit.next() else {
            return Ok(None);
        };
        self.fitted.borrow_mut().insert(pattern);
        for (other, others_mode) in fit {
            self.fitted.borrow_mut().insert(other);
            if other.chars().count() == pattern.chars().count() && others_mode != mode {
                let wrong = format!(
                    "and `{other}` are as long and give {path} different modes; name the file, or the folder, in one"
                );
                return Err(StepError::recipe("modes", pattern, wrong));
            }
        }
        Ok(Some(*mode))
    }

    /// After all is copied: what is to be told of scripts that cannot be executed.
    ///
    /// # Errors
    /// Where a pattern fitted nothing: it was meant to.
    pub(super) fn done(self) -> Result<Option<String>, StepError> {
        let fitted = self.fitted.into_inner();
        if let Some((pattern, _)) = self.patterns.iter().find(|(pattern, _)| !fitted.contains(pattern)) {
            let what = if pattern.ends_with('/') { "folder below" } else { "file of" };
            let wrong = format!("fits no {what} `{}`; patterns are relative to `from`", self.from);
            return Err(StepError::recipe("modes", pattern, wrong));
        }
        let scripts = self.scripts.into_inner();
        let Some(first) = scripts.first() else {
            return Ok(None);
        };
        let likely = match first.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/*"),
            None => first.clone(),
        };
        let named: Vec<&str> = scripts.iter().take(NAMED).map(String::as_str).collect();
        let more = match scripts.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Ok(Some(format!(
            "files: {} of `{}` begin with `#!` and are not executable: {}{more}; a zip file may have lost that: if they \
             are programs, add `modes: {{ \"{likely}\": \"0755\" }}`",
            scripts.len(),
            self.from,
            named.join(", ")
        )))
    }
}

fn octal(text: &str) -> Option<u32> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    digits.then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(value: serde_json::Value) -> Files {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_mode_is_keep_or_octal() {
        let rest = |mode: &str| {
            let files = files(serde_json::json!({"from": "a", "to": "/a", "mode": mode}));
            Modes::new(&files).map(|modes| modes.rest)
        };
        assert_eq!(rest("keep").unwrap(), None);
        assert_eq!(rest("0644").unwrap(), Some(0o644));
        assert_eq!(rest("4755").unwrap(), Some(0o4755));
        for wrong in ["", "644 ", "0899", "+644", "u+x", "77777", "6"] {
            assert!(rest(wrong).is_err(), "{wrong}");
        }
        let modes = files(serde_json::json!({"from": "a", "to": "/a", "modes": {"a": "keep"}}));
        assert!(Modes::new(&modes).is_err());
    }

    #[test]
    fn the_longest_pattern_that_fits_decides_and_equals_must_agree() {
        let files = files(serde_json::json!({"from": "r/", "to": "/", "mode": "0600", "modes": {
            "**/*.sh": "0755", "bin/*": "0711", "bin/a.sh": "4755", "bin/": "0750", "lib/x*": "0644", "lib/*x": "0640",
        }}));
        let modes = Modes::new(&files).unwrap();
        let file = |path: &str| modes.file(path, 0o640, || unreachable!("a mode was said"));
        for (path, mode) in [
            ("bin/a.sh", 0o4755),
            ("bin/b.sh", 0o755),
            ("bin/c", 0o711),
            ("x.sh", 0o755),
            ("lib/xy", 0o644),
            ("lib/yx", 0o640),
            ("other", 0o600),
            ("bin/deep/c", 0o600),
        ] {
            assert_eq!(file(path).unwrap(), mode, "{path}");
        }
        assert_eq!(
            (modes.folder("bin", 0o700).unwrap(), modes.folder("lib", 0o755).unwrap()),
            (0o750, 0o700)
        );
        let error = file("lib/xx").unwrap_err().to_string();
        assert!(
            error.contains("`lib/*x`") || error.contains("lib/*x:") || error.contains("lib/x*"),
            "{error}"
        );
        assert!(error.contains("give lib/xx different modes"), "{error}");
        assert_eq!(modes.done().unwrap(), None);
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_wrong() {
        let files =
            files(serde_json::json!({"from": "r/", "to": "/", "modes": {"/bin/*": "0755", "bin/*": "0755"}}));
        let modes = Modes::new(&files).unwrap();
        modes.folder("bin", 0o755).unwrap();
        let error = modes.done().err().unwrap().to_string();
        assert!(error.contains("fits no file of `r/`"), "{error}");
    }

    #[test]
    fn scripts_without_the_bit_are_told_once_with_what_to_add() {
        let files = files(serde_json::json!({"from": "r/", "to": "/", "modes": {"etc/*": "0644"}}));
        let modes = Modes::new(&files).unwrap();
        modes.file("etc/rc", 0o644, || unreachable!()).unwrap();
        modes.file("bin/fine", 0o755, || unreachable!()).unwrap();
        modes.file("bin/text", 0o644, || Ok(false)).unwrap();
        for number in 0..7 {
            assert_eq!(modes.file(&format!("bin/{number}"), 0o644, || Ok(true)).unwrap(), 0o644);
        }
        let told = modes.done().unwrap().unwrap();
        assert!(told.contains("7 of `r/`") && told.contains("bin/0, bin/1"), "{told}");
        assert!(told.contains("bin/4 and 2 more") && !told.contains("bin/5"), "{told}");
        assert!(told.contains(r#"modes: { "bin/*": "0755" }"#), "{told}");
    }
}
