//! Plan to bytes: every field derived or forced.
pub fn probe(_: &crate::plan::Probe, _: &crate::plan::SessionKey) -> Vec<u8> {
    vec![]
}
pub fn cleanup(_: &crate::plan::Probe, _: &crate::plan::SessionKey) -> Option<Vec<u8>> {
    None
}
pub fn arp_request(_: [u8; 6], _: std::net::Ipv4Addr, _: std::net::Ipv4Addr) -> Vec<u8> {
    vec![]
}
