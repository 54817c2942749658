//! What differs between the kinds of files that the same passes read: how such a file is called, how it begins, and what
//! its plain scalars stand for. Knows none of their keys but those that are still to come.

/// A kind of file.
#[derive(Debug)]
pub(super) struct Form {
    /// What such a file is called, without an article.
    pub(super) noun: &'static str,
    /// The line that every such file has.
    pub(super) first: &'static str,
    /// What to do about one that is empty.
    pub(super) empty: &'static str,
    /// What to write in place of a merge key.
    pub(super) merge: &'static str,
    /// What is designed but not built: where it would stand, its name, and what it belongs to.
    pub(super) later: &'static [(&'static str, &'static str, &'static str)],
    /// Whether a number or a boolean where a text belongs is that text, as it was written.
    pub(super) scalars_are_texts: bool,
}

/// `bake.yml`.
pub(super) const RECIPE: Form = Form {
    noun: "recipe",
    first: "version: 1",
    empty: "`bakehouse init` writes a recipe to begin with",
    merge: "write the keys out, or use `vars`",
    later: &[
        ("", "publish", "a stage"),
        ("", "rollout", "a stage"),
        ("", "retention", "a stage"),
        ("", "approve", "a stage"),
        ("", "promote", "a stage"),
        ("", "prune", "a stage"),
    ],
    scalars_are_texts: false,
};

/// `buildspec.yml`. CodeBuild's reference speaks of scalars, and its own examples write numbers without quotes.
pub(super) const BUILDSPEC: Form = Form {
    noun: "buildspec",
    first: "version: 0.2",
    empty: "`bakehouse init` writes a buildspec beside its recipe",
    merge: "write the keys out",
    later: &[],
    scalars_are_texts: true,
};
