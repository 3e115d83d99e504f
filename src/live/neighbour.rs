//! Neighbour entries: listed, forgotten so that ARP has to work anew, and put back.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourAddress;
use netlink_packet_route::neighbour::NeighbourAttribute;
use netlink_packet_route::neighbour::NeighbourExtFlags;
use netlink_packet_route::neighbour::NeighbourFlags;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::neighbour::NeighbourState;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

use crate::exchange::Link;
use crate::exchange::Neighbour;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;

/// The states in which an entry's hardware address is used: REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT
/// (`NUD_VALID`).
pub(super) const VALID: u16 = 0xde;

/// Why a neighbour entry could not be forgotten or put back.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    /// There is no such device.
    #[error("there is no device `{device}`")]
    NoDevice {
        /// Its name.
        device: String,
        /// Why it was not found.
        source: io::Error,
    },
    /// The kernel could not be asked, or refused.
    #[error("cannot {operation} the neighbour entry of {address} on `{device}`")]
    Netlink {
        /// What was tried: `read`, `delete`, `put back`.
        operation: &'static str,
        /// The neighbour.
        address: Ipv4Addr,
        /// Its device.
        device: String,
        /// Why it failed.
        source: NetlinkError,
    },
}

/// The neighbour entry of `address` on `device`, and the device's index, in the calling thread's network namespace. Person's way:
/// `ip neigh show`.
///
/// # Errors
///
/// If there is no such device, or the kernel cannot be asked.
pub fn find(address: Ipv4Addr, device: &str) -> Result<Option<(Neighbour, u32)>, NeighbourError> {
    let mut entry = Entry::open(address, device)?;
    let found = entry.read()?;
    Ok(found.map(|message| (neighbour(&message, device, address), entry.index)))
}

/// Deletes the neighbour entry of `address` on `device`, in the calling thread's network namespace, and
/// returns what it was: `None` if there was none, or if it is not the kernel's own to forget, because a person
/// made it (PERMANENT, NOARP) or a routing daemon did (`extern_learn`, `managed`). Person's way: `ip neigh del`.
///
/// # Errors
///
/// If there is no such device, or the process may not (`CAP_NET_ADMIN`).
pub fn forget(address: Ipv4Addr, device: &str) -> Result<Option<Neighbour>, NeighbourError> {
    let mut entry = Entry::open(address, device)?;
    let Some(old) = entry.read()? else {
        return Ok(None);
    };
    if !is_dynamic(&old) {
        return Ok(None);
    }
    let delete = RouteNetlinkMessage::DelNeighbour(entry.message());
    match entry.netlink.request(delete, 0) {
        Ok(_) => Ok(Some(neighbour(&old, device, address))),
        Err(error) if error.refusal() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(entry.failed("delete", error)),
    }
}

/// Puts a forgotten entry back as STALE with its old hardware address, unless the kernel has a usable entry by
/// then or the old one had no hardware address. In the calling thread's network namespace; on the device of this index,
/// whatever its name is by now.
///
/// # Errors
///
/// If the device is gone, or the process may not (`CAP_NET_ADMIN`).
pub fn restore(old: &Neighbour, index: u32) -> Result<(), NeighbourError> {
    let Some(mac) = old.mac else {
        return Ok(());
    };
    let mut entry = Entry::on(old.ip, &old.device, index)?;
    let put = match entry.read() {
        Ok(Some(new)) if u16::from(new.header.state) & VALID != 0 => return Ok(()),
        Ok(_) => entry.put(mac),
        Err(error) => Err(error),
    };
    put.map_err(|error| match error {
        NeighbourError::Netlink { device, source, .. }
            if source.refusal() == Some(libc::ENODEV) =>
        {
            let source = io::Error::from_raw_os_error(libc::ENODEV);
            NeighbourError::NoDevice { device, source }
        }
        error => error,
    })
}

