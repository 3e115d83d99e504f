//! The keyed identity that every probe carries, stateless: the session key and the probe's number give
//! every field, and what an answer or an ICMP error gives back of them gives the number.
//!
//! Carriers: IP identification (both headers of an IPIP packet), UDP checksum and ports, TCP sequence
//! number and port; the UDP payload carries a 64-bit tag. Which of them a packet shows is `matching`'s
//! matter; this file only says what they are.

use std::fmt;
use std::hash::Hasher;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use siphasher::sip::SipHasher24;

use crate::plan::ProbeId;

/// A session's 128-bit key, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionKey(#[serde(with = "hex::serde")] [u8; 16]);

/// Why a text is no session key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionKeyError {
    /// The length is wrong.
    #[error("a session key is 32 hex digits, and this has {0} characters")]
    Length(usize),
    /// A character is no hex digit.
    #[error("a session key is 32 hex digits, and `{0}` is none")]
    Digit(char),
}

impl SessionKey {
    /// A key from its octets.
    pub fn new(octets: [u8; 16]) -> SessionKey {
        SessionKey(octets)
    }

    /// The key that is one higher as a number, of 32 hex digits: that of the next round of a suite.
    pub fn next(&self) -> SessionKey {
        SessionKey(u128::from_be_bytes(self.0).wrapping_add(1).to_be_bytes())
    }

    /// The 64-bit tag that a UDP payload carries.
    pub fn tag(&self, probe: ProbeId) -> u64 {
        self.hash(b'T', u32::from(probe.number()))
    }

    /// The IP identification of the probe's own header; never 0, which the kernel would rewrite
    /// (`net/ipv4/raw.c`).
    pub fn identification(&self, probe: ProbeId) -> u16 {
        self.permute_nonzero(b'i', probe.number())
    }

    /// The IP identification of the tunnel header of a probe that tunproof encapsulates itself; never 0.
    pub fn outer_identification(&self, probe: ProbeId) -> u16 {
        self.permute_nonzero(b'o', probe.number())
    }

    /// The probe whose own header has this identification, if a probe of any session number could.
    pub fn by_identification(&self, identification: u16) -> Option<ProbeId> {
        self.unpermute_nonzero(b'i', identification)
    }

    /// The UDP checksum that the payload is tuned to give; never 0, which means "none" (RFC 768).
    pub fn udp_checksum(&self, probe: ProbeId) -> u16 {
        let value = self.hash(b'C', u32::from(probe.number())) as u16;
        if value == 0 { 0xffff } else { value }
    }

    /// The TCP cookie: the sequence number of a SYN, the acknowledgment number of a SYN-ACK.
    pub fn cookie(&self, probe: ProbeId) -> u32 {
        self.feistel32(u32::from(probe.number()) << 16)
    }

    /// The probe that has this cookie.
    pub fn by_cookie(&self, cookie: u32) -> Option<ProbeId> {
        let plain = self.unfeistel32(cookie);
        if plain & 0xffff != 0 {
            return None;
        }
        ProbeId::from_number((plain >> 16) as u16)
    }

    /// The port at the client's end (49152 to 65535), one for each probe, or one for all of a flow that is asked
    /// again and again, and of a trace.
    pub fn client_port(&self, probe: ProbeId) -> u16 {
        0xc000 | (self.hash(b'P', self.flow(probe)) & 0x3fff) as u16
    }

    /// The ports that traceroute uses, and nothing listens on.
    pub const CLOSED_PORTS: RangeInclusive<u16> = 33434..=33523;

    /// The ports that [`SessionKey::client_port`] gives: dynamic ones (RFC 6335 §6).
    pub const CLIENT_PORTS: RangeInclusive<u16> = 0xc000..=0xffff;

    /// One of [`SessionKey::CLOSED_PORTS`], constant as [`SessionKey::client_port`].
    pub fn closed_port(&self, probe: ProbeId) -> u16 {
        33434 + (self.hash(b'D', self.flow(probe)) % 90) as u16
    }

    fn flow(&self, probe: ProbeId) -> u32 {
        if let Some(flow) = probe.repeated_flow() {
            0x2_0000 | u32::from(flow)
        } else if probe.kind.is_trace() {
            0x1_0000
        } else {
            u32::from(probe.number())
        }
    }

    /// What tells sessions apart in a place where everybody can read it, and gives no key away.
    pub fn alias(&self) -> u64 {
        self.hash(b'A', 0)
    }

