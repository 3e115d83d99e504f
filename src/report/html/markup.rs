//! HTML as it is written: what is not this program's own is escaped, by the types.

use std::fmt::Display;
use std::fmt::Write;

/// Attributes of an element.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

/// HTML so far. Tags and attribute names are this program's own (`&'static str`); every value is escaped.
#[derive(Default)]
pub(super) struct Html {
    text: String,
}

/// Elements after which no line ends, as a space there would show.
const INLINE: &[&str] = &[
    "a", "b", "code", "i", "span", "small", "strong", "td", "th", "time",
];

impl Html {
    /// What was written.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Markup of this program's own.
    pub(super) fn markup(&mut self, markup: &'static str) {
        self.text.push_str(markup);
    }

    /// Text, escaped.
    pub(super) fn say(&mut self, text: impl Display) {
        // Nothing that is written to a String fails.
        let _ = write!(Escaping(&mut self.text), "{text}");
    }

    /// An element and what is in it.
    pub(super) fn element(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        content: impl FnOnce(&mut Html),
    ) {
        self.open(tag, attributes);
        self.text.push('>');
        content(self);
        let _ = write!(self.text, "</{tag}>");
        if !INLINE.contains(&tag) {
            self.text.push('\n');
        }
    }

    /// An element of nothing but text.
    pub(super) fn words(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        text: impl Display,
    ) {
        self.element(tag, attributes, |html| html.say(text));
    }

    /// The heads of a table's columns.
    pub(super) fn columns(&mut self, names: &[&str]) {
        self.element("thead", &[], |html| {
            html.element("tr", &[], |html| {
                for name in names {
                    html.words("th", &[("scope", &"col")], name);
                }
            });
        });
    }

    /// An element of SVG without content.
    pub(super) fn shape(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.open(tag, attributes);
        self.text.push_str("/>");
    }

    fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        let _ = write!(self.text, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\"");
            self.say(value);
            self.text.push('"');
        }
    }
}

/// Writes what HTML gives a meaning as references.
struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_html_means_otherwise_is_escaped_in_text_and_attributes() {
        let mut html = Html::default();
        let hostile = "\"><script>alert('&')</script>";
        html.element("p", &[("title", &hostile)], |html| {
            html.words("b", &[], hostile);
            html.shape("circle", &[("r", &5.5)]);
        });
        let escaped = "&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;";
        assert_eq!(
            html.into_text(),
            format!("<p title=\"{escaped}\"><b>{escaped}</b><circle r=\"5.5\"/></p>\n")
        );
    }
}
