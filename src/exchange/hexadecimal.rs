//! Octets in hexadecimal, as messages and files hold them. Tens of thousands of packets are read in one go.

use std::fmt;

use serde::Deserializer;
use serde::Serializer;
use serde::de::Visitor;
use serde::ser::Error as _;

/// Writes octets.
pub(super) fn serialize<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut digits = vec![0; 2 * octets.len()];
    hex::encode_to_slice(octets, &mut digits).map_err(S::Error::custom)?;
    serializer.serialize_str(str::from_utf8(&digits).map_err(S::Error::custom)?)
}

/// Reads octets.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_str(Digits)
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hex encoded string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        let mut octets = vec![0; text.len() / 2];
        hex::decode_to_slice(text, &mut octets).map_err(E::custom)?;
        Ok(octets)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::Error;

    use super::*;

    #[test]
    fn octets_come_back_and_what_is_none_is_refused() {
        let mut json = serde_json::Serializer::new(Vec::new());
        serialize(&[0, 0x7f, 0xa5, 0xff], &mut json).unwrap();
        assert_eq!(json.into_inner(), *b"\"007fa5ff\"");
        let read = |text: &str| {
            let read: Result<_, Error> = deserialize(text.into_deserializer());
            read.map_err(|error| error.to_string())
        };
        assert_eq!(read("007fA5ff"), Ok(vec![0, 0x7f, 0xa5, 0xff]));
        assert_eq!(read("0"), Err("Odd number of digits".to_owned()));
        let strange = "Invalid character 'x' at position 1";
        assert_eq!(read("0x"), Err(strange.to_owned()));
    }
}
