//! A router on the way to the client translates the VIP (HOWTO Q3).

use crate::plan::Hop;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::network::Sweeps;

/// How many probes must have been rewritten before a hop breaks by it.
const ENOUGH: usize = 3;

/// Blames `spoofed-source-transit` if what left as the VIP's comes to the client as somebody else's.
pub(super) fn judge(case: &mut Case<'_>) {
    let Some(found) = case.evidence.rewriting(case.number) else {
        return;
    };
    let (vip, cip) = (case.path.vip, case.path.cip);
    let names: Vec<_> = found.to.iter().map(ToString::to_string).collect();
    let to = names.join(", ");
    if !found.left_intact {
        // Without a tap there, the real server itself may do it.
        for hop in [Hop::RealserverEgress, Hop::SpoofedSourceTransit] {
            if !case.is_proven(hop) && !case.is_broken(hop) {
                let reason = format!(
                    "the client gets the answers from {to} instead of {vip}: rewritten on the real server or on \
                     the way; a vantage at `realserver` ({}) would decide",
                    case.path.realserver
                );
                case.unproven(hop, reason);
            }
        }
        return;
    }
    if case.is_proven(Hop::SpoofedSourceTransit) {
        let own = case.path.protocol.name().to_uppercase();
        case.note(
            Code::SourceRewrittenInTransit,
            Hop::SpoofedSourceTransit,
            format!("some of the packets from the VIP {vip} come to the client from {to}"),
            format!(
                "{} probes left the real server from {vip} and came to {cip} from {to}; the service's own {own} \
                 passes as it is. A router translates what it takes for new flows.",
                found.probes
            ),
            found.evidence,
        );
        return;
    }
    if found.probes < ENOUGH || case.is_broken(Hop::SpoofedSourceTransit) {
        return;
    }
    let sweeps = Sweeps::of(case);
    let mut evidence = found.evidence;
    evidence.truncate(6);
    let place = match sweeps.place() {
        Some(place) => {
            evidence.extend(sweeps.evidence());
            format!(" Of the routers that answer the VIP, {place}.")
        }
        None => String::new(),
    };
    let router = sweeps
        .router_with(&found.to)
        .map_or_else(String::new, |ttl| {
            format!(" The new source is the router at TTL {ttl}.")
        });
    let server = case.realserver();
    case.broken(Break {
        code: Code::SourceRewrittenInTransit,
        hop: Hop::SpoofedSourceTransit,
        between: Some((Station::RealserverOut, Station::ClientIn)),
        summary: format!("a router on the way to the client rewrites the source {vip} to {to}"),
        detail: format!(
            "{} probes left the real server from {vip} and came to {cip} from {to}: source NAT or masquerading \
             between them. Clients refuse answers from an address that they never asked.{router}{place}",
            found.probes
        ),
        fix: vec![
            case.on(server, format!("traceroute -n -s {vip} {cip}")),
            "router# nft list ruleset | grep -nE 'masquerade|snat'".to_owned(),
        ],
        evidence,
    });
}
