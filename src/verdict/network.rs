//! The hops beyond the real server: gateway and ISPs, the client, and back to the director (HOWTO Q3).
//!
//! Everything rests on differences: the same packets from the real server's own address are the control of
//! the spoofed ones, and the director's own packets from the VIP are the control of the way back.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::evidence::EvidenceId;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Quoting;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::director;
use crate::verdict::duplicate;
use crate::verdict::gateway;
use crate::verdict::partly;
use crate::verdict::rewriting;

const SPOOFED: [ProbeKind; 2] = [ProbeKind::SpoofTrace, ProbeKind::SpoofSynack];
const CONTROL: [ProbeKind; 2] = [ProbeKind::ControlTrace, ProbeKind::ControlSynack];
/// How many probes must be silent end to end before that is no accident.
const ENOUGH: usize = 6;

/// Judges `spoofed-source-transit` to `return-to-director`.
pub(super) fn judge(case: &mut Case<'_>) {
    partly::judge(case);
    rewriting::judge(case);
    let emitted = emitted(case, &SPOOFED);
    let control = Control::of(case);
    let open = !case.is_proven(Hop::SpoofedSourceTransit)
        && !case.hops.contains_key(&Hop::SpoofedSourceTransit);
    if open && emitted.len() >= ENOUGH {
        match (
            distance(case, ProbeKind::SpoofTrace),
            case.evidence.hears(Host::Client),
        ) {
            (Some(ttl), _) => passes_limited(case, ttl),
            (None, Ok(())) => transit_with_client(case, &control),
            (None, Err(_)) => transit_without_client(case, &control),
        }
    }
    client_silent(case);
    return_path(case, &control);
}

/// What the control probes did.
struct Control {
    /// How many left the real server.
    emitted: usize,
    /// Arrivals at the client, as seen there or as its answers show.
    arrived: Vec<EvidenceId>,
    /// The client's answers.
    answered: Vec<EvidenceId>,
}

impl Control {
    fn of(case: &Case<'_>) -> Control {
        let answered = case.sightings(&CONTROL, |item, sighting| {
            item.station == Some(Station::RealserverIn)
                && (sighting.form == Form::Rst || sighting.form == Form::PORT_UNREACHABLE)
        });
        let mut arrived = case.sightings(&CONTROL, |item, sighting| {
            item.station == Some(Station::ClientIn) && sighting.form == Form::Plain
        });
        arrived.extend(&answered);
        Control {
            emitted: emitted(case, &CONTROL).len(),
            arrived,
            answered,
        }
    }
}

/// The probes of these kinds that were seen to leave the real server with their addresses unchanged.
fn emitted(case: &Case<'_>, kinds: &[ProbeKind]) -> Vec<EvidenceId> {
    case.evidence
        .passages(case.number)
        .filter(|passage| kinds.contains(&passage.probe.id.kind))
        .filter_map(|passage| passage.seen[0])
        .collect()
}

/// Both sweeps: for each time to live, who answered.
pub(super) struct Sweeps {
    spoofed: BTreeMap<u8, (Ipv4Addr, EvidenceId)>,
    control: BTreeMap<u8, (Ipv4Addr, EvidenceId)>,
}

impl Sweeps {
    pub(super) fn of(case: &Case<'_>) -> Sweeps {
        let answers = |kind| {
            let mut answers = BTreeMap::new();
            for probe in case.evidence.probes_of_kind(kind) {
                if probe.path != case.number || !probe.is_limited() {
                    continue;
                }
                let answer = case.evidence.sightings(probe.id).find(|(item, sighting)| {
                    let here = matches!(
                        item.station,
                        Some(Station::DirectorIn | Station::RealserverIn)
                    );
                    // Of a probe that left with another source, the router tells that one.
                    here && matches!(sighting.form, Form::IcmpError { icmp_type: 11, .. })
                        && sighting.destination == probe.flow.source
                });
                if let Some((item, sighting)) = answer {
                    answers
                        .entry(probe.ttl)
                        .or_insert((sighting.source, item.id));
                }
            }
            answers
        };
        Sweeps {
            spoofed: answers(ProbeKind::SpoofTrace),
            control: answers(ProbeKind::ControlTrace),
        }
    }

