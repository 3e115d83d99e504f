//! Which stations a probe and its answers must pass, in order, and which hops each leg proves.

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Hop;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;

/// What an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quoting {
    /// The probe still in its tunnel (protocol 4).
    Tunnelled,
    /// The probe itself, outside a tunnel.
    Plain,
    /// What the probe caused: a SYN-ACK, an RST, an ICMP error.
    Answer,
}

/// The shape in which a probe, or what it caused, is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The probe, encapsulated in IPIP; a packet that a suite writes out, in more headers than it was sent
    /// with.
    Tunnelled,
    /// The probe itself: never encapsulated, or taken out of the tunnel; a packet that a suite writes out,
    /// as it was sent.
    Plain,
    /// What was in the outermost header of a packet that a suite writes out.
    Decapsulated,
    /// A SYN-ACK that acknowledges the probe's SYN.
    SynAck,
    /// The RST (no ACK) with which a host answers a SYN-ACK it did not ask for.
    Rst,
    /// The RST/ACK of a closed port, acknowledging the probe's SYN.
    Refused,
    /// An ICMP error that quotes the probe.
    IcmpError {
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        code: u8,
        /// What is quoted.
        of: Quoting,
    },
    /// The RST with which tunproof itself closes what a SYN opened.
    Cleanup,
    /// A datagram from the service to the probe's port: a UDP service's answer, which carries nothing of the
    /// probe's but its ports. To a packet that a suite writes out also an ICMP or ARP reply.
    Reply,
}

impl Form {
    /// ICMP port unreachable for a probe outside a tunnel.
    pub const PORT_UNREACHABLE: Form = Form::IcmpError {
        icmp_type: 3,
        code: 3,
        of: Quoting::Plain,
    };
}

/// A point of an itinerary: a station, the form in which the packet must be seen there, and the hops
/// that lie between the point before and this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waypoint {
    /// Where.
    pub station: Station,
    /// In which form.
    pub form: Form,
    /// The hops proven by passing from the waypoint before (or from sending) to this one, in path order.
    pub hops: &'static [Hop],
}

const fn at(station: Station, form: Form, hops: &'static [Hop]) -> Waypoint {
    Waypoint {
        station,
        form,
        hops,
    }
}

const TUNNEL_IN: Waypoint = at(
    Station::RealserverIn,
    Form::Tunnelled,
    &[Hop::DirectorToRealserver],
);
const DECAPSULATED: Waypoint = at(
    Station::RealserverTunnel,
    Form::Plain,
    &[Hop::Decapsulation],
);
const PROBE_LEAVES: Waypoint = at(
    Station::DirectorOut,
    Form::Tunnelled,
    &[Hop::DirectorToRealserver],
);
const FORWARDED: Waypoint = at(
    Station::DirectorOut,
    Form::Tunnelled,
    &[Hop::DirectorForward, Hop::DirectorSource],
);
const SYN_ACK_LEAVES: Waypoint = at(
    Station::RealserverOut,
    Form::SynAck,
    &[
        Hop::RealserverAccept,
        Hop::Service,
        Hop::RealserverEgress,
        Hop::GatewayArp,
    ],
);
const UNREACHABLE_LEAVES: Waypoint = at(
    Station::RealserverOut,
    Form::PORT_UNREACHABLE,
    &[
        Hop::RealserverAccept,
        Hop::RealserverEgress,
        Hop::GatewayArp,
    ],
);
const SYN_ACK_ARRIVES: Waypoint = at(
    Station::ClientIn,
    Form::SynAck,
    &[Hop::SpoofedSourceTransit, Hop::ClientArrival],
);
const RST_LEAVES: Waypoint = at(Station::ClientOut, Form::Rst, &[Hop::ReturnToDirector]);
const RST_RETURNS: Waypoint = at(
    Station::DirectorIn,
    Form::Rst,
    &[Hop::ClientToDirector, Hop::ReturnToDirector],
);
const SPOOFED_ARRIVES: Waypoint = at(
    Station::ClientIn,
    Form::Plain,
    &[Hop::SpoofedSourceTransit, Hop::ClientArrival],
);

