//! What is said to the kernel's IPVS, and what it answers, as octets.
//!
//! Numbers and layouts are those of `include/uapi/linux/ip_vs.h`, and what each command needs is what
//! `net/netfilter/ipvs/ip_vs_ctl.c` checks.

use std::net::Ipv4Addr;

use netlink_packet_core::DecodeError;
use netlink_packet_core::DefaultNla;
use netlink_packet_core::Emitable;
use netlink_packet_core::NLA_F_NESTED;
use netlink_packet_core::NlaBuffer;
use netlink_packet_core::NlasIterator;
use netlink_packet_core::ParseableParametrized;
use netlink_packet_generic::GenlFamily;
use netlink_packet_generic::GenlHeader;
use netlink_packet_generic::GenlMessage;

use crate::exchange::IpvsDestination;
use crate::exchange::IpvsKey;
use crate::exchange::IpvsMethod;
use crate::exchange::IpvsService;

/// `GENL_ID_CTRL`, the family that knows the others.
pub(super) const CONTROLLER: u16 = 16;
pub(super) const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
pub(super) const CTRL_ATTR_FAMILY_NAME: u16 = 2;

pub(super) const CMD_NEW_SERVICE: u8 = 1;
pub(super) const CMD_DEL_SERVICE: u8 = 3;
pub(super) const CMD_GET_SERVICE: u8 = 4;
pub(super) const CMD_NEW_DEST: u8 = 5;
pub(super) const CMD_SET_DEST: u8 = 6;
pub(super) const CMD_DEL_DEST: u8 = 7;
pub(super) const CMD_GET_DEST: u8 = 8;
pub(super) const CMD_FLUSH: u8 = 17;

pub(super) const CMD_ATTR_SERVICE: u16 = 1;
pub(super) const CMD_ATTR_DEST: u16 = 2;

const SVC_ATTR_AF: u16 = 1;
const SVC_ATTR_PROTOCOL: u16 = 2;
const SVC_ATTR_ADDR: u16 = 3;
const SVC_ATTR_PORT: u16 = 4;
const SVC_ATTR_FWMARK: u16 = 5;
const SVC_ATTR_SCHED_NAME: u16 = 6;
const SVC_ATTR_FLAGS: u16 = 7;
const SVC_ATTR_TIMEOUT: u16 = 8;
const SVC_ATTR_NETMASK: u16 = 9;

const DEST_ATTR_ADDR: u16 = 1;
const DEST_ATTR_PORT: u16 = 2;
const DEST_ATTR_FWD_METHOD: u16 = 3;
const DEST_ATTR_WEIGHT: u16 = 4;
const DEST_ATTR_U_THRESH: u16 = 5;
const DEST_ATTR_L_THRESH: u16 = 6;
const DEST_ATTR_ADDR_FAMILY: u16 = 11;
const DEST_ATTR_TUN_TYPE: u16 = 13;
const DEST_ATTR_TUN_PORT: u16 = 14;

const AF_INET: u16 = 2;

/// `IP_VS_CONN_F_FWD_MASK`.
const FORWARDING_MASK: u32 = 0x7;

/// A generic netlink message's command and attributes.
#[derive(Clone, Debug)]
pub(super) struct Body {
    command: u8,
    pub(super) attributes: Vec<u8>,
}

impl GenlFamily for Body {
    fn family_name() -> &'static str {
        "IPVS"
    }

    fn command(&self) -> u8 {
        self.command
    }

    /// `IPVS_GENL_VERSION`; the controller takes any.
    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Body {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Body {
    fn parse_with_param(octets: &[u8], header: GenlHeader) -> Result<Body, DecodeError> {
        Ok(Body {
            command: header.cmd,
            attributes: octets.to_vec(),
        })
    }
}

pub(super) fn message(family: u16, command: u8, attributes: Vec<DefaultNla>) -> GenlMessage<Body> {
    let mut message = GenlMessage::from_payload(Body {
        command,
        attributes: emit(&attributes),
    });
    message.set_resolved_family_id(family);
    message
}

fn emit(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut octets = vec![0; attributes.buffer_len()];
    attributes.emit(&mut octets);
    octets
}

pub(super) fn nested(kind: u16, attributes: Vec<DefaultNla>) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, emit(&attributes))
}

