//! The identity of a sweep's probes: a pair's number in 46 bits that every answer gives back.
//!
//! A [`ProbeId`](crate::plan::ProbeId) has 16 bits and a sweep has millions of pairs, whose answers do not show the
//! real server. So a probe carries a word of 32 bits and a port of 14:
//!
//! - TCP: the word is the sequence number (the acknowledgment number of the answer, less one), the port the source
//!   port (the answer's destination port).
//! - UDP: the word is the identification and the checksum, to which the payload is tuned, both of which an ICMP error
//!   quotes of the packet that it is about, and the port the source port.
//!
//! The word is 24 bits of number and 8 of a keyed check, masked by the port; the port is 14 bits of the same check. A
//! packet that is none of ours passes for one of a fleet of n pairs with a chance of n / 2^46, if its addresses are
//! right. Who knows a port that was used, but not the word, has one of (1 + n / 2^14) / 2^32: 1 in 66 million of a
//! million pairs, 1 in 4 million of [`Fleet::MOST_PAIRS`]. Where an ICMP error quotes nothing of a tunnelled packet but 28 octets,
//! its real server is known, and the identifications of both headers, 32 bits, tell its services apart.

use crate::plan::Fleet;
use crate::plan::FleetProbe;
use crate::plan::SessionKey;

/// What the probe of a pair carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetIdentity {
    /// The sequence number of a SYN; of a UDP probe its identification (upper half) and checksum, neither 0.
    pub word: u32,
    /// The source port, one of [`SessionKey::CLIENT_PORTS`].
    pub port: u16,
    /// The destination port of a UDP probe, one of [`SessionKey::CLOSED_PORTS`].
    pub closed_port: u16,
    /// Identification of the probe's own header; never 0, which the kernel would rewrite.
    pub identification: u16,
    /// Identification of the tunnel header; never 0.
    pub outer_identification: u16,
    /// What a UDP payload begins with.
    pub tag: u64,
}

impl FleetIdentity {
    /// What the probe of `pair` carries.
    pub fn new(key: &SessionKey, probe: FleetProbe, pair: u32) -> FleetIdentity {
        let tag = key.hash(purpose(probe), pair);
        let port = SessionKey::CLIENT_PORTS.start() | (tag & 0x3fff) as u16;
        let plain = pair << 8 | check(tag);
        let nonzero = |half: u64| match half as u16 {
            0 => 0xffff,
            half => half,
        };
        let closed_ports = SessionKey::CLOSED_PORTS;
        let (closed_port, word) = match probe {
            FleetProbe::ReflectUdp => closed_ports
                .map(|closed| (closed, plain ^ mask(key, port, closed)))
                .find(|(_, word)| word >> 16 != 0 && word & 0xffff != 0)
                .unwrap_or((0, 0x0001_0001)),
            _ => (0, plain ^ mask(key, port, 0)),
        };
        FleetIdentity {
            word,
            port,
            closed_port,
            identification: match probe {
                FleetProbe::ReflectUdp => (word >> 16) as u16,
                _ => nonzero(tag >> 22),
            },
            outer_identification: nonzero(tag >> 38),
            tag,
        }
    }

    /// The pair whose probe carries this word and these ports (`closed_port` is 0 of TCP), if one does.
    pub fn find(
        key: &SessionKey,
        probe: FleetProbe,
        (word, port, closed_port): (u32, u16, u16),
    ) -> Option<u32> {
        let plain = word ^ mask(key, port, closed_port);
        let pair = plain >> 8;
        let identity = FleetIdentity::new(key, probe, pair);
        let is_it = identity.word == word
            && identity.port == port
            && identity.closed_port == closed_port
            && pair < Fleet::MOST_PAIRS;
        is_it.then_some(pair)
    }
}

fn purpose(probe: FleetProbe) -> u8 {
    match probe {
        FleetProbe::ClosedLoop => b'1',
        FleetProbe::ReflectSyn => b'2',
        FleetProbe::ReflectUdp => b'3',
    }
}

/// The 8 bits of the tag behind those of the port.
fn check(tag: u64) -> u32 {
    (tag >> 14) as u32 & 0xff
}

fn mask(key: &SessionKey, port: u16, closed_port: u16) -> u32 {
    key.hash(b'4', u32::from(port) << 16 | u32::from(closed_port)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(octet: u8) -> SessionKey {
        SessionKey::new([octet; 16])
    }

    fn carried(identity: &FleetIdentity) -> (u32, u16, u16) {
        (identity.word, identity.port, identity.closed_port)
    }

    #[test]
    fn every_pair_comes_back_and_carries_no_zero() {
        for probe in FleetProbe::ALL {
            for pair in (0..Fleet::MOST_PAIRS)
                .step_by(97)
                .chain([Fleet::MOST_PAIRS - 1])
            {
                let identity = FleetIdentity::new(&key(1), probe, pair);
                assert_eq!(
                    FleetIdentity::find(&key(1), probe, carried(&identity)),
                    Some(pair)
                );
                assert_ne!(identity.identification, 0);
                assert_ne!(identity.outer_identification, 0);
                assert!(SessionKey::CLIENT_PORTS.contains(&identity.port));
                if probe == FleetProbe::ReflectUdp {
                    assert!(identity.word >> 16 != 0 && identity.word & 0xffff != 0);
                    assert!(SessionKey::CLOSED_PORTS.contains(&identity.closed_port));
                }
            }
        }
    }

    #[test]
    fn neither_another_session_nor_another_question_is_taken_for_ours() {
        // A chance of 2^-22 each: of 600,000, 0.14 are taken on average, and more than 4 once in a million.
        let mut taken = 0;
        for pair in 0..100_000 {
            for probe in FleetProbe::ALL {
                let identity = FleetIdentity::new(&key(1), probe, pair);
                taken +=
                    usize::from(FleetIdentity::find(&key(2), probe, carried(&identity)).is_some());
                let other = match probe {
                    FleetProbe::ClosedLoop => FleetProbe::ReflectSyn,
                    FleetProbe::ReflectSyn | FleetProbe::ReflectUdp => FleetProbe::ClosedLoop,
                };
                taken +=
                    usize::from(FleetIdentity::find(&key(1), other, carried(&identity)).is_some());
            }
        }
        assert!(taken <= 4, "{taken}");
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let identity = FleetIdentity::new(&key(1), FleetProbe::ReflectSyn, 77);
        let (word, port, closed) = carried(&identity);
        for bit in 0..32 {
            let found = FleetIdentity::find(
                &key(1),
                FleetProbe::ReflectSyn,
                (word ^ 1 << bit, port, closed),
            );
            assert_eq!(found, None);
        }
        for bit in 0..14 {
            let found = FleetIdentity::find(
                &key(1),
                FleetProbe::ReflectSyn,
                (word, port ^ 1 << bit, closed),
            );
            assert_eq!(found, None);
        }
    }
}
