//! The kernel's IPVS, by generic netlink: read for the facts, written for the lab.
//!
//! Everything acts on the calling thread's network namespace and needs `CAP_NET_ADMIN` there. IPv4 only: services
//! and destinations of IPv6 are not listed.

mod message;

use std::net::Ipv4Addr;

use netlink_packet_core::DecodeError;
use netlink_packet_core::DefaultNla;
use netlink_packet_generic::GenlFamily;
use netlink_packet_generic::GenlMessage;
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::exchange::Ipvs;
use crate::exchange::IpvsDestination;
use crate::exchange::IpvsKey;
use crate::exchange::IpvsService;
use crate::live::ipvs::message::Body;
use crate::live::ipvs::message::CMD_ATTR_DEST;
use crate::live::ipvs::message::CMD_ATTR_SERVICE;
use crate::live::ipvs::message::CMD_DEL_DEST;
use crate::live::ipvs::message::CMD_DEL_SERVICE;
use crate::live::ipvs::message::CMD_FLUSH;
use crate::live::ipvs::message::CMD_GET_DEST;
use crate::live::ipvs::message::CMD_GET_SERVICE;
use crate::live::ipvs::message::CMD_NEW_DEST;
use crate::live::ipvs::message::CMD_NEW_SERVICE;
use crate::live::ipvs::message::CMD_SET_DEST;
use crate::live::ipvs::message::CONTROLLER;
use crate::live::ipvs::message::CTRL_ATTR_FAMILY_NAME;
use crate::live::ipvs::message::CTRL_CMD_GETFAMILY;
use crate::live::ipvs::message::decode_destination;
use crate::live::ipvs::message::decode_family;
use crate::live::ipvs::message::decode_service;
use crate::live::ipvs::message::destination_attributes;
use crate::live::ipvs::message::destination_key_attributes;
use crate::live::ipvs::message::key_attributes;
use crate::live::ipvs::message::message;
use crate::live::ipvs::message::nested;
use crate::live::ipvs::message::service_attributes;
use crate::live::netlink::Answer;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;

/// The IPVS of the namespace; `ipvsadm -Ln`. Asking loads no module.
///
/// # Errors
///
/// If there is IPVS and it could not be asked, as without `CAP_NET_ADMIN`.
pub fn read() -> Result<Ipvs, NetlinkError> {
    match Control::open()? {
        Some(mut control) => Ok(Ipvs::Services(control.services()?)),
        None => Ok(Ipvs::Absent),
    }
}

/// Has the kernel load its IPVS, if it can; `modprobe ip_vs`. Whether it did, [`Control::open`] says.
///
/// # Errors
///
/// If the kernel could not be asked.
pub fn load() -> Result<(), NetlinkError> {
    let name = format!("{}\0", Body::family_name()).into_bytes();
    let ask = message(
        CONTROLLER,
        CTRL_CMD_GETFAMILY,
        vec![DefaultNla::new(CTRL_ATTR_FAMILY_NAME, name)],
    );
    match Netlink::open(NETLINK_GENERIC)?.request(ask, 0) {
        Err(error) if error.refusal().is_none() => Err(error),
        _ => Ok(()),
    }
}

/// A conversation with the kernel's IPVS.
pub struct Control {
    netlink: Netlink,
    family: u16,
}

impl Control {
    /// Opens one in the calling thread's network namespace; `None` if the kernel has no IPVS, or has not loaded it.
    ///
    /// The family is looked for in the list of all families: a look-up by its name would make the kernel load
    /// `ip_vs` (since 5.11), and a question must not change the host.
    ///
    /// # Errors
    ///
    /// If the kernel could not be asked.
    pub fn open() -> Result<Option<Control>, NetlinkError> {
        let mut netlink = Netlink::open(NETLINK_GENERIC)?;
        let ask = message(CONTROLLER, CTRL_CMD_GETFAMILY, Vec::new());
        for message in complete(netlink.dump(ask)?)? {
            let (name, id) = decode_family(&message.payload.attributes).map_err(unreadable)?;
            if name == Body::family_name() {
                return Ok(Some(Control {
                    netlink,
                    family: id,
                }));
            }
        }
        Ok(None)
    }

