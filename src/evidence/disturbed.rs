//! Whether the path stayed what it was while it was probed.
//!
//! Probes that fall silent because somebody sets a device down say nothing of the path as it was, nor as it is.

use std::collections::BTreeSet;

use crate::evidence::Evidence;
use crate::exchange::HostFacts;
use crate::exchange::Link;
use crate::exchange::RouteAnswer;
use crate::plan::Host;

impl Evidence {
    /// What became of a device of `path` while it was probed; then its silences do not count.
    pub fn why_disturbed(&self, path: usize) -> Option<String> {
        let hosts = [Host::Director, Host::Realserver(path), Host::Client];
        hosts
            .into_iter()
            .find_map(|host| self.why_host_is_disturbed(host, path))
    }

    fn why_host_is_disturbed(&self, host: Host, path: usize) -> Option<String> {
        let record = self.host(host)?;
        let (before, after) = (record.before.as_ref()?, record.after.as_ref()?);
        // Links that could not be read are no links that went.
        if after.links.is_empty() {
            return None;
        }
        let names = self.devices(host, before, path);
        let mut links = before
            .links
            .iter()
            .filter(|link| names.contains(link.name.as_str()));
        let (name, what) = links.find_map(|link| Some((&link.name, change(link, after)?)))?;
        let on = self.plan().host_name(host);
        Some(format!(
            "{name} on {on} {what} while probes were on their way, so that their silence says nothing; run it again"
        ))
    }

    /// The devices of a host that matter to a path.
    fn devices<'a>(&'a self, host: Host, facts: &'a HostFacts, path: usize) -> BTreeSet<&'a str> {
        let plan = self.plan();
        let path = &plan.paths[path];
        let routes = facts.routes.iter().filter_map(|(_, answer)| match answer {
            RouteAnswer::Route(route) => route.device.as_deref(),
            RouteAnswer::Error { .. } => None,
        });
        let named = [&plan.ingress, &plan.egress].into_iter().flatten();
        let named = named.filter(|_| host == Host::Director);
        let own = [Some(path.vip), Some(path.cip), Some(path.rip), path.dip];
        let is_own = |link: &&Link| {
            let is_tunnel = matches!(host, Host::Realserver(_))
                && path.is_tunnel(&link.name, link.kind.as_deref());
            let mut addresses = link.addresses.iter();
            is_tunnel || addresses.any(|address| own.contains(&Some(address.ip)))
        };
        let links = facts.links.iter().filter(is_own);
        routes
            .chain(named.map(String::as_str))
            .chain(links.map(|link| link.name.as_str()))
            .collect()
    }
}

/// What became of a device.
fn change(link: &Link, after: &HostFacts) -> Option<String> {
    let same = after.links.iter().find(|now| now.index == link.index);
    let Some(now) = same else {
        let again = after.links.iter().any(|now| now.name == link.name);
        return Some(match again {
            true => "was deleted and made anew".to_owned(),
            false => "was deleted".to_owned(),
        });
    };
    if now.name != link.name {
        return Some(format!("was renamed to {}", now.name));
    }
    let what = match (link.up, now.up, link.running, now.running) {
        (true, false, ..) => "was set down",
        (false, true, ..) => "was set up",
        (_, _, true, false) => "lost its carrier",
        (_, _, false, true) => "got its carrier",
        _ if link.carrier_changes != now.carrier_changes => "lost its carrier and got it back",
        _ => return None,
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::exchange::Address;

    fn eth0() -> Link {
        Link::eth0(vec![Address {
            ip: Ipv4Addr::new(203, 0, 113, 5),
            prefix: 24,
        }])
    }

    fn after(links: Vec<Link>) -> HostFacts {
        HostFacts {
            links,
            ..HostFacts::default()
        }
    }

    #[test]
    fn what_became_of_a_device_is_said() {
        let link = |change: fn(&mut Link)| {
            let mut link = eth0();
            change(&mut link);
            link
        };
        for (now, expected) in [
            (link(|_| {}), None),
            (link(|link| link.mtu = 1400), None),
            (
                link(|link| link.index = 9),
                Some("was deleted and made anew"),
            ),
            (
                link(|link| (link.index, link.name) = (9, "eth9".to_owned())),
                Some("was deleted"),
            ),
            (
                link(|link| link.name = "lan0".to_owned()),
                Some("was renamed to lan0"),
            ),
            (
                link(|link| (link.up, link.running) = (false, false)),
                Some("was set down"),
            ),
            (link(|link| link.running = false), Some("lost its carrier")),
            (
                link(|link| link.carrier_changes = 2),
                Some("lost its carrier and got it back"),
            ),
        ] {
            assert_eq!(change(&eth0(), &after(vec![now])).as_deref(), expected);
        }
    }
}