const TUNNEL_UDP: &[Waypoint] = &[
    PROBE_LEAVES,
    TUNNEL_IN,
    DECAPSULATED,
    UNREACHABLE_LEAVES,
    at(
        Station::ClientIn,
        Form::PORT_UNREACHABLE,
        &[Hop::SpoofedSourceTransit, Hop::ClientArrival],
    ),
];
const TUNNEL_SYN: &[Waypoint] = &[
    PROBE_LEAVES,
    TUNNEL_IN,
    DECAPSULATED,
    SYN_ACK_LEAVES,
    SYN_ACK_ARRIVES,
    RST_LEAVES,
    RST_RETURNS,
];
const IPVS_LOOP: &[Waypoint] = &[
    FORWARDED,
    TUNNEL_IN,
    DECAPSULATED,
    SYN_ACK_LEAVES,
    SYN_ACK_ARRIVES,
    RST_LEAVES,
    RST_RETURNS,
];
const IPVS_UDP: &[Waypoint] = &[FORWARDED, TUNNEL_IN, DECAPSULATED];
const SERVICE: &[Waypoint] = &[
    at(Station::ClientOut, Form::Plain, &[Hop::ClientToDirector]),
    at(Station::DirectorIn, Form::Plain, &[Hop::ClientToDirector]),
    FORWARDED,
    TUNNEL_IN,
    DECAPSULATED,
    SYN_ACK_LEAVES,
    SYN_ACK_ARRIVES,
    RST_LEAVES,
    at(Station::DirectorIn, Form::Rst, &[Hop::ReturnToDirector]),
];
const SERVICE_UDP: &[Waypoint] = &[
    at(Station::ClientOut, Form::Plain, &[Hop::ClientToDirector]),
    at(Station::DirectorIn, Form::Plain, &[Hop::ClientToDirector]),
    FORWARDED,
    TUNNEL_IN,
    DECAPSULATED,
];
/// Routing, rp_filter and firewall may treat the client's packets otherwise than the director's.
const REFLECT: &[Waypoint] = &[
    PROBE_LEAVES,
    TUNNEL_IN,
    DECAPSULATED,
    at(Station::RealserverOut, Form::PORT_UNREACHABLE, &[]),
    at(Station::DirectorIn, Form::PORT_UNREACHABLE, &[]),
];
const RETURN_CONTROL: &[Waypoint] = &[
    at(Station::DirectorOut, Form::Plain, &[]),
    at(Station::ClientIn, Form::Plain, &[]),
    RST_LEAVES,
    RST_RETURNS,
];
const SPOOF_TRACE: &[Waypoint] = &[
    at(Station::RealserverOut, Form::Plain, &[]),
    SPOOFED_ARRIVES,
    at(
        Station::ClientOut,
        Form::PORT_UNREACHABLE,
        &[Hop::ReturnToDirector],
    ),
    at(
        Station::DirectorIn,
        Form::PORT_UNREACHABLE,
        &[Hop::ClientToDirector, Hop::ReturnToDirector],
    ),
];
const SPOOF_SYNACK: &[Waypoint] = &[
    at(Station::RealserverOut, Form::Plain, &[]),
    SPOOFED_ARRIVES,
    RST_LEAVES,
    RST_RETURNS,
];
const CONTROL_TRACE: &[Waypoint] = &[
    at(Station::RealserverOut, Form::Plain, &[]),
    at(Station::ClientIn, Form::Plain, &[]),
    at(Station::ClientOut, Form::PORT_UNREACHABLE, &[]),
    at(Station::RealserverIn, Form::PORT_UNREACHABLE, &[]),
];
const CONTROL_SYNACK: &[Waypoint] = &[
    at(Station::RealserverOut, Form::Plain, &[]),
    at(Station::ClientIn, Form::Plain, &[]),
    at(Station::ClientOut, Form::Rst, &[]),
    at(Station::RealserverIn, Form::Rst, &[]),
];

/// No packet that clients get goes to the director: whatever arrives there proves no hop. Its kernel takes none from its
/// own address, so nothing answers.
const SPOOF_TO_DIRECTOR: &[Waypoint] = &[
    at(Station::RealserverOut, Form::Plain, &[]),
    at(Station::DirectorIn, Form::Plain, &[]),
];
const CONTROL_TRACE_TO_DIRECTOR: &[Waypoint] = &[
    at(Station::RealserverOut, Form::Plain, &[]),
    at(Station::DirectorIn, Form::Plain, &[]),
    at(Station::DirectorOut, Form::PORT_UNREACHABLE, &[]),
    at(Station::RealserverIn, Form::PORT_UNREACHABLE, &[]),
];
const CONTROL_SYNACK_TO_DIRECTOR: &[Waypoint] = &[
    at(Station::RealserverOut, Form::Plain, &[]),
    at(Station::DirectorIn, Form::Plain, &[]),
    at(Station::DirectorOut, Form::Rst, &[]),
    at(Station::RealserverIn, Form::Rst, &[]),
];