    fn last_spoofed(&self) -> u8 {
        self.spoofed.keys().next_back().copied().unwrap_or(0)
    }

    /// The time to live at which a router with one of these addresses answers the control.
    pub(super) fn router_with(&self, addresses: &BTreeSet<Ipv4Addr>) -> Option<u8> {
        let mut routers = self.control.iter();
        routers.find_map(|(ttl, (router, _))| addresses.contains(router).then_some(*ttl))
    }

    fn last_control(&self) -> u8 {
        self.control.keys().next_back().copied().unwrap_or(0)
    }

    /// In words: where the VIP's packets were last and first not seen, by the control's routers.
    pub(super) fn place(&self) -> Option<String> {
        let passed = self.last_spoofed();
        let (next, (beyond, _)) = self.control.range(passed + 1..).next()?;
        Some(
            match self.control.get(&passed).or(self.spoofed.get(&passed)) {
                Some((router, _)) => format!(
                    "the last router that passed it is {router} (TTL {passed}), the first that did not is \
                 {beyond} (TTL {next})"
                ),
                None => format!(
                    "no router passed it: the first that the control shows is {beyond} (TTL {next})"
                ),
            },
        )
    }

    pub(super) fn evidence(&self) -> Vec<EvidenceId> {
        let passed = self.last_spoofed();
        let last = self.spoofed.get(&passed).map(|(_, id)| *id);
        let beyond = self
            .control
            .range(passed + 1..)
            .next()
            .map(|(_, (_, id))| *id);
        last.into_iter().chain(beyond).collect()
    }
}

fn transit_with_client(case: &mut Case<'_>, control: &Control) {
    let Some(silence) = case.silence(Some(Station::RealserverOut), Station::ClientIn, &[]) else {
        return;
    };
    let cited = case.cite_silence(&silence);
    let between = Some((Station::RealserverOut, Station::ClientIn));
    if control.arrived.is_empty() {
        client_unreachable(case, control, between, vec![cited]);
    } else {
        filtered(case, control, between, vec![cited]);
    }
}

/// No tap at the client: its answers, and those of the routers, must do.
fn transit_without_client(case: &mut Case<'_>, control: &Control) {
    let director = case.evidence.hears(Host::Director).is_ok();
    let unanswered = case
        .silences
        .iter()
        .filter(|s| s.after == Some(Station::RealserverOut) && s.at == Station::DirectorIn)
        .map(|s| s.probes.len())
        .sum::<usize>();
    if !director || unanswered < ENOUGH {
        return;
    }
    let between = Some((Station::RealserverOut, Station::DirectorIn));
    let silence = case.silence(Some(Station::RealserverOut), Station::DirectorIn, &[]);
    let cited: Vec<_> = silence
        .iter()
        .map(|silence| case.cite_silence(silence))
        .collect();
    if let Some(rejecting) = rejecting(case, &SPOOFED)
        && rejecting_is_differential(case, rejecting)
    {
        filtered(case, control, between, cited);
        return;
    }
    if control.answered.is_empty() {
        client_unreachable(case, control, between, cited);
        return;
    }
    let sweeps = Sweeps::of(case);
    let returns = case.is_proven(Hop::ReturnToDirector);
    if returns {
        filtered(case, control, between, cited);
        return;
    }
    // What routers and client send to the VIP may be lost on its way, as well as what they answer to.
    if sweeps.last_spoofed() < sweeps.last_control() {
        let place = sweeps.place().unwrap_or_default();
        case.unproven(
            Hop::SpoofedSourceTransit,
            format!(
                "the sweep from the VIP ends early ({place}), but the way back to the VIP is not proven: a filter \
                 of the source, or lost answers; a vantage at `client` would decide"
            ),
        );
        return;
    }
    as_far_as_control(case, &sweeps);
    // `return_path` judges the rest: the client answers the real server, and never the VIP.
}

