//! Several hosts: versioned messages, framing, session.
