//! The pages of `tunproof explain`: what a finding means, how it is shown, how to mend it.

mod pages;

use std::fmt::Write;

use crate::verdict::Code;
use pages::Page;
use pages::of;

/// How wide prose is.
const WIDTH: usize = 80;

/// The page of a code.
pub fn page(code: Code) -> String {
    let Page {
        hop,
        question,
        meaning,
        shown,
        mend,
    } = of(code);
    let mut text = format!("{code}\n\n");
    wrap(&mut text, meaning);
    text.push_str("\nHow it is shown\n");
    wrap(&mut text, shown);
    text.push_str("\nHow to mend it\n");
    for line in mend {
        let _ = writeln!(text, "  {line}");
    }
    let _ = write!(text, "\nHop    {hop}\n");
    let _ = writeln!(text, "HOWTO  {question}");
    text
}

/// Every code, with what it means in one sentence.
pub fn contents() -> String {
    let mut text = String::new();
    let mut last = None;
    for code in Code::ALL {
        let Page { hop, meaning, .. } = of(*code);
        if last != Some(hop) {
            let _ = writeln!(text, "{}{hop}", if last.is_some() { "\n" } else { "" });
            last = Some(hop);
        }
        let first = meaning.split_inclusive(". ").next().unwrap_or(meaning);
        let _ = writeln!(text, "  {code}");
        let mut sentence = String::new();
        wrap_to(&mut sentence, first.trim(), WIDTH - 6);
        for line in sentence.lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
    text.push_str("\n`tunproof explain CODE` says more.\n");
    text
}

fn wrap(text: &mut String, prose: &str) {
    wrap_to(text, prose, WIDTH);
}

fn wrap_to(text: &mut String, prose: &str, width: usize) {
    let mut column = 0;
    for word in prose.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            text.push('\n');
            column = 0;
        }
        if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_says_everything() {
        for code in Code::ALL {
            let page = page(*code);
            for part in ["How it is shown", "How to mend it", "\nHop ", "\nHOWTO "] {
                assert!(page.contains(part), "{page}");
            }
            let of = of(*code);
            assert!(of.meaning.len() > 60, "{page}");
            assert!(of.shown.len() > 40, "{page}");
            assert!(!of.mend.is_empty(), "{page}");
        }
    }

    #[test]
    fn prose_fits_a_terminal() {
        for code in Code::ALL {
            for line in page(*code).lines() {
                assert!(line.chars().count() <= 100, "{line}");
                assert!(
                    line.starts_with("  ") || line.chars().count() <= WIDTH,
                    "{line}"
                );
            }
        }
        for line in contents().lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn the_contents_list_every_code_once() {
        let contents = contents();
        for code in Code::ALL {
            let line = format!("\n  {code}\n");
            assert_eq!(contents.matches(&line).count(), 1, "{code}\n{contents}");
        }
    }
}
