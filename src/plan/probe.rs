//! What is sent, and what it is called.

use std::fmt;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::plan::Host;
use crate::plan::Packet;
use crate::plan::Path;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::plan::Toward;

/// A kind of probe; the number is its place in a probe's number, and so in every identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ProbeKind {
    /// Director: IPIP(DIP→RIP){CIP→VIP UDP closed port}.
    TunnelUdp = 1,
    /// Director: IPIP(DIP→RIP){CIP→VIP:port SYN}, the closed loop.
    TunnelSyn = 2,
    /// Director: CIP→VIP:port without a tunnel header, through the director's own IPVS.
    IpvsLoop = 3,
    /// Director: IPIP(DIP→RIP){DIP→VIP UDP closed port}.
    Reflect = 4,
    /// Director: SYN-ACK VIP→CIP, whose RST shows that the client's answers reach the director.
    ReturnControl = 5,
    /// Real server: UDP VIP→CIP closed port, limited or full time to live.
    SpoofTrace = 6,
    /// Real server: the same from its own address.
    ControlTrace = 7,
    /// Real server: SYN-ACK VIP→CIP with a chosen acknowledgment number.
    SpoofSynack = 8,
    /// Client: SYN (or a datagram) to VIP:port.
    Service = 9,
    /// Real server: SYN-ACK RIP→CIP.
    ControlSynack = 10,
    /// Director: the same as tunnel-udp, with a limited outer time to live.
    TunnelTrace = 11,
    /// Director: UDP DIP→RIP closed port, limited or full time to live: what protocol 4 is compared with.
    TunnelControl = 12,
    /// Director: IPIP(DIP→RIP){DIP→VIP UDP closed port} of a given size, DF on both headers.
    Mtu = 13,
    /// Client: IPIP(CIP→RIP){CIP→VIP UDP closed port}: is the tunnel open to anyone?
    OpenTunnel = 14,
    /// Director: IPIP(DIP→RIP){DIP→VIP:port SYN}: does the service answer, by the director alone?
    ReflectSyn = 15,
    /// Client: IPIP(CIP→RIP){DIP→VIP UDP closed port}: may what comes out of the tunnel claim any source?
    SpoofTunnel = 16,
    /// Any host: a packet that a suite writes out.
    Script = 17,
    /// Real server: UDP VIP→DIP closed port, limited or full time to live. The director's kernel takes none from its own
    /// address, but its tap sees them arrive.
    SpoofTraceToDirector = 18,
    /// Real server: the same from its own address.
    ControlTraceToDirector = 19,
    /// Real server: SYN-ACK VIP→DIP with a chosen acknowledgment number.
    SpoofSynackToDirector = 20,
    /// Real server: SYN-ACK RIP→DIP.
    ControlSynackToDirector = 21,
}

impl ProbeKind {
    /// Every kind.
    pub const ALL: [ProbeKind; 21] = [
        ProbeKind::TunnelUdp,
        ProbeKind::TunnelSyn,
        ProbeKind::IpvsLoop,
        ProbeKind::Reflect,
        ProbeKind::ReturnControl,
        ProbeKind::SpoofTrace,
        ProbeKind::ControlTrace,
        ProbeKind::SpoofSynack,
        ProbeKind::Service,
        ProbeKind::ControlSynack,
        ProbeKind::TunnelTrace,
        ProbeKind::TunnelControl,
        ProbeKind::Mtu,
        ProbeKind::OpenTunnel,
        ProbeKind::ReflectSyn,
        ProbeKind::SpoofTunnel,
        ProbeKind::Script,
        ProbeKind::SpoofTraceToDirector,
        ProbeKind::ControlTraceToDirector,
        ProbeKind::SpoofSynackToDirector,
        ProbeKind::ControlSynackToDirector,
    ];