/// The entries of `addresses` on `links`: asked one by one, for the table may be long.
pub(super) fn list(
    netlink: &mut Netlink,
    addresses: &[Ipv4Addr],
    links: &[&Link],
) -> Result<Vec<Neighbour>, NetlinkError> {
    let mut found = Vec::new();
    for &address in addresses {
        for link in links {
            match read(netlink, address, link.index) {
                Ok(Some(message)) => found.push(neighbour(&message, &link.name, address)),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.retain(|neighbour| neighbour.state != 0);
    Ok(found)
}

/// Addresses whose hardware address is asked for, and those that did not answer: INCOMPLETE, and FAILED.
pub(super) fn unresolved(
    netlink: &mut Netlink,
) -> Result<(BTreeSet<Ipv4Addr>, BTreeSet<Ipv4Addr>), NetlinkError> {
    let mut ask = NeighbourMessage::default();
    ask.header.family = AddressFamily::Inet;
    let answer = netlink.dump(RouteNetlinkMessage::GetNeighbour(ask))?;
    let (mut asked, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for message in &answer.messages {
        let RouteNetlinkMessage::NewNeighbour(entry) = message else {
            continue;
        };
        let address = entry
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
                _ => None,
            });
        match entry.header.state {
            NeighbourState::Incomplete => asked.extend(address),
            NeighbourState::Failed => failed.extend(address),
            _ => {}
        }
    }
    Ok((asked, failed))
}

/// One entry, and the conversation about it.
struct Entry<'a> {
    netlink: Netlink,
    address: Ipv4Addr,
    device: &'a str,
    index: u32,
}

impl<'a> Entry<'a> {
    fn open(address: Ipv4Addr, device: &'a str) -> Result<Entry<'a>, NeighbourError> {
        let index = if_nametoindex(device).map_err(|error| NeighbourError::NoDevice {
            device: device.to_owned(),
            source: error.into(),
        })?;
        Entry::on(address, device, index)
    }

    fn on(address: Ipv4Addr, device: &'a str, index: u32) -> Result<Entry<'a>, NeighbourError> {
        let netlink = Netlink::open(NETLINK_ROUTE).map_err(|source| NeighbourError::Netlink {
            operation: "read",
            address,
            device: device.to_owned(),
            source,
        })?;
        Ok(Entry {
            netlink,
            address,
            device,
            index,
        })
    }

    fn read(&mut self) -> Result<Option<NeighbourMessage>, NeighbourError> {
        read(&mut self.netlink, self.address, self.index)
            .map_err(|error| self.failed("read", error))
    }

    /// Without NLM_F_REPLACE the kernel keeps the hardware address of an entry that has become usable since it
    /// was read (`neigh_add` clears NEIGH_UPDATE_F_OVERRIDE), and fills in one that has none.
    fn put(&mut self, mac: [u8; 6]) -> Result<(), NeighbourError> {
        let mut message = self.message();
        message.header.state = NeighbourState::Stale;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let put = RouteNetlinkMessage::NewNeighbour(message);
        match self.netlink.request(put, NLM_F_CREATE) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("put back", error)),
        }
    }

    fn message(&self) -> NeighbourMessage {
        message(self.address, self.index)
    }

    fn failed(&self, operation: &'static str, source: NetlinkError) -> NeighbourError {
        NeighbourError::Netlink {
            operation,
            address: self.address,
            device: self.device.to_owned(),
            source,
        }
    }
}

fn read(
    netlink: &mut Netlink,
    address: Ipv4Addr,
    index: u32,
) -> Result<Option<NeighbourMessage>, NetlinkError> {
    let ask = RouteNetlinkMessage::GetNeighbour(message(address, index));
    let answer = match netlink.request(ask, 0) {
        Ok(answer) => answer,
        Err(error) if error.refusal() == Some(libc::ENOENT) => return Ok(None),
        // Before 5.0 the kernel can list them only.
        Err(error) if error.refusal() == Some(libc::EOPNOTSUPP) => {
            let mut ask = NeighbourMessage::default();
            ask.header.family = AddressFamily::Inet;
            netlink.dump(RouteNetlinkMessage::GetNeighbour(ask))?
        }
        Err(error) => return Err(error),
    };
    if let Some(error) = answer.undecoded.first() {
        return Err(NetlinkError::Unreadable(error.to_string()));
    }
    let wanted = NeighbourAttribute::Destination(NeighbourAddress::Inet(address));
    Ok(answer
        .messages
        .into_iter()
        .find_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message)
                if message.header.ifindex == index && message.attributes.contains(&wanted) =>
            {
                Some(message)
            }
            _ => None,
        }))
}

fn message(address: Ipv4Addr, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
            address,
        )));
    message
}

fn is_dynamic(message: &NeighbourMessage) -> bool {
    let managed = message.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags)
            if flags.contains(NeighbourExtFlags::Managed))
    });
    let state = u16::from(message.header.state);
    state & (Neighbour::PERMANENT | Neighbour::NOARP) == 0
        && !message.header.flags.contains(NeighbourFlags::ExtLearned)
        && !managed
}