/// What names a service.
pub(super) fn key_attributes(key: &IpvsKey) -> Vec<DefaultNla> {
    let mut attributes = vec![DefaultNla::new(SVC_ATTR_AF, AF_INET.to_ne_bytes().to_vec())];
    match key {
        IpvsKey::Address {
            protocol,
            address,
            port,
        } => attributes.extend([
            DefaultNla::new(
                SVC_ATTR_PROTOCOL,
                u16::from(*protocol).to_ne_bytes().to_vec(),
            ),
            DefaultNla::new(SVC_ATTR_ADDR, inet_addr(*address)),
            DefaultNla::new(SVC_ATTR_PORT, port.to_be_bytes().to_vec()),
        ]),
        IpvsKey::Fwmark(mark) => {
            attributes.push(DefaultNla::new(
                SVC_ATTR_FWMARK,
                mark.to_ne_bytes().to_vec(),
            ));
        }
    }
    attributes
}

/// A whole service: the kernel wants scheduler, flags, timeout and netmask, too, to add one.
pub(super) fn service_attributes(key: &IpvsKey, scheduler: &str) -> Vec<DefaultNla> {
    let mut name = scheduler.as_bytes().to_vec();
    name.push(0);
    // `struct ip_vs_flags`: no flag, of all.
    let flags = [0u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    let mut attributes = key_attributes(key);
    attributes.extend([
        DefaultNla::new(SVC_ATTR_SCHED_NAME, name),
        DefaultNla::new(SVC_ATTR_FLAGS, flags),
        DefaultNla::new(SVC_ATTR_TIMEOUT, 0u32.to_ne_bytes().to_vec()),
        DefaultNla::new(SVC_ATTR_NETMASK, u32::MAX.to_ne_bytes().to_vec()),
    ]);
    attributes
}

/// What names a destination within its service.
pub(super) fn destination_key_attributes(address: Ipv4Addr, port: u16) -> Vec<DefaultNla> {
    vec![
        DefaultNla::new(DEST_ATTR_ADDR, inet_addr(address)),
        DefaultNla::new(DEST_ATTR_PORT, port.to_be_bytes().to_vec()),
        DefaultNla::new(DEST_ATTR_ADDR_FAMILY, AF_INET.to_ne_bytes().to_vec()),
    ]
}

/// A whole destination: the kernel wants method, weight and thresholds, too. The tunnel's type is left out where
/// it is ipip, which kernels before 5.3 take for granted.
pub(super) fn destination_attributes(destination: &IpvsDestination) -> Vec<DefaultNla> {
    let mut attributes = destination_key_attributes(destination.address, destination.port);
    let method = u32::from(method_number(destination.method));
    attributes.extend([
        DefaultNla::new(DEST_ATTR_FWD_METHOD, method.to_ne_bytes().to_vec()),
        DefaultNla::new(DEST_ATTR_WEIGHT, destination.weight.to_ne_bytes().to_vec()),
        DefaultNla::new(DEST_ATTR_U_THRESH, 0u32.to_ne_bytes().to_vec()),
        DefaultNla::new(DEST_ATTR_L_THRESH, 0u32.to_ne_bytes().to_vec()),
    ]);
    if destination.tunnel_type != 0 {
        attributes.extend([
            DefaultNla::new(DEST_ATTR_TUN_TYPE, vec![destination.tunnel_type]),
            DefaultNla::new(
                DEST_ATTR_TUN_PORT,
                destination.tunnel_port.to_be_bytes().to_vec(),
            ),
        ]);
    }
    attributes
}

/// `union nf_inet_addr`, sixteen octets.
fn inet_addr(address: Ipv4Addr) -> Vec<u8> {
    let mut octets = vec![0; 16];
    octets[..4].copy_from_slice(&address.octets());
    octets
}

/// `IP_VS_CONN_F_*`.
fn method_number(method: IpvsMethod) -> u8 {
    match method {
        IpvsMethod::Masq => 0,
        IpvsMethod::Local => 1,
        IpvsMethod::Tunnel => 2,
        IpvsMethod::Route => 3,
        IpvsMethod::Other(number) => number,
    }
}

fn method(number: u32) -> IpvsMethod {
    match number & FORWARDING_MASK {
        0 => IpvsMethod::Masq,
        1 => IpvsMethod::Local,
        2 => IpvsMethod::Tunnel,
        3 => IpvsMethod::Route,
        other => IpvsMethod::Other(other as u8),
    }
}

/// A family's name and number, from the controller.
pub(super) fn decode_family(attributes: &[u8]) -> Result<(String, u16), DecodeError> {
    let mut name = String::new();
    let mut id = 0;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            CTRL_ATTR_FAMILY_ID => id = u16::from_ne_bytes(value(&attribute)?),
            CTRL_ATTR_FAMILY_NAME => name = string(&attribute),
            _ => {}
        }
    }
    Ok((name, id))
}

