//! A host's firewall, as far as it could stop the path's packets.

use std::fmt;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Unread;
use crate::exchange::Wall;

/// A part of a packet's way through a path, told apart by the addresses it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// CIP → VIP, before the director tunnels it.
    Request,
    /// Protocol 4, DIP → RIP.
    Tunnel,
    /// CIP → VIP, out of the tunnel.
    Decapsulated,
    /// VIP → CIP.
    Answer,
}

/// A packet that a host's rules are held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallPacket {
    /// Which it is.
    pub leg: Leg,
    /// Whether it comes to the host (PREROUTING, INPUT) or leaves it (OUTPUT, POSTROUTING).
    pub incoming: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Source port, where only one is possible.
    pub source_port: Option<u16>,
    /// Destination port, where only one is possible.
    pub destination_port: Option<u16>,
    /// The devices by which it may come or leave; none, if that is not known.
    pub devices: Vec<String>,
}

/// Which packets to hold the rules against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallQuery {
    /// The packets.
    pub packets: Vec<FirewallPacket>,
}

/// What could stop the packets asked about, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// When each program's listing was made.
    pub listings: Vec<Listing>,
    /// The rules and policies that drop or reject, and could match, in the order in which packets meet them.
    pub rules: Vec<FirewallRule>,
    /// How many more there are than `rules` has room for.
    pub left_out: u32,
    /// What could not be read, and why.
    pub unread: Vec<Unread>,
}

impl Firewall {
    /// When the rules of this program were listed.
    pub fn listing(&self, tool: FirewallTool) -> Option<&Listing> {
        self.listings.iter().find(|listing| listing.tool == tool)
    }
}

/// When the rules that a program shows were listed: their counters include everything that was counted before `begun`,
/// and nothing that was counted later than `ended`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Which program's.
    pub tool: FirewallTool,
    /// When it was started.
    pub begun: Wall,
    /// When it had printed them.
    pub ended: Wall,
}

/// The program that shows and changes a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirewallTool {
    /// `nft`.
    Nft,
    /// `iptables`, of whichever kind.
    Iptables,
    /// `iptables-legacy`, beside an `iptables` that writes to nftables.
    IptablesLegacy,
}

impl FirewallTool {
    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            FirewallTool::Nft => "nft",
            FirewallTool::Iptables => "iptables",
            FirewallTool::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// Where in its chain a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RulePlace {
    /// nft's handle.
    Handle(u64),
    /// The number within the chain that `iptables -L --line-numbers` shows, from 1.
    Number(u32),
    /// It is the chain's policy.
    Policy,
}

/// What a rule does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleVerdict {
    /// It is gone.
    Drop,
    /// It is gone, and its sender is told.
    Reject,
}

/// A rule, or a chain's policy, that drops or rejects: `nft -a list ruleset`, `iptables-save -c`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// Whose it is.
    pub tool: FirewallTool,
    /// nft's family; `ip` for iptables.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain that it stands in.
    pub chain: String,
    /// The hook that leads there, such as `input`.
    pub hook: String,
    /// The priority of that hook's chain.
    pub priority: i32,
    /// Where it stands.
    pub place: RulePlace,
    /// As the tool shows it, without its counter.
    pub text: String,
    /// What it does.
    pub verdict: RuleVerdict,
    /// The packets that it has counted, if it counts.
    pub counter: Option<u64>,
    /// Whether it is for packets that connection tracking calls invalid.
    pub invalid: bool,
    /// Whether it is for all sorts of packets, as the last rule of many a chain is.
    pub general: bool,
    /// The packets asked about that it could match, by leg and protocol number.
    pub matches: Vec<(Leg, u8)>,
}

impl FirewallRule {
    /// Whether it is the same rule, read at another time.
    pub fn is(&self, other: &FirewallRule) -> bool {
        let place = |rule: &FirewallRule| (rule.tool, rule.place);
        let chain = |rule: &FirewallRule| (rule.table.clone(), rule.chain.clone());
        place(self) == place(other)
            && chain(self) == chain(other)
            && (&self.family, &self.text) == (&other.family, &other.text)
    }

    /// Whether it stands where packets leave the host.
    pub fn is_outgoing(&self) -> bool {
        matches!(self.hook.as_str(), "output" | "postrouting" | "egress")
    }

    /// The command that shows it.
    pub fn shown_by(&self) -> String {
        match self.tool {
            FirewallTool::Nft => {
                format!(
                    "nft -a list chain {} {} {}",
                    self.family, self.table, self.chain
                )
            }
            tool => format!("{}-save -c -t {}", tool.program(), self.table),
        }
    }

    /// The command that takes it away; for a policy, the one that accepts.
    pub fn removed_by(&self) -> String {
        let FirewallRule {
            family,
            table,
            chain,
            ..
        } = self;
        let program = self.tool.program();
        match self.place {
            RulePlace::Handle(handle) => {
                format!("nft delete rule {family} {table} {chain} handle {handle}")
            }
            RulePlace::Number(number) => {
                format!("{program}{} -D {chain} {number}", self.option())
            }
            RulePlace::Policy if self.tool == FirewallTool::Nft => {
                format!("nft chain {family} {table} {chain} '{{ policy accept; }}'")
            }
            RulePlace::Policy => format!("{program}{} -P {chain} ACCEPT", self.option()),
        }
    }

    /// The command that accepts what `nft` or `iptables` describe, before anything else in the chain.
    pub fn preceded_by(&self, nft: &str, iptables: &str) -> String {
        let FirewallRule {
            family,
            table,
            chain,
            ..
        } = self;
        match self.tool {
            FirewallTool::Nft => format!("nft insert rule {family} {table} {chain} {nft} accept"),
            tool => format!(
                "{}{} -I {chain} {iptables} -j ACCEPT",
                tool.program(),
                self.option()
            ),
        }
    }

    /// `iptables -t`, unless it is the table that it means without.
    fn option(&self) -> String {
        match self.table.as_str() {
            "filter" => String::new(),
            table => format!(" -t {table}"),
        }
    }
}

/// Where it is and what it says: "nft inet filter input handle 7: `ip protocol 4 drop`".
impl fmt::Display for FirewallRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FirewallRule {
            table, chain, text, ..
        } = self;
        match self.tool {
            FirewallTool::Nft => write!(f, "nft {} {table} {chain}", self.family)?,
            tool => write!(f, "{} {table} {chain}", tool.program())?,
        }
        match self.place {
            RulePlace::Handle(handle) => write!(f, " handle {handle}: `{text}`"),
            RulePlace::Number(number) => write!(f, " {number}: `{text}`"),
            RulePlace::Policy => write!(f, ": `{text}`"),
        }
    }
}