/// Routers that answer say nothing of the network behind the last of them.
fn as_far_as_control(case: &mut Case<'_>, sweeps: &Sweeps) {
    let last = sweeps.last_spoofed();
    if last > 0 && last >= sweeps.last_control() && !case.is_proven(Hop::SpoofedSourceTransit) {
        let router = sweeps.spoofed[&last].0;
        let reason = format!(
            "the VIP's packets get as far as those from {}: to {router} (TTL {last}), the last router that answers",
            case.path.rip
        );
        case.unproven(Hop::SpoofedSourceTransit, reason);
    }
}

/// The client answered the sweep: no network filters the source, however many others were lost.
fn passes_limited(case: &mut Case<'_>, ttl: u8) {
    let reason = format!(
        "packets from the VIP reached the client, which answered one sent with a time to live of {ttl}; all those with \
         a full one were lost, or what they were answered"
    );
    case.unproven(Hop::SpoofedSourceTransit, reason);
}

/// The least time to live with which probes of a kind reached the client.
fn distance(case: &Case<'_>, kind: ProbeKind) -> Option<u8> {
    let cip = case.path.cip;
    let probes = case.evidence.probes_of_kind(kind);
    let reached = probes.filter(|probe| {
        probe.path == case.number
            && probe.is_limited()
            && case.evidence.sightings(probe.id).any(|(_, sighting)| {
                sighting.form == Form::PORT_UNREACHABLE && sighting.source == cip
            })
    });
    reached.map(|probe| probe.ttl).min()
}

/// An ICMP "administratively prohibited" (or any unreachable but port) that a router sent for these probes.
fn rejecting(case: &Case<'_>, kinds: &[ProbeKind]) -> Option<EvidenceId> {
    let cip = case.path.cip;
    case.sightings(kinds, |item, sighting| {
        let here = matches!(
            item.station,
            Some(Station::DirectorIn | Station::RealserverIn)
        );
        here && sighting.source != cip
            && matches!(sighting.form, Form::IcmpError { icmp_type: 3, code, of: Quoting::Plain }
                if code != 3 && code != 4)
    })
    .first()
    .copied()
}

/// Whether the control is not refused by the same router.
fn rejecting_is_differential(case: &Case<'_>, rejecting_spoofed: EvidenceId) -> bool {
    let by = |id: EvidenceId| case.sighting(id).map(|sighting| sighting.source);
    rejecting(case, &CONTROL).is_none_or(|control| by(control) != by(rejecting_spoofed))
}

fn filtered(
    case: &mut Case<'_>,
    control: &Control,
    between: Option<(Station, Station)>,
    mut evidence: Vec<EvidenceId>,
) {
    let (vip, cip, rip) = (case.path.vip, case.path.cip, case.path.rip);
    let sweeps = Sweeps::of(case);
    let heard = case.evidence.hears(Host::Director).is_ok();
    let rejecting = rejecting(case, &SPOOFED)
        .and_then(|id| Some((id, case.sighting(id)?.source, case.sighting(id)?.form)));
    let place = match rejecting {
        Some((
            id,
            router,
            Form::IcmpError {
                icmp_type, code, ..
            },
        )) => {
            evidence.push(id);
            format!("{router} refuses it with ICMP type {icmp_type} code {code}")
        }
        // What routers say to the VIP, the director gets.
        _ if !heard => "a vantage at `director` would show where".to_owned(),
        _ => match sweeps.place() {
            Some(place) => {
                evidence.extend(sweeps.evidence());
                place
            }
            None => "no router's answer shows where".to_owned(),
        },
    };
    evidence.extend(control.arrived.first());
    let server = case.realserver();
    let rewritten = match case.evidence.hears(Host::Client) {
        Ok(()) => "",
        Err(_) => {
            " (Or a router sends them on from another source, and the client answers that: a vantage at \
             `client` would show it.)"
        }
    };
    case.broken(Break {
        code: Code::SpoofedSourceFiltered,
        hop: Hop::SpoofedSourceTransit,
        between,
        summary: format!("a network between the real server and the client filters the source {vip}: {place}"),
        detail: format!(
            "Packets from {vip} to {cip} leave the real server and do not arrive; the same packets from \
             its own address {rip} do.{rewritten} The network of the router named, or the one before it, drops \
             sources that it does not route back (BCP 38): ask its operator to allow {vip} from {rip}."
        ),
        fix: vec![case.on(server, format!("traceroute -n -s {vip} {cip}"))],
        evidence,
    });
}

