//! By what an image's instances are billed: registering from a snapshot may lose it, or gain it.

use serde::{Deserialize, Serialize};

use crate::cloud::Image;

/// By what EC2 bills an image's instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Billing {
    pub usage_operation: String,
    pub platform: String,
    pub product_codes: Vec<String>,
}

impl Billing {
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let mut product_codes = image.product_codes.clone();
        product_codes.sort();
        Self {
            usage_operation: image.usage_operation.clone(),
            platform: image.platform.clone(),
            product_codes,
        }
    }
}

impl Default for Billing {
    /// Plain Linux.
    fn default() -> Self {
        Self {
            usage_operation: "RunInstances".to_owned(),
            platform: "Linux/UNIX".to_owned(),
            product_codes: Vec::new(),
        }
    }
}

impl std::fmt::Display for Billing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.usage_operation, self.platform)?;
        if !self.product_codes.is_empty() {
            write!(f, " with the product codes {}", self.product_codes.join(", "))?;
        }
        Ok(())
    }
}
