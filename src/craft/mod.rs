//! Plan to bytes: every field derived or forced.
