//! Octets as people read them.

use std::fmt::Write;

/// 16 octets a line: offset, hex, and what of them is ASCII. Every line ends with a line feed.
pub fn hexdump(octets: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in octets.chunks(16).enumerate() {
        let hex: Vec<_> = chunk.chunks(2).map(hex::encode).collect();
        let ascii: String = chunk
            .iter()
            .map(|octet| match octet {
                b' '..=b'~' => char::from(*octet),
                _ => '.',
            })
            .collect();
        writeln!(text, "{:04x}  {:<39}  {ascii}", line * 16, hex.join(" "))
            .expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_octets_a_line() {
        let octets: Vec<u8> = (0x3a..0x4d).collect();
        assert_eq!(
            hexdump(&octets),
            "0000  3a3b 3c3d 3e3f 4041 4243 4445 4647 4849  :;<=>?@ABCDEFGHI\n\
             0010  4a4b 4c                                  JKL\n"
        );
        assert_eq!(hexdump(&[]), "");
        assert_eq!(hexdump(&[0xa5]).trim_end().len(), 6 + 39 + 2 + 1);
    }
}