    /// The kind's name.
    pub fn id(self) -> &'static str {
        match self {
            ProbeKind::TunnelUdp => "tunnel-udp",
            ProbeKind::TunnelSyn => "tunnel-syn",
            ProbeKind::IpvsLoop => "ipvs-loop",
            ProbeKind::Reflect => "reflect",
            ProbeKind::ReturnControl => "return-control",
            ProbeKind::SpoofTrace => "spoof-trace",
            ProbeKind::ControlTrace => "control-trace",
            ProbeKind::SpoofSynack => "spoof-synack",
            ProbeKind::Service => "service",
            ProbeKind::ControlSynack => "control-synack",
            ProbeKind::TunnelTrace => "tunnel-trace",
            ProbeKind::TunnelControl => "tunnel-control",
            ProbeKind::Mtu => "mtu",
            ProbeKind::OpenTunnel => "open-tunnel",
            ProbeKind::ReflectSyn => "reflect-syn",
            ProbeKind::SpoofTunnel => "spoof-tunnel",
            ProbeKind::Script => "script",
            ProbeKind::SpoofTraceToDirector => "spoof-trace-to-director",
            ProbeKind::ControlTraceToDirector => "control-trace-to-director",
            ProbeKind::SpoofSynackToDirector => "spoof-synack-to-director",
            ProbeKind::ControlSynackToDirector => "control-synack-to-director",
        }
    }

    /// Whether its probes keep one flow (Paris traceroute).
    pub fn is_trace(self) -> bool {
        matches!(
            self,
            ProbeKind::SpoofTrace
                | ProbeKind::ControlTrace
                | ProbeKind::TunnelTrace
                | ProbeKind::TunnelControl
                | ProbeKind::SpoofTraceToDirector
                | ProbeKind::ControlTraceToDirector
        )
    }

    /// Whether its packets are sent with a tunnel header.
    pub fn is_tunnelled(self) -> bool {
        matches!(
            self,
            ProbeKind::TunnelUdp
                | ProbeKind::TunnelSyn
                | ProbeKind::Reflect
                | ProbeKind::TunnelTrace
                | ProbeKind::Mtu
                | ProbeKind::ReflectSyn
                | ProbeKind::OpenTunnel
                | ProbeKind::SpoofTunnel
        )
    }

    /// Whether it asks something beside the path: its silence says nothing of the packets that clients
    /// send.
    pub fn is_aside(self) -> bool {
        self.toward() == Toward::Director
            || matches!(
                self,
                ProbeKind::TunnelTrace
                    | ProbeKind::TunnelControl
                    | ProbeKind::Mtu
                    | ProbeKind::OpenTunnel
                    | ProbeKind::SpoofTunnel
                    | ProbeKind::Script
            )
    }

    /// Whether its probes are SYN-ACKs, which a host that sent no SYN answers with an RST.
    pub fn sends_syn_ack(self) -> bool {
        matches!(
            self,
            ProbeKind::ReturnControl
                | ProbeKind::SpoofSynack
                | ProbeKind::ControlSynack
                | ProbeKind::SpoofSynackToDirector
                | ProbeKind::ControlSynackToDirector
        )
    }

    /// Whether the same flows can be asked again and again.
    pub fn repeats_flows(self) -> bool {
        self.sends_syn_ack()
            || matches!(
                self,
                ProbeKind::SpoofTrace
                    | ProbeKind::ControlTrace
                    | ProbeKind::SpoofTraceToDirector
                    | ProbeKind::ControlTraceToDirector
            )
    }

    /// Whether its packets leave the real server with the VIP as their source.
    pub fn is_spoofed(self) -> bool {
        matches!(
            self,
            ProbeKind::SpoofTrace
                | ProbeKind::SpoofSynack
                | ProbeKind::SpoofTraceToDirector
                | ProbeKind::SpoofSynackToDirector
        )
    }

    /// Whether the real server sends its probes to the director instead of the client.
    pub fn toward(self) -> Toward {
        match self {
            ProbeKind::SpoofTraceToDirector
            | ProbeKind::ControlTraceToDirector
            | ProbeKind::SpoofSynackToDirector
            | ProbeKind::ControlSynackToDirector => Toward::Director,
            _ => Toward::Client,
        }
    }

    /// Whether its probes open half a connection on the real server, which must be closed again.
    pub fn opens(self, service: Protocol) -> bool {
        match self {
            ProbeKind::TunnelSyn | ProbeKind::ReflectSyn => true,
            ProbeKind::IpvsLoop | ProbeKind::Service => service == Protocol::Tcp,
            _ => false,
        }
    }
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// A probe's name: its kind and its number within the kind (0 to 2047). Written `tunnel-syn.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId {
    /// The kind.
    pub kind: ProbeKind,
    /// The number within the kind, below [`ProbeId::PER_KIND`].
    pub index: u16,
}

impl ProbeId {
    /// How many probes of a kind a session can have.
    pub const PER_KIND: u16 = 2048;

