//! A few lines of a terminal that are drawn anew in place.
//!
//! The cursor stays visible and stands below them, and no mode of the terminal is changed between two drawings: a
//! process that is killed leaves nothing to be reset. After a terminal has become narrower, what it has wrapped of the
//! last drawing stays above the next one: to erase it where it was not wrapped would erase what others wrote.

use std::fmt::Write as _;
use std::io;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use anstream::AutoStream;
use anstream::ColorChoice;

use crate::live::terminal;
use crate::live::terminal::Size;

/// How often it is drawn anew, at the most.
const PERIOD: Duration = Duration::from_millis(100);

/// Output is held back, and lines are not wrapped, until [`ON`].
const OFF: &str = "\x1b[?2026h\x1b[?7l";
const ON: &str = "\x1b[?7h\x1b[?2026l";

/// Which stream leads to the terminal.
#[derive(Clone, Copy, Debug)]
enum Stream {
    Stdout,
    Stderr,
}

/// Lines that are drawn anew in place, and erased when dropped; nothing where their stream is no terminal.
pub(super) struct Screen {
    /// `None` if nothing is shown.
    stream: Option<Stream>,
    has_colour: bool,
    /// How many lines stand above the cursor.
    height: usize,
    drawn: Option<Instant>,
    /// How long the last drawing took.
    cost: Duration,
}

impl Screen {
    /// Lines on stderr, if they are wanted: a listener's own output would be torn by them.
    pub(super) fn stderr(is_wanted: bool) -> Screen {
        let choice = AutoStream::choice(&io::stderr());
        Screen::new(is_wanted.then_some(Stream::Stderr), choice)
    }

    /// Lines on stdout, if they are wanted.
    pub(super) fn stdout(is_wanted: bool) -> Screen {
        let choice = AutoStream::choice(&io::stdout());
        Screen::new(is_wanted.then_some(Stream::Stdout), choice)
    }

    fn new(wanted: Option<Stream>, choice: ColorChoice) -> Screen {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let stream = wanted.filter(|stream| !is_dumb && stream.size().is_some());
        if stream.is_some() {
            terminal::watch_continued();
        }
        Screen {
            stream,
            has_colour: choice != ColorChoice::Never,
            height: 0,
            drawn: None,
            cost: Duration::ZERO,
        }
    }

    /// Whether anything is shown.
    pub(super) fn is_shown(&self) -> bool {
        self.stream.is_some()
    }

    /// Says what is done, on the cursor's own line: whoever else writes to the terminal, as ssh that asks for a
    /// password, writes over it.
    pub(super) fn note(&mut self, words: &str) {
        if self.is_shown() {
            self.clear();
            self.write(&format!("{OFF}{words}\x1b[K\r{ON}"));
        }
    }

    /// Draws anew, unless that was just now: it takes time, a twentieth at most. When to ask again at the latest, if
    /// at all.
    pub(super) fn show(&mut self, lines: impl FnOnce(Size) -> Vec<String>) -> Option<Duration> {
        let stream = self.stream?;
        let period = PERIOD.max(20 * self.cost);
        let left = |drawn: Instant| period.checked_sub(drawn.elapsed());
        if let Some(left) = self.drawn.and_then(left).filter(|left| !left.is_zero()) {
            return Some(left);
        }
        let began = Instant::now();
        // A terminal that is gone has room for nothing.
        let size = stream.size()?;
        let mut lines = lines(size);
        // The cursor's own line is the last.
        lines.truncate(size.rows.saturating_sub(1));
        if terminal::was_continued() {
            self.height = 0;
        }
        self.draw(&lines);
        self.drawn = Some(Instant::now());
        self.cost = began.elapsed();
        Some(period)
    }

    /// Erases the lines, so that something else can be written.
    pub(super) fn clear(&mut self) {
        if self.is_shown() {
            self.draw(&[]);
        }
        self.drawn = None;
    }

    /// Draws these lines, and lets them stand.
    pub(super) fn leave(&mut self, lines: impl FnOnce(Size) -> Vec<String>) {
        if let Some(size) = self.stream.and_then(Stream::size) {
            self.draw(&lines(size));
            self.height = 0;
        }
    }

    fn draw(&mut self, lines: &[String]) {
        let frame = frame(lines, self.height, self.has_colour);
        self.height = lines.len();
        self.write(&frame);
    }

    fn write(&self, frame: &str) {
        // It is of no account if it cannot be written.
        let _ = match self.stream {
            Some(Stream::Stderr) => io::stderr().write_all(frame.as_bytes()),
            Some(Stream::Stdout) => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(frame.as_bytes());
                written.and_then(|()| stdout.flush())
            }
            None => Ok(()),
        };
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Stream {
    fn size(self) -> Option<Size> {
        match self {
            Stream::Stdout => terminal::size(&io::stdout()),
            Stream::Stderr => terminal::size(&io::stderr()),
        }
    }
}

/// What replaces the `height` lines above the cursor, in one piece: nothing is erased before it is written over, and
/// terminals that know synchronized output (mode 2026) show all of it at once. No line is wrapped.
fn frame(lines: &[String], height: usize, has_colour: bool) -> String {
    let mut frame = format!("{OFF}\r");
    if height > 0 {
        let _ = write!(frame, "\x1b[{height}A");
    }
    for line in lines {
        match has_colour {
            true => frame.push_str(line),
            false => {
                let _ = write!(frame, "{}", anstream::adapter::strip_str(line));
            }
        }
        frame.push_str("\x1b[K\r\n");
    }
    frame.push_str("\x1b[J");
    frame.push_str(ON);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_replaced_in_place_and_the_rest_erased() {
        let lines = ["\x1b[32mone\x1b[0m".to_owned(), "two".to_owned()];
        let expected = "\x1b[?2026h\x1b[?7l\r\x1b[32mone\x1b[0m\x1b[K\r\ntwo\x1b[K\r\n\
                        \x1b[J\x1b[?7h\x1b[?2026l";
        assert_eq!(frame(&lines, 0, true), expected);
        let again = frame(&lines[..1], 2, false);
        let expected = "\x1b[?2026h\x1b[?7l\r\x1b[2Aone\x1b[K\r\n\x1b[J\x1b[?7h\x1b[?2026l";
        assert_eq!(again, expected);
        assert_eq!(
            frame(&[], 1, true),
            "\x1b[?2026h\x1b[?7l\r\x1b[1A\x1b[J\x1b[?7h\x1b[?2026l"
        );
    }
}