/// A service, without its destinations; `None` for one of IPv6.
pub(super) fn decode_service(attributes: &[u8]) -> Result<Option<IpvsService>, DecodeError> {
    let mut family = None;
    let mut protocol = 0;
    let mut address = Ipv4Addr::UNSPECIFIED;
    let mut port = 0;
    let mut mark = None;
    let mut scheduler = String::new();
    for attribute in NlasIterator::new(&inner(attributes, CMD_ATTR_SERVICE)?) {
        let attribute = attribute?;
        match attribute.kind() {
            SVC_ATTR_AF => family = Some(u16::from_ne_bytes(value(&attribute)?)),
            SVC_ATTR_PROTOCOL => protocol = u16::from_ne_bytes(value(&attribute)?) as u8,
            SVC_ATTR_ADDR => address = Ipv4Addr::from(value::<4>(&attribute)?),
            SVC_ATTR_PORT => port = u16::from_be_bytes(value(&attribute)?),
            SVC_ATTR_FWMARK => mark = Some(u32::from_ne_bytes(value(&attribute)?)),
            SVC_ATTR_SCHED_NAME => scheduler = string(&attribute),
            _ => {}
        }
    }
    if family != Some(AF_INET) {
        return Ok(None);
    }
    Ok(Some(IpvsService {
        key: match mark {
            Some(mark) => IpvsKey::Fwmark(mark),
            None => IpvsKey::Address {
                protocol,
                address,
                port,
            },
        },
        scheduler,
        destinations: Vec::new(),
    }))
}

/// A destination; `None` for one of IPv6. Kernels before 3.18 do not name the family: it is the service's.
pub(super) fn decode_destination(
    attributes: &[u8],
) -> Result<Option<IpvsDestination>, DecodeError> {
    let mut family = AF_INET;
    let mut destination = IpvsDestination {
        address: Ipv4Addr::UNSPECIFIED,
        port: 0,
        method: IpvsMethod::Masq,
        weight: 0,
        tunnel_type: 0,
        tunnel_port: 0,
    };
    for attribute in NlasIterator::new(&inner(attributes, CMD_ATTR_DEST)?) {
        let attribute = attribute?;
        match attribute.kind() {
            DEST_ATTR_ADDR => destination.address = Ipv4Addr::from(value::<4>(&attribute)?),
            DEST_ATTR_PORT => destination.port = u16::from_be_bytes(value(&attribute)?),
            DEST_ATTR_FWD_METHOD => {
                destination.method = method(u32::from_ne_bytes(value(&attribute)?));
            }
            DEST_ATTR_WEIGHT => destination.weight = i32::from_ne_bytes(value(&attribute)?),
            DEST_ATTR_ADDR_FAMILY => family = u16::from_ne_bytes(value(&attribute)?),
            DEST_ATTR_TUN_TYPE => [destination.tunnel_type] = value(&attribute)?,
            DEST_ATTR_TUN_PORT => {
                destination.tunnel_port = u16::from_be_bytes(value(&attribute)?);
            }
            _ => {}
        }
    }
    Ok((family == AF_INET).then_some(destination))
}

/// What is nested in the first attribute of this kind.
fn inner(attributes: &[u8], kind: u16) -> Result<Vec<u8>, DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == kind {
            return Ok(attribute.value().to_vec());
        }
    }
    Err(format!("attribute {kind} is missing").into())
}

/// An attribute's first octets; an address is longer than the four of IPv4.
fn value<const N: usize>(attribute: &NlaBuffer<&[u8]>) -> Result<[u8; N], DecodeError> {
    let octets = attribute.value();
    octets
        .first_chunk()
        .copied()
        .ok_or_else(|| DecodeError::invalid_number(N, octets.len()))
}

