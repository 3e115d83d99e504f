//! What it means: hop rules, findings, blame.
