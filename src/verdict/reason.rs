//! The kernel's own account of packets that died on a host: its drop reasons, and the counters of its stack.
//!
//! A drop reason is about the very packet, or joined to many by time. A counter explains only if it rose by as many as died.

use std::collections::BTreeMap;

use crate::evidence::EvidenceId;
use crate::evidence::What;
use crate::exchange::Leg;
use crate::exchange::RouteAnswer;
use crate::exchange::Wall;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::Protocol;
use crate::verdict::Code;
use crate::verdict::Severity;
use crate::verdict::case::Case;
use crate::verdict::case::sysctl;
use crate::verdict::freed;
use crate::verdict::scene::Death;
use crate::verdict::scene::Scene;

/// How many must have died, and a counter risen by as many.
const ENOUGH: usize = 3;

const RP_FILTER: &str = "TcpExtIPReversePathFilter";
const CHECKSUMS: [(Protocol, &str); 2] = [
    (Protocol::Tcp, "TcpInCsumErrors"),
    (Protocol::Udp, "UdpInCsumErrors"),
];
/// What the kernel tells.
pub(super) enum Told {
    /// It was no rule; the finding says now what it was.
    Explained,
    /// It was a rule, in words.
    Rule(String),
    /// Nothing.
    Nothing,
}

/// Corrects a finding that blames a host's firewall, if the kernel tells more.
///
/// Its word about the very packets counts most; then counters, which are exact; then reasons joined by time.
pub(super) fn judge(case: &mut Case<'_>, number: usize, scene: &Scene, deaths: &[Death]) -> Told {
    let word = match Word::about_packets(case, scene, deaths) {
        Some(word) => word,
        None => match by_counter(case, number, scene, deaths) {
            Told::Nothing => match Word::by_time(case, scene, deaths) {
                Some(word) => word,
                None => return Told::Nothing,
            },
            told => return told,
        },
    };
    case.findings[number].evidence.push(word.evidence);
    let said = word.said;
    if word.reason == "NETFILTER_DROP" {
        return Told::Rule(said);
    }
    by_reason(case, number, scene, (&word.reason, said), deaths);
    Told::Explained
}

/// Adds the kernel's reason to a finding that has a good one already.
pub(super) fn corroborate(case: &mut Case<'_>, number: usize, scene: &Scene, deaths: &[Death]) {
    let word = Word::about_packets(case, scene, deaths);
    if let Some(word) = word.or_else(|| Word::by_time(case, scene, deaths)) {
        let finding = &mut case.findings[number];
        finding.evidence.push(word.evidence);
        finding.detail.push(' ');
        finding.detail.push_str(&word.said);
    }
}

/// The kernel's reason for most of the deaths that it tells of.
struct Word {
    reason: String,
    said: String,
    evidence: EvidenceId,
}

impl Word {
    /// From the drop monitor, which shows the packets.
    fn about_packets(case: &Case<'_>, scene: &Scene, deaths: &[Death]) -> Option<Word> {
        let mut words: BTreeMap<(&str, &str), (usize, EvidenceId)> = BTreeMap::new();
        for death in deaths {
            let told = case
                .evidence
                .about(death.probe)
                .find_map(|item| match &item.what {
                    What::Drop {
                        reason: Some(reason),
                        place,
                        sighting,
                        ..
                    } if item.host == scene.host
                        && says_something(reason)
                        && !matches!(sighting.form, Form::Cleanup | Form::Rst) =>
                    {
                        Some((reason.as_str(), place.as_str(), item.id))
                    }
                    _ => None,
                });
            if let Some((reason, place, id)) = told {
                words.entry((reason, place)).or_insert((0, id)).0 += 1;
            }
        }
        let (word, (count, evidence)) = words.into_iter().max_by_key(|(_, (count, _))| *count)?;
        let packets = if count == 1 { "packet" } else { "packets" };
        let (reason, place) = word;
        Some(Word {
            reason: reason.to_owned(),
            said: format!("The kernel says of {count} {packets}: {reason}, in {place}."),
            evidence,
        })
    }

    /// From the tracepoint, which does not.
    fn by_time(case: &mut Case<'_>, scene: &Scene, deaths: &[Death]) -> Option<Word> {
        let mut last: BTreeMap<ProbeId, Wall> = BTreeMap::new();
        for death in deaths {
            let time = last.entry(death.probe).or_insert(death.time);
            *time = death.time.max(*time);
        }
        let freed = &case.evidence.host(scene.host)?.freed;
        let joined = freed::joined(freed, last.into_values().collect())?;
        let said = joined.to_string();
        let command = "perf trace --no-syscalls -a -e skb:kfree_skb";
        let evidence = case.cite_fact(scene.host, said.clone(), command);
        Some(Word {
            reason: joined.reason,
            said: format!("{}{}.", said[..1].to_uppercase(), &said[1..]),
            evidence,
        })
    }
}

