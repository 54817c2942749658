//! The token of a stage that waits: text that any process can go on from, also one on another host. It is not signed:
//! whoever has it may have changed it. What it names is looked at before anything is done to it, and no secret is in it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cloud::{Digest, ImageRef};

/// What a token of this version begins with. A change of its form or meaning raises the number.
const VERSION: &str = "bakehouse-1";
/// Hexadecimal digits of the digest: they find damage, and are no signature.
const SUM: usize = 16;

/// `bakehouse-1.BASE64.SUM`: BASE64 is the JSON of [`Claims`], SUM the beginning of BASE64's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StageToken(String);

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Claims<T> {
    pub stage: String,
    pub bake: String,
    pub image: ImageRef,
    /// What the stage itself needs to go on.
    pub needs: T,
}

impl StageToken {
    /// Characters of the longest: CodePipeline takes continuation tokens of up to 2048.
    pub const LONGEST: usize = 2048;

    /// # Errors
    /// [`TokenError::TooLong`]
    pub fn of<T: Serialize>(claims: &Claims<T>) -> Result<Self, TokenError> {
        let json = serde_json::to_vec(claims).map_err(|error| TokenError::Damaged(error.to_string()))?;
        let data = URL_SAFE_NO_PAD.encode(json);
        let text = format!("{VERSION}.{data}.{}", sum(&data));
        if text.len() > Self::LONGEST {
            return Err(TokenError::TooLong { length: text.len() });
        }
        Ok(Self(text))
    }

    /// Reads a token; space around it, as a file's last line end, does not count.
    ///
    /// # Errors
    /// [`TokenError`]: too long, of another version, or damaged.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > Self::LONGEST {
            return Err(TokenError::TooLong { length: text.len() });
        }
        let token = Self(text.to_owned());
        token.json()?;
        Ok(token)
    }

    /// What it says, where it is a token of `stage`.
    ///
    /// # Errors
    /// [`TokenError`]: damaged, or another stage's.
    pub fn claims<T: DeserializeOwned>(&self, stage: &str) -> Result<Claims<T>, TokenError> {
        #[derive(Deserialize)]
        struct Head {
            stage: String,
        }
        let json = self.json()?;
        let damaged = |error: serde_json::Error| TokenError::Damaged(error.to_string());
        // The stage comes first: what another one needs has another shape.
        let head: Head = serde_json::from_slice(&json).map_err(damaged)?;
        if head.stage != stage {
            return Err(TokenError::OtherStage { stage: shown(&head.stage), wanted: stage.to_owned() });
        }
        serde_json::from_slice(&json).map_err(damaged)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn json(&self) -> Result<Vec<u8>, TokenError> {
        let damaged = |why: &str| TokenError::Damaged(why.to_owned());
        let mut parts = self.0.split('.');
        let version = parts.next().unwrap_or_default();
        if version != VERSION {
            return Err(if version.starts_with("bakehouse-") {
                TokenError::Version { version: shown(version) }
            } else {
                damaged("it does not begin as one")
            });
        }
        let (Some(data), Some(given), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(damaged("a part of it is missing, or there is more behind it"));
        };
        if given != sum(data) {
            return Err(damaged("its digest is another"));
        }
        URL_SAFE_NO_PAD.decode(data).map_err(|error| TokenError::Damaged(error.to_string()))
    }
}

impl<T> Claims<T> {
    /// That the token belongs to this bake and image.
    ///
    /// # Errors
    /// [`TokenError::OtherImage`]
    pub fn must_be_of(&self, bake: &str, image: &ImageRef) -> Result<(), TokenError> {
        if self.bake == bake && self.image == *image {
            return Ok(());
        }
        Err(TokenError::OtherImage {
            named: format!("{} of bake {}", self.image, shown(&self.bake)),
            wanted: format!("{image} of bake {bake}"),
        })
    }
}

impl fmt::Display for StageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn sum(data: &str) -> String {
    Digest::of(data.as_bytes()).hex()[..SUM].to_owned()
}

