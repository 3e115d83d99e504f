//! What is known: append-only, ordered, serialisable; when a silence counts.
