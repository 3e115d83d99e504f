//! A router that gives the VIP's packets another source.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::evidence::Trial;
use crate::plan::Host;
use crate::plan::Protocol;
use crate::verdict::spoofing::SpoofOutcome;
use crate::verdict::spoofing::check::Check;
use crate::verdict::spoofing::check::Claim;
use crate::verdict::spoofing::check::ENOUGH;
use crate::verdict::spoofing::check::MOST;
use crate::verdict::spoofing::check::first;
use crate::verdict::spoofing::check::names;
use crate::verdict::spoofing::sweep::said;

impl Check<'_> {
    /// The host that everything goes to, or a router that quotes what came to it, shows another source.
    pub(super) fn rewritten(&self) -> Option<Claim> {
        let hit: Vec<_> = self
            .trials
            .iter()
            .filter(|trial| trial.is_spoofed() && trial.rewritten.is_some())
            .collect();
        let sources: BTreeSet<_> = hit
            .iter()
            .filter_map(|t| t.rewritten)
            .map(|r| r.0)
            .collect();
        if hit.len() < ENOUGH {
            return self.detour();
        }
        let (vip, there) = (self.path.vip, self.there);
        let end = self.end_ttl();
        let first_seen = hit.iter().map(|trial| trial.probe.ttl.min(end)).min()?;
        // A router that knows connections restores what it translated in the quotes, too: then its address tells.
        let owns = |by: &Ipv4Addr| sources.contains(by);
        let rows = self.rows(&[]);
        let owner = rows.iter().find(|row| {
            let mut by = row.spoofed.by.iter().chain(&row.control.by);
            row.control.arrived == 0 && by.any(owns)
        });
        let line = match owner {
            Some(row) => self.line_at(row.ttl, row.ttl + 1),
            None => {
                // Routers behind it answer to the other source, so they are silent.
                let passed = self.last_passed(&[]).min(first_seen - 1);
                let mut silent = rows.iter().filter(|row| {
                    row.ttl > passed && row.spoofed.by.is_empty() && !row.control.by.is_empty()
                });
                let stopped = silent
                    .next()
                    .map_or(first_seen, |row| row.ttl.min(first_seen));
                self.line_at(passed, stopped)
            }
        };
        let protocols: BTreeSet<_> = hit.iter().map(|t| t.probe.flow.protocol.name()).collect();
        let protocols: Vec<_> = protocols.into_iter().map(str::to_uppercase).collect();
        let intact = self
            .trials
            .iter()
            .any(|t| t.is_spoofed() && t.arrived().is_some() && t.rewritten.is_none());
        let rest = match intact {
            true => format!(
                " Other packets come to {} as they were sent: a router translates what it takes for new flows.",
                self.whom()
            ),
            false => String::new(),
        };
        let to = names(&sources);
        let router = rows
            .iter()
            .find(|row| row.control.by.iter().any(owns) && row.control.arrived == 0)
            .map_or_else(String::new, |row| {
                format!(" That is the router at TTL {}.", row.ttl)
            });
        Some(Claim {
            outcome: SpoofOutcome::Rewritten,
            confidence: Some(MOST),
            summary: format!(
                "a router rewrites the source {vip} to {to} ({})",
                said(&line)
            ),
            detail: format!(
                "{} probes ({}) left the real server from {vip} and were seen with the source {to}: source NAT or \
                 masquerading. Clients refuse answers from an address that they never asked.{router}{rest}",
                hit.len(),
                protocols.join(", ")
            ),
            advice: vec![
                self.on(
                    Host::Realserver(self.number),
                    format!("traceroute -n -s {vip} {there}"),
                ),
                "router# nft list ruleset | grep -nE 'masquerade|snat'".to_owned(),
            ],
            line: Some(line),
            rewritten_to: sources.into_iter().collect(),
            evidence: first(
                hit.iter()
                    .filter_map(|t| t.rewritten)
                    .map(|r| r.1)
                    .collect(),
                6,
            ),
            drawn: Vec::new(),
        })
    }

    /// Without a vantage there nobody shows the new source; but what answers a translated packet comes back by way of the
    /// translator, which is farther than the way of the same router's answers to what it lets be.
    fn detour(&self) -> Option<Claim> {
        let ttls = |ttl: u8, protocol: Protocol| {
            let of = self.trials.iter().filter(move |trial| {
                trial.is_spoofed()
                    && trial.probe.ttl == ttl
                    && trial.probe.flow.protocol == protocol
            });
            let replies = of.filter_map(Trial::expired);
            replies
                .filter_map(|reply| Some((reply.from, reply.ttl?)))
                .collect::<BTreeSet<_>>()
        };
        let is_longer = |ttl: u8| {
            let (udp, tcp) = (ttls(ttl, Protocol::Udp), ttls(ttl, Protocol::Tcp));
            let (Some(least), Some(most)) =
                (tcp.iter().map(|t| t.1).min(), udp.iter().map(|t| t.1).max())
            else {
                return None;
            };
            // Of one router each, and always the same way.
            let same = udp.len() == 1 && tcp.len() == 1 && udp.first()?.0 == tcp.first()?.0;
            same.then_some(least > most)
        };
        let end = self.end_ttl();
        let compared: Vec<_> = (1..end)
            .filter_map(|ttl| Some((ttl, is_longer(ttl)?)))
            .collect();
        let first = compared.iter().find(|(_, longer)| *longer)?.0;
        if self.arrivals.seen_there || compared.iter().any(|(ttl, longer)| *ttl > first && !longer)
        {
            return None;
        }
        let vip = self.path.vip;
        Some(self.inconclusive(
            format!(
                "answers to datagrams from {vip} come back a longer way than those to SYN-ACKs, from TTL {first} on: a \
                 router before it translates their source"
            ),
            vec![
                format!(
                    "a vantage at `{whom}`, or a capture of it (`--add {whom}.in=FILE`), shows to what",
                    whom = self.toward.id()
                ),
                "router# nft list ruleset | grep -nE 'masquerade|snat'".to_owned(),
            ],
        ))
    }
}
