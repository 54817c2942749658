//! What comes out: names, registration and the record.
