//! Where a capture file was made, the user says; what is in it may contradict.
//!
//! A file that was taken upstream of where it is said to be from would prove what lies between: the real server's
//! own capture, taken for the client's, an ISP that drops every answer.

use std::fmt;
use std::net::Ipv4Addr;

use crate::evidence::Evidence;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::RouteAnswer;
use crate::exchange::Way;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;

/// Why a packet cannot have been captured where it is said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The probe.
    pub probe: ProbeId,
    /// The outermost source.
    pub source: Ipv4Addr,
    /// The outermost destination.
    pub destination: Ipv4Addr,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// The client is at no end of the tunnel.
    Tunnel,
    /// The real server answers the client, and not through the director.
    Answer,
    /// It is as it left a host, by a router.
    Leaving { host: String, gateway: Ipv4Addr },
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source, self.destination);
        write!(
            f,
            "{} from {source} to {destination} is there, ",
            self.probe
        )?;
        match &self.why {
            Why::Tunnel => f.write_str("in the tunnel, which does not come by the client"),
            Why::Answer => f.write_str(
                "which passes the director only if it is the real server's router as well",
            ),
            Why::Leaving { host, gateway } => {
                write!(f, "as it left {host} for its router {gateway}")
            }
        }
    }
}

/// What is wrong with it that a packet was captured at `host`, if that is known.
pub fn elsewhere(
    evidence: &Evidence,
    host: Host,
    capture: &Capture,
    sighting: &Sighting,
) -> Option<Elsewhere> {
    let is_impossible = match host {
        Host::Client => in_the_tunnel(evidence, sighting).then_some(Why::Tunnel),
        Host::Director => answers_the_client(evidence, sighting).then_some(Why::Answer),
        Host::Realserver(_) => None,
    };
    let why = is_impossible.or_else(|| leaving(evidence, host, capture, sighting))?;
    Some(Elsewhere {
        probe: sighting.probe,
        source: sighting.source,
        destination: sighting.destination,
        why,
    })
}

/// Whether it is on its way from the director to a real server.
fn in_the_tunnel(evidence: &Evidence, sighting: &Sighting) -> bool {
    let by_client = matches!(
        sighting.probe.kind,
        ProbeKind::OpenTunnel | ProbeKind::SpoofTunnel | ProbeKind::Script
    );
    let mut rips = evidence.plan().paths.iter().map(|path| path.rip);
    sighting.form == Form::Tunnelled && !by_client && rips.any(|rip| rip == sighting.destination)
}

/// Whether it is what only a real server sends to the client.
fn answers_the_client(evidence: &Evidence, sighting: &Sighting) -> bool {
    // What answers another's probe may be the director itself, which has the VIP, too.
    let by_realserver = matches!(
        sighting.probe.kind,
        ProbeKind::SpoofTrace
            | ProbeKind::ControlTrace
            | ProbeKind::SpoofSynack
            | ProbeKind::ControlSynack
    );
    let (source, destination) = (sighting.source, sighting.destination);
    let mut paths = (0..).zip(&evidence.plan().paths);
    by_realserver
        && paths.any(|(number, path)| {
            let directly = [path.vip, path.rip].contains(&source) && destination == path.cip;
            let router = gateway(evidence, Host::Realserver(number), path.cip);
            directly && (router.is_none() || router != path.dip)
        })
}

/// Whether it is as a vantage sent it, which reaches the host by a router.
fn leaving(evidence: &Evidence, host: Host, capture: &Capture, sighting: &Sighting) -> Option<Why> {
    let source = capture.link_source?;
    let path = &evidence.plan().paths[match host {
        Host::Realserver(path) => path,
        Host::Director | Host::Client => 0,
    }];
    let to = match host {
        Host::Client => path.cip,
        Host::Realserver(_) => path.rip,
        Host::Director => path.dip?,
    };
    let ttl = |bytes: &[u8]| bytes.get(8).copied();
    evidence.about(sighting.probe).find_map(|item| {
        let What::Sent { transmit, .. } = &item.what else {
            return None;
        };
        let as_sent = transmit.way == Way::Stack && ttl(&transmit.bytes) == ttl(&capture.bytes);
        let links = &evidence.facts(item.host)?.links;
        let is_its_own = links.iter().any(|link| link.mac == Some(source));
        if item.host == host || !as_sent || !is_its_own {
            return None;
        }
        let gateway = gateway(evidence, item.host, to)?;
        Some(Why::Leaving {
            host: evidence.plan().host_name(item.host),
            gateway,
        })
    })
}

/// The router by which a host reaches an address, if all that its kernel said of that agrees.
fn gateway(evidence: &Evidence, host: Host, to: Ipv4Addr) -> Option<Ipv4Addr> {
    let routes = evidence.facts(host)?.routes.iter();
    let mut gateways = routes
        .filter(|(query, _)| query.to == to && query.iif.is_none())
        .map(|(_, answer)| match answer {
            RouteAnswer::Route(route) => route.gateway.filter(|gateway| *gateway != to),
            RouteAnswer::Error { .. } => None,
        });
    let first = gateways.next()??;
    gateways.all(|other| other.is_some()).then_some(first)
}