    /// The first number of the probes that ask the same flows again and again; those before it have a flow
    /// each, or of a trace all one.
    pub const FIRST_REPEATED: u16 = 1024;
    /// How many flows can be asked again and again.
    pub const FLOWS: u16 = 8;
    /// How many probes of a kind each of them can have.
    pub const PER_FLOW: u16 = (Self::PER_KIND - Self::FIRST_REPEATED) / Self::FLOWS;

    /// How many numbers of `kind` there are for probes that are sent once.
    pub fn once(kind: ProbeKind) -> u16 {
        match kind.repeats_flows() {
            true => Self::FIRST_REPEATED,
            false => Self::PER_KIND,
        }
    }

    /// Try number `try_` of repeated flow number `flow`, if there are so many.
    pub fn repeated(kind: ProbeKind, flow: u16, try_: u16) -> Option<ProbeId> {
        let fits = kind.repeats_flows() && flow < Self::FLOWS && try_ < Self::PER_FLOW;
        fits.then(|| ProbeId {
            kind,
            index: Self::FIRST_REPEATED + flow * Self::PER_FLOW + try_,
        })
    }

    /// The number of its flow, if that is asked again and again: the same ports for every kind and try.
    pub fn repeated_flow(self) -> Option<u16> {
        let index = self.index.checked_sub(Self::FIRST_REPEATED)?;
        self.kind.repeats_flows().then_some(index / Self::PER_FLOW)
    }

    /// The 16-bit number that the identity carries: the kind in the upper 5 bits; never 0.
    pub fn number(self) -> u16 {
        (self.kind as u16) << 11 | self.index & (Self::PER_KIND - 1)
    }

    /// The probe of a number, if its kind exists.
    pub fn from_number(number: u16) -> Option<ProbeId> {
        let kind = *ProbeKind::ALL.get(usize::from(number >> 11).checked_sub(1)?)?;
        Some(ProbeId {
            kind,
            index: number & (Self::PER_KIND - 1),
        })
    }
}

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.kind, self.index))
    }
}

impl Serialize for ProbeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProbeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ProbeId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.split_once('.')
            .and_then(|(kind, index)| {
                Some(ProbeId {
                    kind: ProbeKind::ALL.into_iter().find(|k| k.id() == kind)?,
                    index: index.parse().ok().filter(|n| *n < Self::PER_KIND)?,
                })
            })
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no probe's name")))
    }
}

/// Addresses and ports of the innermost packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Source address.
    pub source: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub destination_port: u16,
}

impl Flow {
    /// What an answer has: the ends exchanged.
    pub fn reversed(self) -> Flow {
        Flow {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
            ..self
        }
    }
}

/// The tunnel header that tunproof writes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    /// Outer source, the DIP.
    pub source: Ipv4Addr,
    /// Outer destination, the RIP.
    pub destination: Ipv4Addr,
    /// Outer time to live.
    pub ttl: u8,
}

/// One packet to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name.
    pub id: ProbeId,
    /// Which path of the plan it is for (for `ipvs-loop` and `service` the scheduler decides; this is the
    /// path it was sent for).
    pub path: usize,
    /// Which host sends it.
    pub from: Host,
    /// Addresses and ports of the innermost packet; of one written out as far as it has them, else 0, and
    /// UDP.
    pub flow: Flow,
    /// Time to live of the innermost packet.
    pub ttl: u8,
    /// The tunnel header, if it has one.
    pub tunnel: Option<Tunnel>,
    /// Octets of the whole packet, with DF on every header; `None` is as few as it takes, without DF.
    pub size: Option<u16>,
    /// The step of its path's suite that it is part of.
    pub step: Option<usize>,
    /// The packet, if a suite writes it out: then it alone says what is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Packet>,
}

impl Probe {
    /// Linux's default time to live, `net.ipv4.ip_default_ttl`.
    pub const FULL_TTL: u8 = 64;