    /// All services with their destinations.
    ///
    /// # Errors
    ///
    /// If the kernel refused, or its answer cannot be read.
    pub fn services(&mut self) -> Result<Vec<IpvsService>, NetlinkError> {
        let mut services = Vec::new();
        let ask = message(self.family, CMD_GET_SERVICE, Vec::new());
        for answer in complete(self.netlink.dump(ask)?)? {
            services.extend(decode_service(&answer.payload.attributes).map_err(unreadable)?);
        }
        for service in &mut services {
            let ask = message(
                self.family,
                CMD_GET_DEST,
                vec![nested(CMD_ATTR_SERVICE, key_attributes(&service.key))],
            );
            for answer in complete(self.netlink.dump(ask)?)? {
                service
                    .destinations
                    .extend(decode_destination(&answer.payload.attributes).map_err(unreadable)?);
            }
        }
        Ok(services)
    }

    /// Adds a service; `ipvsadm -A -t VIP:PORT -s SCHEDULER`.
    ///
    /// # Errors
    ///
    /// If the kernel refused: EEXIST, ENOENT where it has no such scheduler, EPERM.
    pub fn add_service(&mut self, key: &IpvsKey, scheduler: &str) -> Result<(), NetlinkError> {
        let service = nested(CMD_ATTR_SERVICE, service_attributes(key, scheduler));
        self.command(CMD_NEW_SERVICE, vec![service])
    }

    /// Deletes a service with its destinations; `ipvsadm -D -t VIP:PORT`.
    ///
    /// # Errors
    ///
    /// If the kernel refused: ESRCH where there is none, EPERM.
    pub fn delete_service(&mut self, key: &IpvsKey) -> Result<(), NetlinkError> {
        let service = nested(CMD_ATTR_SERVICE, key_attributes(key));
        self.command(CMD_DEL_SERVICE, vec![service])
    }

    /// Adds a destination to a service; `ipvsadm -a -t VIP:PORT -r RIP:PORT -i -w WEIGHT`.
    ///
    /// # Errors
    ///
    /// If the kernel refused: EEXIST, ESRCH where there is no such service, EPERM, EINVAL for a broadcast address,
    /// as which every address counts in a namespace that has no address of its own, not even `lo` up.
    pub fn add_destination(
        &mut self,
        service: &IpvsKey,
        destination: &IpvsDestination,
    ) -> Result<(), NetlinkError> {
        self.destination_command(CMD_NEW_DEST, service, destination_attributes(destination))
    }

    /// Changes a destination's method, weight and tunnel; `ipvsadm -e -t VIP:PORT -r RIP:PORT …`.
    ///
    /// # Errors
    ///
    /// If the kernel refused: ENOENT where there is no such destination, ESRCH no such service, EPERM.
    pub fn edit_destination(
        &mut self,
        service: &IpvsKey,
        destination: &IpvsDestination,
    ) -> Result<(), NetlinkError> {
        self.destination_command(CMD_SET_DEST, service, destination_attributes(destination))
    }

    /// Takes a destination out of a service; `ipvsadm -d -t VIP:PORT -r RIP:PORT`.
    ///
    /// # Errors
    ///
    /// If the kernel refused: ENOENT where there is no such destination, ESRCH no such service, EPERM.
    pub fn delete_destination(
        &mut self,
        service: &IpvsKey,
        address: Ipv4Addr,
        port: u16,
    ) -> Result<(), NetlinkError> {
        let attributes = destination_key_attributes(address, port);
        self.destination_command(CMD_DEL_DEST, service, attributes)
    }

    /// Deletes every service; `ipvsadm -C`.
    ///
    /// # Errors
    ///
    /// If the kernel refused: EPERM.
    pub fn flush(&mut self) -> Result<(), NetlinkError> {
        self.command(CMD_FLUSH, Vec::new())
    }

    fn destination_command(
        &mut self,
        command: u8,
        service: &IpvsKey,
        destination: Vec<DefaultNla>,
    ) -> Result<(), NetlinkError> {
        let attributes = vec![
            nested(CMD_ATTR_SERVICE, key_attributes(service)),
            nested(CMD_ATTR_DEST, destination),
        ];
        self.command(command, attributes)
    }