/// An attribute's text, without the NUL at its end.
fn string(attribute: &NlaBuffer<&[u8]>) -> String {
    let octets = attribute.value();
    let end = octets.iter().position(|&octet| octet == 0);
    String::from_utf8_lossy(&octets[..end.unwrap_or(octets.len())]).into_owned()
}

/// Expected octets are written by hand from `include/uapi/linux/ip_vs.h`, `linux/netlink.h` and `linux/genetlink.h`.
#[cfg(all(test, target_endian = "little"))]
mod tests {
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_core::NetlinkPayload;

    use super::*;

    const WEB: IpvsKey = IpvsKey::Address {
        protocol: 6,
        address: Ipv4Addr::new(192, 0, 2, 10),
        port: 80,
    };

    /// `WEB`'s attributes: family, protocol, address in 16 octets, port in network order.
    #[rustfmt::skip]
    const WEB_KEY: [u8; 44] = [
        6, 0, 1, 0,  2, 0, 0, 0,
        6, 0, 2, 0,  6, 0, 0, 0,
        20, 0, 3, 0,  192, 0, 2, 10,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
        6, 0, 4, 0,  0, 80, 0, 0,
    ];

    fn tunnelled() -> IpvsDestination {
        IpvsDestination {
            address: Ipv4Addr::new(203, 0, 113, 5),
            port: 80,
            method: IpvsMethod::Tunnel,
            weight: 7,
            tunnel_type: 0,
            tunnel_port: 0,
        }
    }

    #[test]
    fn a_message_has_the_kernels_headers() {
        let mut message = NetlinkMessage::from(message(
            0x1c,
            CMD_GET_DEST,
            vec![DefaultNla::new(1, vec![9])],
        ));
        message.header.flags = 0x0301;
        message.header.sequence_number = 5;
        message.finalize();
        let mut octets = vec![0xa5; message.buffer_len()];
        message.serialize(&mut octets);
        #[rustfmt::skip]
        let expected = [
            // struct nlmsghdr: length, family, NLM_F_REQUEST|NLM_F_DUMP, sequence, port
            28, 0, 0, 0,  0x1c, 0,  0x01, 0x03,  5, 0, 0, 0,  0, 0, 0, 0,
            // struct genlmsghdr: IPVS_CMD_GET_DEST, IPVS_GENL_VERSION, reserved
            8, 1, 0, 0,
            5, 0, 1, 0,  9, 0, 0, 0,
        ];
        assert_eq!(octets, expected);

        let NetlinkPayload::InnerMessage(read) =
            NetlinkMessage::<GenlMessage<Body>>::deserialize(&expected)
                .unwrap()
                .payload
        else {
            panic!("no inner message");
        };
        assert_eq!(read.payload.command, 8);
        assert_eq!(read.payload.attributes, expected[20..]);
    }

    #[test]
    fn a_service_is_named_by_address_or_by_mark() {
        assert_eq!(emit(&key_attributes(&WEB)), WEB_KEY);
        #[rustfmt::skip]
        let mark = [
            6, 0, 1, 0,  2, 0, 0, 0,
            8, 0, 5, 0,  0x2a, 0, 0, 0,
        ];
        assert_eq!(emit(&key_attributes(&IpvsKey::Fwmark(42))), mark);
    }

    #[test]
    fn a_new_service_is_whole() {
        let service = nested(CMD_ATTR_SERVICE, service_attributes(&WEB, "wlc"));
        let mut expected = vec![84, 0, 1, 0x80];
        expected.extend(WEB_KEY);
        #[rustfmt::skip]
        expected.extend([
            8, 0, 6, 0,  b'w', b'l', b'c', 0,
            12, 0, 7, 0,  0, 0, 0, 0,  0xff, 0xff, 0xff, 0xff,
            8, 0, 8, 0,  0, 0, 0, 0,
            8, 0, 9, 0,  0xff, 0xff, 0xff, 0xff,
        ]);
        assert_eq!(emit(&[service]), expected);
    }

    #[rustfmt::skip]
    const TUNNELLED: [u8; 76] = [
        20, 0, 1, 0,  203, 0, 113, 5,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
        6, 0, 2, 0,  0, 80, 0, 0,
        6, 0, 11, 0,  2, 0, 0, 0,
        8, 0, 3, 0,  2, 0, 0, 0,
        8, 0, 4, 0,  7, 0, 0, 0,
        8, 0, 5, 0,  0, 0, 0, 0,
        8, 0, 6, 0,  0, 0, 0, 0,
        8, 0, 0x10, 0,  0, 0, 0, 0,
    ];

