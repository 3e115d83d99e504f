//! Text from packets and hosts, made safe for a terminal.

/// `text` with every character that a terminal obeys or that reorders text written as `\u{…}`.
pub(crate) fn escape(text: &str) -> String {
    if !text.contains(is_unsafe) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Control characters, and those that change the direction of text (Unicode UAX #9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert_eq!(escape("rs1 → é"), "rs1 → é");
        assert_eq!(escape("a\u{1b}[2J\n\u{9b}b"), "a\\u{1b}[2J\\u{a}\\u{9b}b");
        assert_eq!(escape("x\u{202e}y"), "x\\u{202e}y");
    }
}