fn client_unreachable(
    case: &mut Case<'_>,
    control: &Control,
    between: Option<(Station, Station)>,
    mut evidence: Vec<EvidenceId>,
) {
    let (cip, rip) = (case.path.cip, case.path.rip);
    let sweeps = Sweeps::of(case);
    let told = rejecting(case, &CONTROL).or_else(|| rejecting(case, &SPOOFED));
    let has_tap = case.evidence.hears(Host::Client).is_ok();
    as_far_as_control(case, &sweeps);
    let last = match sweeps.control.iter().next_back() {
        Some((ttl, (router, id))) => {
            evidence.push(*id);
            format!("; the last router that answers is {router} (TTL {ttl})")
        }
        None => String::new(),
    };
    if control.emitted < ENOUGH / 2 || (!has_tap && told.is_none()) {
        let reason = format!(
            "neither the VIP's packets nor those from {rip} are answered: the client is unreachable, or \
             answers nothing{last}; a vantage at `client` would decide"
        );
        for hop in [
            Hop::SpoofedSourceTransit,
            Hop::ClientArrival,
            Hop::ReturnToDirector,
        ] {
            if !case.is_proven(hop) {
                case.unproven(hop, reason.clone());
            }
        }
        case.note(
            Code::ClientUnreachable,
            Hop::ClientArrival,
            format!("{cip} answers nobody: not the VIP, not {rip}"),
            reason,
            evidence,
        );
        return;
    }
    let mut by = String::new();
    if let Some(id) = told {
        evidence.insert(0, id);
        if let Some(sighting) = case.sighting(id) {
            by = format!("; {} says so by ICMP", sighting.source);
        }
    }
    let server = case.realserver();
    case.broken(Break {
        code: Code::ClientUnreachable,
        hop: Hop::ClientArrival,
        between,
        summary: format!("the client {cip} cannot be reached, from {rip} either{by}"),
        detail: format!(
            "The control, the same packets from the real server's own address, dies too{last}. This is \
             no filter of spoofed sources."
        ),
        fix: vec![case.on(server, format!("traceroute -n {cip}"))],
        evidence,
    });
}

/// The client sees the probes and answers none.
fn client_silent(case: &mut Case<'_>) {
    if case.is_proven(Hop::ReturnToDirector) {
        return;
    }
    let Some(silence) = case.silence(Some(Station::ClientIn), Station::ClientOut, &[]) else {
        return;
    };
    let answered = case.sightings(&[], |item, sighting| {
        item.station == Some(Station::ClientOut)
            && matches!(sighting.form, Form::Rst | Form::PORT_UNREACHABLE)
    });
    if !answered.is_empty() || silence.probes.len() < ENOUGH {
        return;
    }
    // A firewall that knows connections drops what the client did not ask for, and real ones work.
    let asked = &[ProbeKind::Service];
    let unanswered = case.silence(Some(Station::ClientIn), Station::ClientOut, asked);
    // One that lets not even its own questions out is another matter.
    if unanswered.is_none() && case.forbidden(asked).len() < ENOUGH / 2 {
        let reason = format!(
            "packets from the VIP arrive at the client {}, which answers none of them: it did not ask for them, \
             and a firewall that knows connections would do the same",
            case.path.cip
        );
        case.unproven(Hop::ReturnToDirector, reason);
        return;
    }
    let evidence = vec![case.cite_silence(&silence), silence.evidence[0]];
    let cip = case.path.cip;
    case.broken(Break {
        code: Code::ClientSilent,
        hop: Hop::ReturnToDirector,
        between: Some((Station::ClientIn, Station::ClientOut)),
        summary: format!(
            "packets from the VIP arrive at the client {cip}, which answers none of them"
        ),
        detail: format!(
            "{} arrived and no RST or port unreachable left: a firewall on the client, or another \
             program's raw handling of the address.",
            silence.probes.len()
        ),
        fix: case.rules(Host::Client),
        evidence,
    });
}