    #[test]
    fn a_destination_is_whole() {
        let octets = emit(&destination_attributes(&tunnelled()));
        assert_eq!(octets, TUNNELLED[..68]);
        let gue = IpvsDestination {
            tunnel_type: 1,
            tunnel_port: 6080,
            ..tunnelled()
        };
        let octets = emit(&destination_attributes(&gue));
        #[rustfmt::skip]
        assert_eq!(octets[68..], [
            5, 0, 13, 0,  1, 0, 0, 0,
            6, 0, 14, 0,  0x17, 0xc0, 0, 0,
        ]);
    }

    /// As a kernel answers GET_SERVICE: with attributes that are not read, statistics among them.
    #[test]
    fn services_are_read() {
        let mut service = vec![80, 0, 1, 0];
        service.extend(WEB_KEY);
        #[rustfmt::skip]
        service.extend([
            8, 0, 6, 0,  b'w', b'r', b'r', 0,
            12, 0, 7, 0,  2, 0, 0, 0,  0xff, 0xff, 0xff, 0xff,
            12, 0, 10, 0,  8, 0, 1, 0,  1, 0, 0, 0,
        ]);
        let read = decode_service(&service).unwrap().expect("a service");
        assert_eq!(read.key, WEB);
        assert_eq!(read.scheduler, "wrr");

        let mut marked = vec![28, 0, 1, 0];
        #[rustfmt::skip]
        marked.extend([
            6, 0, 1, 0,  2, 0, 0, 0,
            8, 0, 5, 0,  0x2a, 0, 0, 0,
            7, 0, 6, 0,  b'r', b'r', 0, 0,
        ]);
        let read = decode_service(&marked).unwrap().expect("a service");
        assert_eq!(read.key, IpvsKey::Fwmark(42));

        // AF_INET6
        marked[8] = 10;
        assert_eq!(decode_service(&marked).unwrap(), None);
    }

    #[test]
    fn destinations_are_read() {
        let mut octets = vec![80, 0, 2, 0];
        octets.extend(TUNNELLED);
        let read = |octets: &[u8]| decode_destination(octets).unwrap();
        assert_eq!(read(&octets), Some(tunnelled()));

        // Forwarding method: flags stand above its three bits.
        octets[4 + 40..][..2].copy_from_slice(&[0x03, 0x01]);
        assert_eq!(read(&octets).unwrap().method, IpvsMethod::Route);

        // IPVS_DEST_ATTR_TUN_TYPE gue, in place of the attribute that is not read
        octets[4 + 68..].copy_from_slice(&[5, 0, 13, 0, 1, 0, 0, 0]);
        assert_eq!(read(&octets).unwrap().tunnel_type, 1);

        // IPVS_DEST_ATTR_TUN_PORT 6080
        octets[4 + 68..].copy_from_slice(&[6, 0, 14, 0, 0x17, 0xc0, 0, 0]);
        assert_eq!(read(&octets).unwrap().tunnel_port, 6080);

        // IPVS_DEST_ATTR_ADDR_FAMILY AF_INET6
        octets[4 + 32] = 10;
        assert_eq!(read(&octets), None);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let mut octets = vec![80, 0, 2, 0];
        octets.extend(TUNNELLED);
        for length in 0..octets.len() {
            assert!(decode_destination(&octets[..length]).is_err(), "{length}");
        }
        // A port of one octet.
        assert!(decode_destination(&[9, 0, 2, 0, 5, 0, 2, 0, 80, 0, 0, 0]).is_err());
        assert!(
            decode_service(&octets).is_err(),
            "a destination is no service"
        );
    }

    #[test]
    fn the_family_is_found_in_the_controllers_list() {
        #[rustfmt::skip]
        let octets = [
            9, 0, 2, 0,  b'I', b'P', b'V', b'S', 0, 0, 0, 0,
            6, 0, 1, 0,  0x23, 0, 0, 0,
            8, 0, 3, 0,  1, 0, 0, 0,
        ];
        let found = decode_family(&octets).unwrap();
        assert_eq!(found, ("IPVS".to_owned(), 0x23));
    }
}
