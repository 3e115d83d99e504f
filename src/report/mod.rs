//! Say it: one model, one file a format.
