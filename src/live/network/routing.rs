//! Routes and policy rules, as `ip route` and `ip rule` set them up.

use std::fmt;
use std::net::Ipv4Addr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::route::RouteMetric;
use netlink_packet_route::route::RouteScope;
use netlink_packet_route::route::RouteType;
use netlink_packet_route::rule::RuleAction;
use netlink_packet_route::rule::RuleAttribute;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::rule::RulePortRange;
use nix::libc;
use rtnetlink::RouteMessageBuilder;

use crate::live::network::Network;
use crate::live::network::NetworkError;

/// `1 << RTAX_MTU`: forwarded packets keep to a route's MTU only if it is locked.
const LOCK_MTU: u32 = 1 << 2;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination and prefix length.
    pub to: (Ipv4Addr, u8),
    /// What becomes of packets.
    pub hop: NextHop,
    /// Preferred source address.
    pub source: Option<Ipv4Addr>,
    /// Routing table.
    pub table: u32,
    /// What it passes at most, forwarded packets included; `mtu lock OCTETS`.
    pub mtu: Option<u32>,
}

/// What becomes of a route's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// They go to a gateway.
    Via(Ipv4Addr),
    /// They go to a device.
    Device(&'static str),
    /// They vanish.
    Blackhole,
    /// They are refused.
    Unreachable,
    /// They are the host's own.
    Local,
}

impl Route {
    /// The main routing table.
    pub const MAIN: u32 = 254;

    /// `to/prefix via gateway`.
    pub const fn via(to: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Route {
        Route::new(to, prefix, NextHop::Via(gateway))
    }

    /// `default via gateway`.
    pub const fn default_via(gateway: Ipv4Addr) -> Route {
        Route::via(Ipv4Addr::UNSPECIFIED, 0, gateway)
    }

    /// A route of the main table, without a preferred source.
    pub const fn new(to: Ipv4Addr, prefix: u8, hop: NextHop) -> Route {
        Route {
            to: (to, prefix),
            hop,
            source: None,
            table: Route::MAIN,
            mtu: None,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to, prefix) = self.to;
        match self.hop {
            NextHop::Via(gateway) => write!(f, "{to}/{prefix} via {gateway}")?,
            NextHop::Device(name) => write!(f, "{to}/{prefix} dev {name}")?,
            NextHop::Blackhole => write!(f, "blackhole {to}/{prefix}")?,
            NextHop::Unreachable => write!(f, "unreachable {to}/{prefix}")?,
            NextHop::Local => write!(f, "local {to}/{prefix} dev lo")?,
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu lock {mtu}")?;
        }
        match self.table {
            Route::MAIN => Ok(()),
            table => write!(f, " table {table}"),
        }
    }
}

/// A policy rule; what is `None` matches anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules are tried in the order of their priorities.
    pub priority: u32,
    /// Source.
    pub from: Option<Ipv4Addr>,
    /// Destination.
    pub to: Option<Ipv4Addr>,
    /// Input device; `lo` for packets of the host's own.
    pub iif: Option<&'static str>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Destination port.
    pub port: Option<u16>,
    /// The table to look the packet up in; without one it vanishes.
    pub table: Option<u32>,
    /// Whether, without a table, its sender is told (ICMP 3/13).
    pub told: bool,
}

impl Rule {
    /// A rule that has every packet vanish.
    pub const fn blackhole(priority: u32) -> Rule {
        Rule {
            priority,
            from: None,
            to: None,
            iif: None,
            protocol: None,
            port: None,
            table: None,
            told: false,
        }
    }

    /// A rule that looks every packet up in `table`.
    pub const fn lookup(priority: u32, table: u32) -> Rule {
        Rule {
            table: Some(table),
            ..Rule::blackhole(priority)
        }
    }
}

impl Network {
    /// Adds a route, in place of one to the same destination in the same table.
    ///
    /// # Errors
    ///
    /// ENETUNREACH where its gateway cannot be reached.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetworkError> {
        let operation = || format!("add route {route}");
        let message = self.route(operation, route)?;
        self.request(
            operation,
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &[],
        )
    }

    /// Deletes a route.
    ///
    /// # Errors
    ///
    /// If the kernel refused.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetworkError> {
        let operation = || format!("delete route {route}");
        let message = self.route(operation, route)?;
        self.request(
            operation,
            RouteNetlinkMessage::DelRoute(message),
            0,
            &[libc::ESRCH],
        )
    }

    fn route(
        &mut self,
        operation: impl Fn() -> String,
        route: &Route,
    ) -> Result<RouteMessage, NetworkError> {
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.to.0, route.to.1)
            .table_id(route.table);
        if let Some(source) = route.source {
            builder = builder.pref_source(source);
        }
        builder = match route.hop {
            NextHop::Via(gateway) => builder.gateway(gateway),
            NextHop::Device(name) => builder
                .scope(RouteScope::Link)
                .output_interface(self.index(operation, name)?),
            NextHop::Blackhole => builder.kind(RouteType::BlackHole),
            NextHop::Unreachable => builder.kind(RouteType::Unreachable),
            NextHop::Local => builder
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .output_interface(self.index(operation, "lo")?),
        };
        let mut message = builder.build();
        if let Some(mtu) = route.mtu {
            let metrics = vec![RouteMetric::Lock(LOCK_MTU), RouteMetric::Mtu(mtu)];
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        Ok(message)
    }

    /// Adds a policy rule.
    ///
    /// # Errors
    ///
    /// If the kernel refused.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetworkError> {
        self.request(
            || format!("add rule {rule:?}"),
            RouteNetlinkMessage::NewRule(rule_message(rule)),
            NLM_F_CREATE | NLM_F_EXCL,
            &[libc::EEXIST],
        )
    }

    /// Deletes a policy rule.
    ///
    /// # Errors
    ///
    /// If the kernel refused.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetworkError> {
        self.request(
            || format!("delete rule {rule:?}"),
            RouteNetlinkMessage::DelRule(rule_message(rule)),
            0,
            &[libc::ENOENT],
        )
    }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let attributes = &mut message.attributes;
    message.header.family = AddressFamily::Inet;
    message.header.action = match rule.table {
        Some(table) => {
            attributes.push(RuleAttribute::Table(table));
            RuleAction::ToTable
        }
        None if rule.told => RuleAction::Prohibit,
        None => RuleAction::Blackhole,
    };
    attributes.push(RuleAttribute::Priority(rule.priority));
    if let Some(from) = rule.from {
        message.header.src_len = 32;
        attributes.push(RuleAttribute::Source(from.into()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = 32;
        attributes.push(RuleAttribute::Destination(to.into()));
    }
    if let Some(iif) = rule.iif {
        attributes.push(RuleAttribute::Iifname(iif.to_owned()));
    }
    if let Some(protocol) = rule.protocol {
        attributes.push(RuleAttribute::IpProtocol(IpProtocol::from(protocol)));
    }
    if let Some(port) = rule.port {
        let range = RulePortRange {
            start: port,
            end: port,
        };
        attributes.push(RuleAttribute::DestinationPortRange(range));
    }
    message
}