/// A word of somebody else's for a message: short, and nothing in it that a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Why a token is not one to go on from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has {length} characters, and the longest has {}", StageToken::LONGEST)]
    TooLong { length: usize },
    #[error(
        "the token is of the version `{version}`, and this version of Bakehouse reads {VERSION}; use the version that gave it, or begin anew"
    )]
    Version { version: String },
    #[error("this is no token, or a damaged one: {0}; give it whole, as it was printed")]
    Damaged(String),
    #[error("the token is of the stage `{stage}`, not `{wanted}`")]
    OtherStage { stage: String, wanted: String },
    #[error("the token is of {named}, and the record of {wanted}; name the record that it belongs to")]
    OtherImage { named: String, wanted: String },
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cloud::{AccountId, ImageId, Partition, Place, Region};

    fn image(id: &str) -> ImageRef {
        let place = Place {
            partition: Partition::local(),
            account: AccountId::parse("000000000000").unwrap(),
            region: Region::parse("local").unwrap(),
        };
        ImageRef { place, id: ImageId::parse(id).unwrap() }
    }

    pub(in crate::stage) fn claims(needs: &str) -> Claims<String> {
        let image = image("ami-0123456789abcdef0");
        Claims { stage: "test".into(), bake: "bake-1".into(), image, needs: needs.into() }
    }

    fn signed(version: &str, json: &str) -> String {
        let data = URL_SAFE_NO_PAD.encode(json);
        format!("{version}.{data}.{}", sum(&data))
    }

    #[test]
    fn a_token_says_again_what_went_into_it() {
        let token = StageToken::of(&claims("ä\n\"x\"")).unwrap();
        assert!(token.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{token}");
        let read = StageToken::parse(&format!("  {token}\n")).unwrap();
        assert_eq!(read, token);
        assert_eq!(read.claims("test"), Ok(claims("ä\n\"x\"")));
    }

    #[test]
    fn the_longest_is_what_a_pipeline_takes() {
        let fits = (0..2048).rev().find(|length| StageToken::of(&claims(&"x".repeat(*length))).is_ok());
        let longest = StageToken::of(&claims(&"x".repeat(fits.unwrap()))).unwrap();
        assert!((2046..=2048).contains(&longest.as_str().len()));
        assert_eq!(StageToken::parse(longest.as_str()), Ok(longest.clone()));
        let error = StageToken::of(&claims(&"x".repeat(4000))).unwrap_err();
        assert!(matches!(error, TokenError::TooLong { .. }));
        let error = StageToken::parse(&"x".repeat(100_000)).unwrap_err();
        assert_eq!(error, TokenError::TooLong { length: 100_000 });
    }

    #[test]
    fn any_changed_lost_or_added_character_is_seen() {
        let token = StageToken::of(&claims("x")).unwrap();
        let text = token.as_str();
        for at in 0..text.len() {
            let other = if text.as_bytes()[at] == b'a' { "b" } else { "a" };
            for changed in [
                format!("{}{other}{}", &text[..at], &text[at + 1..]),
                format!("{}{}", &text[..at], &text[at + 1..]),
                format!("{}\u{e9}{}", &text[..at], &text[at..]),
                text[..at].to_owned(),
            ] {
                assert!(StageToken::parse(&changed).is_err(), "{changed}");
            }
        }
        assert!(StageToken::parse(&format!("{text}.")).is_err());
        assert!(StageToken::parse("").is_err());
    }

    #[test]
    fn what_is_whole_and_still_wrong_is_an_error() {
        let token = |json: &str| StageToken::parse(&signed(VERSION, json)).unwrap();
        for json in ["", "{", "[]", "null", r#"{"stage":7}"#, r#"{"stage":"test"}"#, &"[".repeat(900)] {
            let error = token(json).claims::<String>("test").unwrap_err();
            assert!(matches!(error, TokenError::Damaged(_)), "{json}: {error}");
        }
        let whole = serde_json::to_string(&claims("x")).unwrap();
        let hostile = whole.replace("ami-0123456789abcdef0", "../../etc/passwd");
        assert!(matches!(token(&hostile).claims::<String>("test"), Err(TokenError::Damaged(_))));
        let more = whole.replace("\"needs\"", "\"extra\":1,\"needs\"");
        assert!(matches!(token(&more).claims::<String>("test"), Err(TokenError::Damaged(_))));
        assert!(matches!(token(&whole).claims::<u32>("test"), Err(TokenError::Damaged(_))));
        assert_eq!(
            token(r#"{"stage":"roll\u001bout","other":1}"#).claims::<String>("test"),
            Err(TokenError::OtherStage { stage: "rollout".into(), wanted: "test".into() })
        );
        let newer = StageToken::parse(&signed("bakehouse-2", &whole)).unwrap_err();
        assert_eq!(newer, TokenError::Version { version: "bakehouse-2".into() });
        assert!(newer.to_string().contains("begin anew"));
    }

    #[test]
    fn a_token_of_another_image_or_bake_is_told() {
        let own = image("ami-0123456789abcdef0");
        assert_eq!(claims("x").must_be_of("bake-1", &own), Ok(()));
        for (bake, image) in [("bake-2", own), ("bake-1", image("ami-0123456789abcdef1"))] {
            let error = claims("x").must_be_of(bake, &image).unwrap_err();
            assert!(error.to_string().contains("name the record"), "{error}");
        }
    }
}
