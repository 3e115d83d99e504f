//! Text from packets and hosts, made safe for a terminal, and for whatever a report is written as.

/// `text` with every character that a terminal obeys, that reorders or hides text, or that XML has no way to write, as
/// `\u{…}`.
pub(crate) fn escape(text: &str) -> String {
    let is_plain = |octet| matches!(octet, b' '..=b'~');
    if text.bytes().all(is_plain) || !text.contains(is_unsafe) {
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

/// Control characters; those that change the direction of text (Unicode UAX #9); those that nobody sees, and that make
/// one name of two; and those that are none (XML 1.0 §2.2).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fffe}'..='\u{ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert_eq!(escape("rs1 → é"), "rs1 → é");
        assert_eq!(escape("a\u{1b}[2J\n\u{9b}b"), "a\\u{1b}[2J\\u{a}\\u{9b}b");
        assert_eq!(escape("x\u{202e}y\u{61c}"), "x\\u{202e}y\\u{61c}");
    }

    #[test]
    fn what_nobody_sees_or_xml_cannot_say_is_written_out() {
        assert_eq!(escape("rs1\u{200b}"), "rs1\\u{200b}");
        assert_eq!(escape("\u{feff}a\u{2060}"), "\\u{feff}a\\u{2060}");
        assert_eq!(
            escape("\u{fffd}\u{fffe}\u{ffff}"),
            "\u{fffd}\\u{fffe}\\u{ffff}"
        );
    }
}