    /// The keyed hash of a value, another one for each purpose.
    pub(super) fn hash(&self, purpose: u8, value: u32) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u8(purpose);
        hasher.write_u32(value.to_be());
        hasher.finish()
    }

    fn permute_nonzero(&self, purpose: u8, number: u16) -> u16 {
        match self.feistel16(purpose, number) {
            // No probe has number 0, so its image is free.
            0 => self.feistel16(purpose, 0),
            image => image,
        }
    }

    fn unpermute_nonzero(&self, purpose: u8, image: u16) -> Option<ProbeId> {
        let number = match self.unfeistel16(purpose, image) {
            0 => self.unfeistel16(purpose, 0),
            number => number,
        };
        ProbeId::from_number(number)
    }

    fn feistel16(&self, purpose: u8, value: u16) -> u16 {
        let [mut left, mut right] = value.to_be_bytes();
        for round in 0..4 {
            (left, right) = (
                right,
                left ^ self.round(purpose, round, u16::from(right)) as u8,
            );
        }
        u16::from_be_bytes([left, right])
    }

    fn unfeistel16(&self, purpose: u8, value: u16) -> u16 {
        let [mut left, mut right] = value.to_be_bytes();
        for round in (0..4).rev() {
            (left, right) = (
                right ^ self.round(purpose, round, u16::from(left)) as u8,
                left,
            );
        }
        u16::from_be_bytes([left, right])
    }

    fn feistel32(&self, value: u32) -> u32 {
        let (mut left, mut right) = ((value >> 16) as u16, value as u16);
        for round in 0..4 {
            (left, right) = (right, left ^ self.round(b's', round, right) as u16);
        }
        u32::from(left) << 16 | u32::from(right)
    }

    fn unfeistel32(&self, value: u32) -> u32 {
        let (mut left, mut right) = ((value >> 16) as u16, value as u16);
        for round in (0..4).rev() {
            (left, right) = (right ^ self.round(b's', round, left) as u16, left);
        }
        u32::from(left) << 16 | u32::from(right)
    }

    fn round(&self, purpose: u8, round: u8, half: u16) -> u64 {
        self.hash(purpose, u32::from(round) << 16 | u32::from(half))
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Does not show the key.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

impl FromStr for SessionKey {
    type Err = SessionKeyError;

    fn from_str(text: &str) -> Result<SessionKey, SessionKeyError> {
        if let Some(other) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(SessionKeyError::Digit(other));
        }
        let mut octets = [0; 16];
        hex::decode_to_slice(text, &mut octets).map_err(|_| SessionKeyError::Length(text.len()))?;
        Ok(SessionKey(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ProbeKind;

    fn keys() -> impl Iterator<Item = SessionKey> {
        (0..8u8).map(|n| SessionKey::new([n.wrapping_mul(37); 16]))
    }

    fn probes() -> impl Iterator<Item = ProbeId> {
        ProbeKind::ALL
            .into_iter()
            .flat_map(|kind| (0..ProbeId::PER_KIND).map(move |index| ProbeId { kind, index }))
    }

    #[test]
    fn every_number_comes_back_from_every_carrier() {
        for key in keys() {
            for probe in probes() {
                assert_ne!(key.identification(probe), 0);
                assert_ne!(key.outer_identification(probe), 0);
                assert_ne!(key.udp_checksum(probe), 0);
                assert_eq!(
                    key.by_identification(key.identification(probe)),
                    Some(probe)
                );
                assert_eq!(key.by_cookie(key.cookie(probe)), Some(probe));
            }
        }
    }

    #[test]
    fn another_session_rarely_takes_a_cookie_for_its_own() {
        let mut keys = keys();
        let (ours, theirs) = (keys.next().unwrap(), keys.next().unwrap());
        let taken = probes()
            .filter(|probe| theirs.by_cookie(ours.cookie(*probe)).is_some())
            .count();
        // 32,768 cookies, each taken with a chance of 2^-16 at most.
        assert!(taken < 10, "{taken} cookies of another session were taken");
    }

    #[test]
    fn traces_keep_their_flow() {
        let key = SessionKey::new([7; 16]);
        let port = |index| {
            key.client_port(ProbeId {
                kind: ProbeKind::SpoofTrace,
                index,
            })
        };
        assert_eq!(port(1), port(900));
        let control = ProbeId {
            kind: ProbeKind::ControlTrace,
            index: 3,
        };
        assert_eq!(key.client_port(control), port(1));
    }

    #[test]
    fn a_repeated_flow_has_one_port_and_many_identities() {
        let key = SessionKey::new([7; 16]);
        let id = |kind, flow, try_| ProbeId::repeated(kind, flow, try_).unwrap();
        let first = id(ProbeKind::SpoofSynack, 3, 0);
        for kind in [
            ProbeKind::SpoofSynack,
            ProbeKind::ControlSynack,
            ProbeKind::SpoofTrace,
        ] {
            for try_ in 1..ProbeId::PER_FLOW {
                let again = id(kind, 3, try_);
                assert_eq!(key.client_port(again), key.client_port(first));
                assert_ne!(key.cookie(again), key.cookie(first));
                assert_ne!(key.identification(again), key.identification(first));
            }
        }
        let other = id(ProbeKind::SpoofSynack, 4, 0);
        assert_ne!(key.client_port(other), key.client_port(first));
        assert_eq!(ProbeId::repeated(ProbeKind::SpoofSynack, 8, 0), None);
        assert_eq!(ProbeId::repeated(ProbeKind::SpoofSynack, 0, 128), None);
        assert_eq!(ProbeId::repeated(ProbeKind::TunnelSyn, 0, 0), None);
    }

    #[test]
    fn the_next_key_is_one_higher() {
        for (key, next) in [
            (
                "00112233445566778899aabbccddeeff",
                "00112233445566778899aabbccddef00",
            ),
            (
                "ffffffffffffffffffffffffffffffff",
                "00000000000000000000000000000000",
            ),
        ] {
            let key: SessionKey = key.parse().unwrap();
            assert_eq!(key.next().to_string(), next);
            // Nothing that a packet carries tells one from the other.
            let id = ProbeId {
                kind: ProbeKind::TunnelSyn,
                index: 0,
            };
            assert_ne!(key.cookie(id), key.next().cookie(id));
        }
    }

    #[test]
    fn a_key_is_32_hex_digits() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<SessionKey>().unwrap().to_string(), text);
        assert_eq!(
            "0011".parse::<SessionKey>(),
            Err(SessionKeyError::Length(4))
        );
        assert_eq!(
            "0011223344556677x899aabbccddeeff".parse::<SessionKey>(),
            Err(SessionKeyError::Digit('x'))
        );
        assert!(!format!("{:?}", text.parse::<SessionKey>().unwrap()).contains("0011"));
    }
}