    /// The probe `id` for path number `index`, with its full time to live.
    ///
    /// `None` if the path has no DIP and the kind needs one, and of a packet written out, which is
    /// [`Probe::script`]'s.
    pub fn new(id: ProbeId, index: usize, path: &Path, key: &SessionKey) -> Option<Probe> {
        let (client_port, closed) = (key.client_port(id), key.closed_port(id));
        let flow = |protocol, source, source_port, destination, destination_port| Flow {
            protocol,
            source,
            source_port,
            destination,
            destination_port,
        };
        let (vip, cip, rip, port) = (path.vip, path.cip, path.rip, path.port);
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let (from, flow) = match id.kind {
            ProbeKind::TunnelUdp | ProbeKind::TunnelTrace => {
                (Host::Director, flow(udp, cip, client_port, vip, closed))
            }
            ProbeKind::TunnelControl => (
                Host::Director,
                flow(udp, path.dip?, client_port, rip, closed),
            ),
            ProbeKind::OpenTunnel => (Host::Client, flow(udp, cip, client_port, vip, closed)),
            ProbeKind::SpoofTunnel => {
                (Host::Client, flow(udp, path.dip?, client_port, vip, closed))
            }
            ProbeKind::ReflectSyn => (Host::Director, flow(tcp, path.dip?, client_port, vip, port)),
            ProbeKind::TunnelSyn => (Host::Director, flow(tcp, cip, client_port, vip, port)),
            ProbeKind::IpvsLoop => (
                Host::Director,
                flow(path.protocol, cip, client_port, vip, port),
            ),
            ProbeKind::Reflect | ProbeKind::Mtu => (
                Host::Director,
                flow(udp, path.dip?, client_port, vip, closed),
            ),
            ProbeKind::ReturnControl => (Host::Director, flow(tcp, vip, port, cip, client_port)),
            ProbeKind::SpoofTrace | ProbeKind::SpoofTraceToDirector => (
                Host::Realserver(index),
                flow(
                    udp,
                    vip,
                    client_port,
                    id.kind.toward().address(path)?,
                    closed,
                ),
            ),
            ProbeKind::ControlTrace | ProbeKind::ControlTraceToDirector => (
                Host::Realserver(index),
                flow(
                    udp,
                    rip,
                    client_port,
                    id.kind.toward().address(path)?,
                    closed,
                ),
            ),
            ProbeKind::SpoofSynack | ProbeKind::SpoofSynackToDirector => (
                Host::Realserver(index),
                flow(tcp, vip, port, id.kind.toward().address(path)?, client_port),
            ),
            ProbeKind::ControlSynack | ProbeKind::ControlSynackToDirector => (
                Host::Realserver(index),
                flow(tcp, rip, port, id.kind.toward().address(path)?, client_port),
            ),
            ProbeKind::Service => (
                Host::Client,
                flow(path.protocol, cip, client_port, vip, port),
            ),
            ProbeKind::Script => return None,
        };
        let tunnelled_by = match id.kind {
            ProbeKind::OpenTunnel | ProbeKind::SpoofTunnel => Some(cip),
            kind if kind.is_tunnelled() => Some(path.dip?),
            _ => None,
        };
        let tunnel = tunnelled_by.map(|source| Tunnel {
            source,
            destination: rip,
            ttl: Self::FULL_TTL,
        });
        Some(Probe {
            id,
            path: index,
            from,
            flow,
            ttl: Self::FULL_TTL,
            tunnel,
            size: None,
            step: None,
            script: None,
        })
    }

    /// The packet number `index` of those that suites write out, for path number `path`, sent by `from`.
    pub fn script(index: u16, path: usize, from: Host, packet: Packet, key: &SessionKey) -> Probe {
        let id = ProbeId {
            kind: ProbeKind::Script,
            index,
        };
        let headers = packet.headers();
        let tunnel = headers.first().filter(|_| headers.len() > 1);
        Probe {
            id,
            path,
            from,
            flow: packet.flow(key.client_port(id)),
            ttl: headers.last().map_or(0, |ip| ip.time_to_live),
            tunnel: tunnel.map(|outer| Tunnel {
                source: outer.source,
                destination: outer.destination,
                ttl: outer.time_to_live,
            }),
            size: None,
            step: None,
            script: Some(packet),
        }
    }

    /// The same probe with this time to live, on the outermost header.
    pub fn with_ttl(mut self, ttl: u8) -> Probe {
        match &mut self.tunnel {
            Some(tunnel) => tunnel.ttl = ttl,
            None => self.ttl = ttl,
        }
        self
    }

    /// The same probe of so many octets in all, with DF.
    pub fn with_size(mut self, size: u16) -> Probe {
        self.size = Some(size);
        self
    }

    /// The same probe as part of this step of its path's suite.
    pub fn of_step(mut self, step: usize) -> Probe {
        self.step = Some(step);
        self
    }

    /// The time to live of the outermost header.
    pub fn outermost_ttl(&self) -> u8 {
        self.tunnel.map_or(self.ttl, |tunnel| tunnel.ttl)
    }

    /// Whether routers are meant to drop it on the way.
    pub fn is_limited(&self) -> bool {
        self.outermost_ttl() < Self::FULL_TTL
    }
}