/// What protocol 4 is compared with.
const TUNNEL_CONTROL: &[Waypoint] = &[
    at(Station::DirectorOut, Form::Plain, &[]),
    at(Station::RealserverIn, Form::Plain, &[]),
    at(Station::RealserverOut, Form::PORT_UNREACHABLE, &[]),
    at(Station::DirectorIn, Form::PORT_UNREACHABLE, &[]),
];
/// Of a size that need not pass: it proves nothing about packets of another.
const MTU: &[Waypoint] = &[
    at(Station::DirectorOut, Form::Tunnelled, &[]),
    at(Station::RealserverIn, Form::Tunnelled, &[]),
    at(Station::RealserverTunnel, Form::Plain, &[]),
    at(Station::RealserverOut, Form::PORT_UNREACHABLE, &[]),
    at(Station::DirectorIn, Form::PORT_UNREACHABLE, &[]),
];
const OPEN_TUNNEL: &[Waypoint] = &[
    at(Station::ClientOut, Form::Tunnelled, &[]),
    at(Station::RealserverIn, Form::Tunnelled, &[]),
    at(Station::RealserverTunnel, Form::Plain, &[]),
    at(Station::RealserverOut, Form::PORT_UNREACHABLE, &[]),
    at(Station::ClientIn, Form::PORT_UNREACHABLE, &[]),
];
/// The answer goes to the host whose address was forged.
const SPOOF_TUNNEL: &[Waypoint] = &[
    at(Station::ClientOut, Form::Tunnelled, &[]),
    at(Station::RealserverIn, Form::Tunnelled, &[]),
    at(Station::RealserverTunnel, Form::Plain, &[]),
    at(Station::RealserverOut, Form::PORT_UNREACHABLE, &[]),
    at(Station::DirectorIn, Form::PORT_UNREACHABLE, &[]),
];
/// As [`REFLECT`]; but a socket that answers the director answers.
const REFLECT_SYN: &[Waypoint] = &[
    PROBE_LEAVES,
    TUNNEL_IN,
    DECAPSULATED,
    at(Station::RealserverOut, Form::SynAck, &[Hop::Service]),
    at(Station::DirectorIn, Form::SynAck, &[Hop::Service]),
];

/// The stations that a probe of `kind`, sent with its full time to live, and its answers must pass.
pub fn itinerary(kind: ProbeKind, service: Protocol) -> &'static [Waypoint] {
    match (kind, service) {
        (ProbeKind::TunnelUdp | ProbeKind::TunnelTrace, _) => TUNNEL_UDP,
        (ProbeKind::TunnelControl, _) => TUNNEL_CONTROL,
        (ProbeKind::Mtu, _) => MTU,
        (ProbeKind::OpenTunnel, _) => OPEN_TUNNEL,
        (ProbeKind::SpoofTunnel, _) => SPOOF_TUNNEL,
        (ProbeKind::ReflectSyn, _) => REFLECT_SYN,
        (ProbeKind::TunnelSyn, _) => TUNNEL_SYN,
        (ProbeKind::IpvsLoop, Protocol::Tcp) => IPVS_LOOP,
        (ProbeKind::IpvsLoop, Protocol::Udp) => IPVS_UDP,
        (ProbeKind::Service, Protocol::Tcp) => SERVICE,
        (ProbeKind::Service, Protocol::Udp) => SERVICE_UDP,
        (ProbeKind::Reflect, _) => REFLECT,
        (ProbeKind::ReturnControl, _) => RETURN_CONTROL,
        (ProbeKind::SpoofTrace, _) => SPOOF_TRACE,
        (ProbeKind::SpoofSynack, _) => SPOOF_SYNACK,
        (ProbeKind::ControlTrace, _) => CONTROL_TRACE,
        (ProbeKind::ControlSynack, _) => CONTROL_SYNACK,
        (ProbeKind::SpoofTraceToDirector | ProbeKind::SpoofSynackToDirector, _) => {
            SPOOF_TO_DIRECTOR
        }
        (ProbeKind::ControlTraceToDirector, _) => CONTROL_TRACE_TO_DIRECTOR,
        (ProbeKind::ControlSynackToDirector, _) => CONTROL_SYNACK_TO_DIRECTOR,
        // What must become of it, the suite says.
        (ProbeKind::Script, _) => &[],
    }
}
