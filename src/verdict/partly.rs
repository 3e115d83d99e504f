//! Some flows from the VIP pass and others never do (HOWTO Q3, with several equal paths).

use crate::evidence::FlowTally;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;

/// Blames `spoofed-source-transit` if some flows never pass: real clients see connections that hang.
pub(super) fn judge(case: &mut Case<'_>) {
    let Some(split) = case.evidence.split_flows(case.number) else {
        undecided(case);
        return;
    };
    let ports = |flows: &[FlowTally]| {
        let ports: Vec<_> = flows.iter().map(|flow| flow.port.to_string()).collect();
        ports.join(", ")
    };
    let (silent, passing) = (&split.silent, &split.passing);
    let all = silent.len() + passing.len();
    let tries = silent.iter().map(|flow| flow.left.len()).min().unwrap_or(0);
    let mut evidence: Vec<_> = silent
        .iter()
        .filter_map(|f| f.left.last())
        .copied()
        .collect();
    evidence.extend(passing.iter().filter_map(|flow| flow.arrived.last()));
    evidence.extend(&split.controls);
    let (vip, cip, rip, port) = (case.path.vip, case.path.cip, case.path.rip, case.path.port);
    let at = match case.evidence.hears(Host::Client) {
        Ok(()) => Station::ClientIn,
        Err(_) => Station::DirectorIn,
    };
    let server = case.realserver();
    let trace = |flow: Option<&FlowTally>| {
        let to = flow.map_or(0, |flow| flow.port);
        format!("traceroute -n -T -O syn,ack -s {vip} --sport={port} -p {to} {cip}")
    };
    let fix = vec![
        case.on(server, trace(silent.first())),
        case.on(server, trace(passing.first())),
    ];
    case.broken(Break {
        code: Code::SpoofedSourcePartlyFiltered,
        hop: Hop::SpoofedSourceTransit,
        between: Some((Station::RealserverOut, at)),
        summary: format!(
            "{} of {all} flows from the VIP {vip} never reach the client, the others do: one of several paths \
             filters it",
            silent.len()
        ),
        detail: format!(
            "Each flow was asked {tries} times. From {vip}:{port} to {cip}, ports {} never got through, ports {} \
             did; the same ports from {rip} get through as well. Real clients see that some connections hang \
             and others work. Equal-cost paths of which one drops sources that it does not route back (BCP \
             38) do that: ask its operator to allow {vip} from {rip} on all of them.",
            ports(silent),
            ports(passing),
        ),
        fix,
        evidence,
    });
}

/// Too much is lost to tell, or too few flows are silent.
fn undecided(case: &mut Case<'_>) {
    let silent = case.evidence.silent_flows(case.number);
    let Some(first) = silent.first() else { return };
    let (vip, cip) = (case.path.vip, case.path.cip);
    let reason = format!(
        "some flows from {vip} to {cip} get through, and {} of {} never did in {} tries (the first: port {}): \
         loss, or one of several paths filters; run again",
        silent.len(),
        case.evidence.flows(case.number).len(),
        first.left.len(),
        first.port
    );
    case.unproven(Hop::SpoofedSourceTransit, reason);
}