fn neighbour(message: &NeighbourMessage, device: &str, ip: Ipv4Addr) -> Neighbour {
    Neighbour {
        ip,
        device: device.to_owned(),
        mac: message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
                _ => None,
            }),
        state: message.header.state.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::testbed::in_namespace;
    use crate::live::testbed::ip;
    use crate::live::testbed::ip_says;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A device with nobody behind it, whose entry for the gateway is in the state `nud`.
    fn entry(nud: &str) {
        ip(&format!(
            "link add eth0 type veth peer name eth1
             link set eth0 up
             link set eth1 up arp off
             address add 203.0.113.5/24 dev eth0
             neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev eth0 nud {nud}"
        ));
    }

    /// The gateway's hardware address and state, as `ip` shows them.
    fn shown() -> Option<(String, String)> {
        let shown = ip_says("neigh show 203.0.113.1 dev eth0 nud all");
        let entry = shown.as_array()?.first()?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Some((text(&entry["lladdr"]), text(&entry["state"][0])))
    }

    fn index() -> u32 {
        if_nametoindex("eth0").unwrap()
    }

    fn usable(state: &str) -> Option<(String, String)> {
        Some(("02:00:00:00:00:01".to_owned(), state.to_owned()))
    }

    #[test]
    fn a_dynamic_entry_is_forgotten_and_put_back() {
        in_namespace(
            concat!(
                module_path!(),
                "::a_dynamic_entry_is_forgotten_and_put_back"
            ),
            || {
                entry("reachable");
                let old = forget(GATEWAY, "eth0").unwrap().expect("an entry");
                assert_eq!((old.ip, old.mac, old.state), (GATEWAY, Some(MAC), 2));
                assert_eq!(old.device, "eth0");
                assert_eq!(shown(), None);
                assert_eq!(forget(GATEWAY, "eth0").unwrap(), None, "it is gone");

                restore(&old, index()).unwrap();
                assert_eq!(shown(), usable("STALE"));
            },
        );
    }

    #[test]
    fn an_entry_is_put_back_on_a_device_that_was_renamed() {
        in_namespace(
            concat!(
                module_path!(),
                "::an_entry_is_put_back_on_a_device_that_was_renamed"
            ),
            || {
                entry("reachable");
                let index = index();
                let old = forget(GATEWAY, "eth0").unwrap().expect("an entry");
                ip("link set eth0 down
                    link set eth0 name lan0
                    link set lan0 up");
                restore(&old, index).unwrap();
                let shown = ip_says("neigh show 203.0.113.1 dev lan0 nud all").to_string();
                assert!(shown.contains("02:00:00:00:00:01"), "{shown}");
                ip("link del lan0");
                let error = restore(&old, index).unwrap_err();
                assert_eq!(error.to_string(), "there is no device `eth0`");
            },
        );
    }

    #[test]
    fn what_a_person_or_a_daemon_made_stays() {
        in_namespace(
            concat!(module_path!(), "::what_a_person_or_a_daemon_made_stays"),
            || {
                entry("permanent");
                assert_eq!(forget(GATEWAY, "eth0").unwrap(), None);
                assert_eq!(shown(), usable("PERMANENT"));

                ip("neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 dev eth0 nud noarp");
                assert_eq!(forget(GATEWAY, "eth0").unwrap(), None);
                assert_eq!(shown(), usable("NOARP"));

                ip("neigh del 203.0.113.1 dev eth0
                    neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev eth0 nud reachable extern_learn");
                assert_eq!(forget(GATEWAY, "eth0").unwrap(), None);
                assert_eq!(shown(), usable("REACHABLE"));
            },
        );
    }

    #[test]
    fn a_usable_entry_is_not_overwritten() {
        in_namespace(
            concat!(module_path!(), "::a_usable_entry_is_not_overwritten"),
            || {
                entry("permanent");
                let old = Neighbour {
                    ip: GATEWAY,
                    device: "eth0".to_owned(),
                    mac: Some([2, 0, 0, 0, 0, 9]),
                    state: 2,
                };
                restore(&old, index()).unwrap();
                assert_eq!(shown(), usable("PERMANENT"));
                ip("neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 dev eth0 nud reachable");
                restore(&old, index()).unwrap();
                assert_eq!(shown(), usable("REACHABLE"));
            },
        );
    }

    #[test]
    fn an_entry_that_became_usable_meanwhile_is_not_overwritten() {
        in_namespace(
            concat!(
                module_path!(),
                "::an_entry_that_became_usable_meanwhile_is_not_overwritten"
            ),
            || {
                entry("reachable");
                let mut entry = Entry::open(GATEWAY, "eth0").unwrap();
                entry.put([2, 0, 0, 0, 0, 9]).unwrap();
                assert_eq!(shown(), usable("REACHABLE"));
            },
        );
    }

    #[test]
    fn an_entry_that_failed_is_put_right() {
        in_namespace(
            concat!(module_path!(), "::an_entry_that_failed_is_put_right"),
            || {
                entry("reachable");
                let old = forget(GATEWAY, "eth0").unwrap().expect("an entry");
                ip("neigh add 203.0.113.1 dev eth0 nud failed");
                assert_eq!(shown(), Some((String::new(), "FAILED".to_owned())));
                restore(&old, index()).unwrap();
                assert_eq!(shown(), usable("STALE"));
            },
        );
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        in_namespace(
            concat!(module_path!(), "::a_device_that_is_not_there_is_named"),
            || {
                let error = forget(GATEWAY, "eth7").unwrap_err();
                assert_eq!(error.to_string(), "there is no device `eth7`");
            },
        );
    }
}