/// The client answers, and the director does not get it.
fn return_path(case: &mut Case<'_>, control: &Control) {
    if case.is_proven(Hop::ReturnToDirector) || case.is_broken(Hop::ReturnToDirector) {
        return;
    }
    if let Some(thief) = gateway::who_gets_past_the_director(case) {
        case.unproven(Hop::ReturnToDirector, thief);
        return;
    }
    let (vip, cip) = (case.path.vip, case.path.cip);
    let fix = vec![
        case.on(Host::Client, format!("traceroute -n {vip}")),
        case.on(Host::Director, format!("tcpdump -ln -i any host {cip}")),
    ];
    if let Some(silence) = case.silence(Some(Station::ClientOut), Station::DirectorIn, &[])
        && case
            .sightings(&[], |item, sighting| {
                item.station == Some(Station::ClientOut)
                    && matches!(sighting.form, Form::Rst | Form::PORT_UNREACHABLE)
                    && sighting.destination == vip
            })
            .len()
            >= ENOUGH
    {
        let evidence = vec![case.cite_silence(&silence), silence.evidence[0]];
        let between = Some((Station::ClientOut, Station::DirectorIn));
        if let Some(claim) = duplicate::culprit(case) {
            director::stolen(case, Hop::ReturnToDirector, between, &claim, evidence);
            return;
        }
        case.broken(Break {
            code: Code::ReturnPathBroken,
            hop: Hop::ReturnToDirector,
            between,
            summary: format!("what the client {cip} sends to {vip} does not reach the director"),
            detail: "Its answers leave it and do not arrive: the network routes the VIP elsewhere, or drops it."
                .to_owned(),
            fix,
            evidence,
        });
        return;
    }
    if case.evidence.hears(Host::Client).is_ok() || case.is_broken(Hop::SpoofedSourceTransit) {
        return;
    }
    // Without a client vantage: it answers the real server's own address, and the VIP never, not even where
    // the director itself, whose address the VIP is, was the sender.
    let Some(silence) = case.silence(
        Some(Station::DirectorOut),
        Station::DirectorIn,
        &[ProbeKind::ReturnControl],
    ) else {
        return;
    };
    let Some(alive) = control.answered.first().copied() else {
        return;
    };
    // Near the client one filter of the VIP drops what the director sends as well: only where every router
    // before the client answered the VIP is it the way back.
    if distance(case, ProbeKind::ControlTrace) != Some(Sweeps::of(case).last_spoofed() + 1) {
        let reason = format!(
            "{cip} answers {}, and nothing for {vip} comes back to the director: a filter of {vip} near the client, \
             or a dead way back; a vantage at `client` would decide",
            case.path.rip
        );
        case.unproven(Hop::ReturnToDirector, reason);
        return;
    }
    let evidence = vec![case.cite_silence(&silence), alive];
    let between = Some((Station::DirectorOut, Station::DirectorIn));
    if let Some(claim) = duplicate::culprit(case) {
        director::stolen(case, Hop::ReturnToDirector, between, &claim, evidence);
        return;
    }
    case.broken(Break {
        code: Code::ReturnPathBroken,
        hop: Hop::ReturnToDirector,
        between,
        summary: format!("the client {cip} answers {}, but nothing for {vip} comes back to the director", case.path.rip),
        detail: "Packets from the VIP were sent to the client by the real server and by the director \
                 itself, and no answer reached the director: the way from the client to the VIP is dead, \
                 the client takes no packets from the VIP, or a network that both pass filters them."
            .to_owned(),
        fix,
        evidence,
    });
}