    fn command(&mut self, command: u8, attributes: Vec<DefaultNla>) -> Result<(), NetlinkError> {
        self.netlink
            .request(message(self.family, command, attributes), 0)?;
        Ok(())
    }
}

fn complete(answer: Answer<GenlMessage<Body>>) -> Result<Vec<GenlMessage<Body>>, NetlinkError> {
    match answer.undecoded.into_iter().next() {
        None => Ok(answer.messages),
        Some(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: DecodeError) -> NetlinkError {
    NetlinkError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::exchange::IpvsMethod;
    use crate::live::testbed::in_namespace;
    use crate::live::testbed::ip;

    fn ipvsadm() -> String {
        let run = Command::new("ipvsadm").args(["-S", "-n"]).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8(run.stdout).unwrap()
    }

    #[ignore = "needs a kernel with IPVS, ip_vs loaded, and ipvsadm"]
    #[test]
    fn the_kernels_own_ipvs_is_written_and_read() {
        in_namespace(
            concat!(module_path!(), "::the_kernels_own_ipvs_is_written_and_read"),
            || {
                // The kernel looks destinations up among the local addresses: there must be a table of them.
                ip("link set lo up");
                let mut control = Control::open().unwrap().expect("ip_vs loaded");
                assert_eq!(read().unwrap(), Ipvs::Services(Vec::new()));
                let web = IpvsKey::Address {
                    protocol: 6,
                    address: Ipv4Addr::new(192, 0, 2, 10),
                    port: 80,
                };
                let destination = |host, method, weight| IpvsDestination {
                    address: Ipv4Addr::new(203, 0, 113, host),
                    port: 80,
                    method,
                    weight,
                    tunnel_type: 0,
                    tunnel_port: 0,
                };
                let first = destination(5, IpvsMethod::Tunnel, 1);
                let second = destination(6, IpvsMethod::Route, 0);
                control.add_service(&web, "wlc").unwrap();
                control.add_destination(&web, &first).unwrap();
                control.add_destination(&web, &second).unwrap();
                control.add_service(&IpvsKey::Fwmark(42), "rr").unwrap();
                let expected = "\
-A -t 192.0.2.10:80 -s wlc
-a -t 192.0.2.10:80 -r 203.0.113.5:80 -i -w 1
-a -t 192.0.2.10:80 -r 203.0.113.6:80 -g -w 0
-A -f 42 -s rr
";
                let sorted = |text: &str| {
                    let mut lines: Vec<_> =
                        text.lines().map(str::trim).map(str::to_owned).collect();
                    lines.sort();
                    lines
                };
                let shown = ipvsadm().replace(" --tun-type ipip", "");
                assert_eq!(sorted(&shown), sorted(expected));

                let mut services = control.services().unwrap();
                services.sort_by_key(|service| matches!(service.key, IpvsKey::Fwmark(_)));
                services[0]
                    .destinations
                    .sort_by_key(|destination| destination.address);
                assert_eq!(services[0].key, web);
                assert_eq!(services[0].scheduler, "wlc");
                assert_eq!(services[0].destinations, [first.clone(), second]);
                assert_eq!(services[1].key, IpvsKey::Fwmark(42));

                let gue = IpvsDestination {
                    weight: 9,
                    tunnel_type: 1,
                    tunnel_port: 6080,
                    ..first
                };
                control.edit_destination(&web, &gue).unwrap();
                control
                    .delete_destination(&web, Ipv4Addr::new(203, 0, 113, 6), 80)
                    .unwrap();
                control.delete_service(&IpvsKey::Fwmark(42)).unwrap();
                let services = control.services().unwrap();
                assert_eq!(services.len(), 1);
                assert_eq!(services[0].destinations, [gue]);

                let again = control.add_service(&web, "rr").unwrap_err();
                assert_eq!(again.refusal(), Some(libc::EEXIST));
                let none = control.delete_service(&IpvsKey::Fwmark(42)).unwrap_err();
                assert_eq!(none.refusal(), Some(libc::ESRCH));
                control.flush().unwrap();
                assert_eq!(read().unwrap(), Ipvs::Services(Vec::new()));
            },
        );
    }
}
