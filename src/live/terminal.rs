//! The terminal that a stream leads to.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use crate::live::sys;

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl Size {
    /// What a terminal has that does not tell, as a serial line.
    const USUAL: Size = Size {
        columns: 80,
        rows: 24,
    };
}

/// The size of the terminal that `stream` leads to, now; `None` if it leads to none.
pub fn size(stream: &(impl AsFd + IsTerminal)) -> Option<Size> {
    if !stream.is_terminal() {
        return None;
    }
    Some(match sys::window_size(stream) {
        Ok((columns @ 1.., rows @ 1..)) => Size {
            columns: columns.into(),
            rows: rows.into(),
        },
        _ => Size::USUAL,
    })
}

/// Notes from now on when the user stops this process (Ctrl-Z) and lets it go on.
pub fn watch_continued() {
    sys::watch_continued();
}

/// Whether that was since the last call: then other things stand on the terminal.
pub fn was_continued() -> bool {
    sys::was_continued()
}
