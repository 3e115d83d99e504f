//! What a sweep would do.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::Mono;
use crate::plan::Fleet;
use crate::plan::Group;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::run::Asking;
use crate::run::FleetLimits;
use crate::run::FleetSweep;

/// In words: whom it would ask for what, and how fast.
pub(super) fn text(fleet: &Arc<Fleet>, asking: Asking, limits: FleetLimits) -> String {
    let mut text = String::new();
    // What is written to a `String` is written.
    let _ = write(&mut text, fleet, asking, limits);
    text
}

fn write(
    text: &mut String,
    fleet: &Arc<Fleet>,
    asking: Asking,
    limits: FleetLimits,
) -> std::fmt::Result {
    let (pairs, tcp) = (fleet.pairs(), fleet.tcp_pairs());
    let udp = pairs - tcp;
    let services = fleet.services().count();
    let vips: BTreeSet<_> = fleet.services().map(|service| service.vip).collect();
    writeln!(text, "dry run: nothing is sent\n")?;
    writeln!(
        text,
        "{pairs} pairs of a real server and one of {services} services ({tcp} TCP, {udp} UDP), of {} VIPs",
        vips.len()
    )?;
    for group in fleet.groups() {
        let ranges = group.ranges();
        let shown = ranges.iter().take(3).map(|range| match range.len() {
            1 => range.first.to_string(),
            _ => format!("{} to {}", range.first, range.last),
        });
        let shown: Vec<_> = shown.collect();
        let more = if ranges.len() > shown.len() {
            ", …"
        } else {
            ""
        };
        let first = group.services().first().map(|service| {
            let protocol = service.protocol.name();
            format!("{}:{}/{protocol}", service.vip, service.port)
        });
        let others = match group.services().len() {
            ..=1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        writeln!(
            text,
            "  {}{others} at {} real servers: {}{more}",
            first.unwrap_or_default(),
            group.realservers(),
            shown.join(", ")
        )?;
    }
    let dip = fleet.dip();
    writeln!(text, "\nin a tunnel from {dip} to each real server:")?;
    let closed_loop = asking != Asking::Reflect && tcp > 0;
    if let (true, Some(cip)) = (closed_loop, fleet.cip()) {
        writeln!(text, "  a SYN from {cip}, whose RST closes the loop")?;
    }
    let then = if closed_loop {
        ", for what that leaves open"
    } else {
        ""
    };
    if asking != Asking::ClosedLoop && tcp > 0 {
        writeln!(text, "  a SYN from {dip}, which the service answers{then}")?;
    }
    if udp > 0 {
        writeln!(
            text,
            "  a datagram from {dip} to a closed port, which the VIP refuses"
        )?;
    }
    let least = u64::from(tcp) * 2 + u64::from(udp);
    writeln!(
        text,
        "\n{least} packets if all answer at once (each SYN is closed by an RST); up to {} tries of what does not\n\
         at most {} packets/s in all, {} to each real server: {} at least",
        limits.tries,
        limits.rate,
        limits.each,
        humantime::format_duration(least_time(fleet, asking, limits, least))
    )
}

/// How long it takes if all answer at once, in whole seconds.
fn least_time(fleet: &Arc<Fleet>, asking: Asking, limits: FleetLimits, packets: u64) -> Duration {
    let key = SessionKey::new([0; 16]);
    let sweep = FleetSweep::new(Arc::clone(fleet), key, asking, limits, Mono::default());
    let most = fleet.groups().iter().map(Group::services).map(|services| {
        let of = |protocol| {
            services
                .iter()
                .filter(move |s| s.protocol == protocol)
                .count()
        };
        let apart = |protocol| sweep.apart(protocol) * of(protocol) as u32;
        apart(Protocol::Tcp) + apart(Protocol::Udp)
    });
    let in_all = Duration::from_secs_f64(packets as f64 / f64::from(limits.rate));
    Duration::from_secs(in_all.max(most.max().unwrap_or_default()).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::FleetFile;

    #[test]
    fn it_says_who_is_asked_and_how_long_it_takes() {
        let file = FleetFile::parse(
            "fleet.toml",
            "[director]\nip = \"192.0.2.2\"\n[client]\nip = \"198.51.100.7\"\n[[service]]\nvip = \"192.0.2.10\"\n\
             port = [80, 443]\nrealservers = [\"203.0.113.5\", \"10.0.0.0/24\"]\n",
        );
        let fleet = Arc::new(file.unwrap().fleet);
        let limits = FleetLimits {
            rate: 100,
            each: 10,
            tries: 3,
        };
        let said = text(&fleet, Asking::Both, limits);
        for part in [
            "510 pairs of a real server and one of 2 services (510 TCP, 0 UDP), of 1 VIPs",
            "192.0.2.10:80/tcp and 1 more at 255 real servers: 10.0.0.1 to 10.0.0.254, 203.0.113.5",
            "a SYN from 198.51.100.7, whose RST closes the loop",
            "a SYN from 192.0.2.2, which the service answers, for what that leaves open",
            "1020 packets if all answer",
            "at most 100 packets/s in all, 10 to each real server: 10s at least",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
        // Each real server alone, then: two SYNs two seconds apart each.
        let fast = FleetLimits {
            rate: 100_000,
            each: 1,
            ..limits
        };
        assert!(text(&fleet, Asking::Reflect, fast).contains("4s at least"));
    }
}