/// A datagram for a closed port ends so, too, once its ICMP error is made; many places give no reason; and a copy for
/// another tap that is full is not the packet.
pub(super) fn says_something(reason: &str) -> bool {
    !matches!(reason, "NOT_SPECIFIED" | "NO_SOCKET" | "PACKET_SOCK_ERROR")
}

fn by_reason(
    case: &mut Case<'_>,
    number: usize,
    scene: &Scene,
    (reason, said): (&str, String),
    deaths: &[Death],
) {
    let name = case.name(scene.host);
    match reason {
        "IP_RPFILTER" => rp_filter(case, number, scene, deaths, said),
        "UDP_CSUM" | "TCP_CSUM" | "ICMP_CSUM" | "SKB_CSUM" | "IP_CSUM" => {
            checksums(case, number, said);
        }
        "IP_INNOROUTES" | "IP_INADDRERRORS" | "IP_LOCAL_SOURCE" | "IP_INVALID_SOURCE"
            if case.findings[number].code == Code::RealserverFirewallDecapsulated =>
        {
            let (vip, cip) = (case.path.vip, case.path.cip);
            let fix = vec![
                case.on(scene.host, "ip rule; ip route show table all"),
                case.on(
                    scene.host,
                    format!("ip route get from {cip} to {vip} iif tunl0"),
                ),
            ];
            let summary = format!(
                "the routing of {name} refuses packets from {cip} to {vip}: the kernel says {reason}"
            );
            rewrite(case, number, Code::RouteRejects, summary, said, fix);
        }
        // `__neigh_create` fails where the table is full (`net/core/neighbour.c`), and the sender is not told.
        "NEIGH_CREATEFAIL" if case.findings[number].code == Code::DirectorFirewallEgress => {
            let fix = [
                "dmesg | grep 'neighbor table overflow'",
                "ip -4 neigh | wc -l; sysctl net.ipv4.neigh.default.gc_thresh3",
                "sysctl -w net.ipv4.neigh.default.gc_thresh3=8192",
            ];
            let fix = fix.map(|command| case.on(scene.host, command)).to_vec();
            let summary = format!(
                "the kernel of {name} has no room for its next hop's hardware address: its neighbour table is full"
            );
            rewrite(case, number, Code::NextHopUnreachable, summary, said, fix);
        }
        _ => {
            let summary = format!("the kernel of {name} drops the packets, by no rule: {reason}");
            let (code, fix) = (
                case.findings[number].code,
                case.findings[number].fix.clone(),
            );
            rewrite(case, number, code, summary, said, fix);
        }
    }
}

fn by_counter(case: &mut Case<'_>, number: usize, scene: &Scene, deaths: &[Death]) -> Told {
    let count = deaths.len();
    if count < ENOUGH {
        return Told::Nothing;
    }
    let code = case.findings[number].code;
    let rose = rise(case, scene.host, RP_FILTER);
    if rose >= count as u64 && meets_rp_filter(case, code, scene, deaths) {
        let evidence = cite(case, scene.host, RP_FILTER, rose);
        case.findings[number].evidence.push(evidence);
        let said = format!("{RP_FILTER} rose by {rose} while {count} of our packets died here.");
        rp_filter(case, number, scene, deaths, said);
        return Told::Explained;
    }
    if code != Code::RealserverFirewallDecapsulated {
        return Told::Nothing;
    }
    let rises = CHECKSUMS.map(|(protocol, counter)| {
        let died = deaths.iter().filter(|death| death.protocol == protocol);
        (
            counter,
            died.count() as u64,
            rise(case, scene.host, counter),
        )
    });
    if rises.iter().all(|(_, died, rose)| rose >= died) {
        let mut said = Vec::new();
        for (counter, died, rose) in rises.into_iter().filter(|(_, died, _)| *died > 0) {
            let evidence = cite(case, scene.host, counter, rose);
            case.findings[number].evidence.push(evidence);
            said.push(format!(
                "{counter} rose by {rose} while {died} of our packets died here."
            ));
        }
        checksums(case, number, said.join(" "));
        return Told::Explained;
    }
    let limited = case.evidence.withheld_by(scene.host);
    let withheld: u64 = limited.iter().map(|(_, rose)| rose).sum();
    if withheld >= count as u64 && deaths.iter().all(|death| death.protocol == Protocol::Udp) {
        icmp_limited(case, number, scene, limited, count);
        return Told::Explained;
    }
    Told::Nothing
}

/// Whether packets came in by a device that filters by the reverse path and is not the way back. Of the tunnel
/// device the kernel was asked already.
fn meets_rp_filter(case: &Case<'_>, code: Code, scene: &Scene, deaths: &[Death]) -> bool {
    let source = match code {
        Code::DirectorFirewallIngress | Code::DirectorNotForwarding => Some(case.path.cip),
        Code::RealserverFirewallIpip => case.path.dip,
        _ => None,
    };
    let (Some(source), Some(device)) = (source, device(case, deaths)) else {
        return false;
    };
    let filters = case.facts(scene.host).is_some_and(|facts| {
        let in_force = facts.rp_filter_in_force(&device);
        in_force.is_none_or(|in_force| in_force > 0)
    });
    let way_back = match case.route(scene.host, source, None, None) {
        Some(RouteAnswer::Route(route)) => route.device,
        _ => None,
    };
    filters && way_back.as_ref() != Some(&device)
}

