//! `accounts`: other accounts, and how they are entered. Which of them a part of the recipe means, that part says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An account by its id, or with the role to take there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Account {
    /// Twelve digits, in quotes.
    Id(String),
    Entered(EnteredAccount),
}

/// An account that is entered by a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EnteredAccount {
    /// Twelve digits, in quotes.
    pub id: String,
    /// The role to take there: its name, or its ARN.
    pub role: String,
    /// The external id that the role's trust policy asks for.
    pub external_id: Option<String>,
}

impl Account {
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Id(id) => id,
            Self::Entered(entered) => &entered.id,
        }
    }
}
