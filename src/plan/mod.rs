//! Recipe and facts become a plan.