/// The device by which the packets came that died.
fn device(case: &Case<'_>, deaths: &[Death]) -> Option<String> {
    match &case.evidence.item(deaths.first()?.evidence)?.what {
        What::Seen { capture, .. } => Some(capture.device.clone()),
        _ => None,
    }
}

/// By how much a counter rose from before the first probe to behind the last.
fn rise(case: &Case<'_>, host: Host, counter: &str) -> u64 {
    case.evidence.rise(host, counter).unwrap_or(0)
}

fn cite(case: &mut Case<'_>, host: Host, counter: &str, rose: u64) -> EvidenceId {
    let summary = format!("{counter} rose by {rose} while we probed");
    case.cite_fact(host, summary, format!("nstat -az {counter}"))
}

fn rp_filter(case: &mut Case<'_>, number: usize, scene: &Scene, deaths: &[Death], said: String) {
    let device = device(case, deaths).unwrap_or_else(|| "DEV".to_owned());
    let name = case.name(scene.host);
    let setting = sysctl(&device, "rp_filter");
    // Of a tunnel device without an address loose is strict; elsewhere it is enough, whatever `all` is.
    let fix = match scene.legs.contains(&Leg::Decapsulated) {
        true => format!("sysctl -w net.ipv4.conf.all.rp_filter=0 {setting}=0"),
        false => format!("sysctl -w {setting}=2"),
    };
    let fix = vec![case.on(scene.host, fix)];
    let summary = format!("rp_filter on {device} of {name} drops the packets");
    let said = format!(
        "{said} The route back to their source does not go out by {device}, so reverse path filtering takes them \
         for spoofed; the larger value of `all` and the device counts."
    );
    rewrite(case, number, Code::RpFilterDrops, summary, said, fix);
}

fn checksums(case: &mut Case<'_>, number: usize, said: String) {
    let server = case.realserver();
    let summary =
        "what comes out of the tunnel has wrong checksums, and the real server drops it".to_owned();
    let said = format!(
        "{said} Usually a network card or a virtual one on the director, or between, was to fill in the checksum \
         of a packet that it no longer sees, being inside a tunnel; or something on the way rewrites it."
    );
    let fix = vec![
        case.on(Host::Director, "ethtool -K OUTDEV tx off"),
        case.on(server, "nstat -az TcpInCsumErrors UdpInCsumErrors"),
    ];
    rewrite(case, number, Code::ChecksumErrors, summary, said, fix);
}

/// Nothing is broken by that: what was not said proves nothing.
fn icmp_limited(
    case: &mut Case<'_>,
    number: usize,
    scene: &Scene,
    limited: [(&'static str, u64); 2],
    count: usize,
) {
    let name = case.name(scene.host);
    for (counter, rose) in limited.into_iter().filter(|(_, rose)| *rose > 0) {
        let evidence = cite(case, scene.host, counter, rose);
        case.findings[number].evidence.push(evidence);
    }
    let old = case.findings[number].summary.clone();
    let fix = case.on(
        scene.host,
        "sysctl net.ipv4.icmp_msgs_per_sec net.ipv4.icmp_msgs_burst net.ipv4.icmp_ratelimit",
    );
    let finding = &mut case.findings[number];
    finding.code = Code::IcmpLimited;
    finding.severity = Severity::Note;
    finding.summary = format!("{name} withholds ICMP errors: its limits are reached");
    finding.detail = format!(
        "{count} datagrams for closed ports came out of the tunnel and were not answered, and as many ICMP errors \
         were held back by a limit."
    );
    finding.fix = vec![fix];
    let (hop, summary) = (
        case.findings[number].hop,
        case.findings[number].summary.clone(),
    );
    let blamed = case.hops.get(&hop);
    if blamed.is_some_and(|judged| judged.reason.as_ref() == Some(&old)) {
        case.hops.remove(&hop);
        case.unproven(
            hop,
            format!("{summary}; a TCP service, or higher limits, would decide"),
        );
    }
}

/// The finding says something else now, of the same hop.
fn rewrite(
    case: &mut Case<'_>,
    number: usize,
    code: Code,
    summary: String,
    detail: String,
    fix: Vec<String>,
) {
    let finding = &mut case.findings[number];
    let old = std::mem::replace(&mut finding.summary, summary.clone());
    finding.code = code;
    finding.detail = detail;
    finding.fix = fix;
    let (hop, evidence): (Hop, Vec<EvidenceId>) = (finding.hop, finding.evidence.clone());
    if let Some(judged) = case.hops.get_mut(&hop)
        && judged.reason.as_ref() == Some(&old)
    {
        judged.reason = Some(summary);
        judged.evidence = evidence;
    }
}
