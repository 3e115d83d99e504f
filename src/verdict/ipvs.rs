//! What IPVS's table says of a path.

use std::net::Ipv4Addr;

use crate::exchange::Ipvs;
use crate::exchange::IpvsDestination;
use crate::exchange::IpvsKey;
use crate::exchange::IpvsMethod;
use crate::plan::Host;
use crate::plan::Protocol;
use crate::verdict::Code;
use crate::verdict::case::Case;

const DIRECTOR: Host = Host::Director;
/// `IP_VS_CONN_F_TUNNEL_TYPE_IPIP` (`include/uapi/linux/ip_vs.h`).
const IPIP: u8 = 0;

/// What IPVS's table lacks for this path: code, one line, commands.
pub(super) fn fault(case: &Case<'_>) -> Option<(Code, String, Vec<String>)> {
    let facts = case.facts(DIRECTOR)?;
    let (vip, port, rip) = (case.path.vip, case.path.port, case.path.rip);
    let flag = match case.path.protocol {
        Protocol::Tcp => "-t",
        Protocol::Udp => "-u",
    };
    let service = format!("{flag} {vip}:{port}");
    let add_service = case.on(DIRECTOR, format!("ipvsadm -A {service} -s wlc"));
    let add_server = case.on(DIRECTOR, format!("ipvsadm -a {service} -r {rip} -i"));
    let services = match &facts.ipvs {
        Ipvs::Unknown => return None,
        Ipvs::Absent => {
            let summary = "IPVS is not loaded on the director".to_owned();
            let load = case.on(DIRECTOR, "modprobe ip_vs");
            return Some((
                Code::IpvsServiceMissing,
                summary,
                vec![load, add_service, add_server],
            ));
        }
        Ipvs::Services(services) => services,
    };
    let mut taking = services
        .iter()
        .filter(|service| takes(case, &service.key))
        .peekable();
    if taking.peek().is_none() {
        let summary = format!("IPVS has no service {vip}:{port}");
        return Some((
            Code::IpvsServiceMissing,
            summary,
            vec![add_service, add_server],
        ));
    }
    let destination: Option<&IpvsDestination> = taking
        .flat_map(|service| &service.destinations)
        .find(|destination| destination.address == rip);
    let edit =
        |what: &str| vec![case.on(DIRECTOR, format!("ipvsadm -e {service} -r {rip} {what}"))];
    match destination {
        None => Some((
            Code::IpvsDestinationMissing,
            format!("IPVS's service {vip}:{port} has no real server {rip}"),
            vec![add_server],
        )),
        Some(d) if d.method != IpvsMethod::Tunnel => Some((
            Code::IpvsNotTunnel,
            format!(
                "IPVS forwards to {rip} by {}, not by Tunnel",
                method(d.method)
            ),
            edit("-i"),
        )),
        Some(d) if d.tunnel_type != IPIP => Some((
            Code::IpvsTunnelTypeMismatch,
            format!(
                "IPVS encapsulates what is for {rip} by {}, not by IPIP",
                tunnel_type(d)
            ),
            edit("-i --tun-type ipip"),
        )),
        Some(d) if d.weight <= 0 => Some((
            Code::IpvsWeightZero,
            format!(
                "the weight of {rip} is {}: it takes no new connections",
                d.weight
            ),
            edit("-i -w 1"),
        )),
        Some(_) => None,
    }
}

fn tunnel_type(destination: &IpvsDestination) -> String {
    match destination.tunnel_type {
        1 => format!("GUE (UDP port {})", destination.tunnel_port),
        2 => "GRE".to_owned(),
        number => format!("tunnel type {number}"),
    }
}

/// Another real server of the service that IPVS sends packets to without a tunnel, if there is one.
pub(super) fn untunnelled(case: &Case<'_>) -> Option<Ipv4Addr> {
    let Ipvs::Services(services) = &case.facts(DIRECTOR)?.ipvs else {
        return None;
    };
    services
        .iter()
        .filter(|service| takes(case, &service.key))
        .flat_map(|service| &service.destinations)
        .find(|d| d.address != case.path.rip && d.weight > 0 && d.method != IpvsMethod::Tunnel)
        .map(|d| d.address)
}

/// Whether a service takes the path's packets.
fn takes(case: &Case<'_>, key: &IpvsKey) -> bool {
    match key {
        IpvsKey::Fwmark(_) => true,
        IpvsKey::Address {
            protocol,
            address,
            port,
        } => {
            *protocol == case.path.protocol.number()
                && *address == case.path.vip
                && (*port == case.path.port || *port == 0)
        }
    }
}

fn method(method: IpvsMethod) -> String {
    match method {
        IpvsMethod::Masq => "Masq".to_owned(),
        IpvsMethod::Local => "Local".to_owned(),
        IpvsMethod::Tunnel => "Tunnel".to_owned(),
        IpvsMethod::Route => "Route".to_owned(),
        IpvsMethod::Other(number) => format!("method {number}"),
    }
}
