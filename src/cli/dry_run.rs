//! What would be sent: the engine plays against hosts that never see anything, in virtual time.

use std::collections::VecDeque;

use tokio::runtime;

use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::output::Packets;
use crate::cli::prove;
use crate::cli::prove::Vias;
use crate::craft;
use crate::craft::Forced;
use crate::evidence::Evidence;
use crate::evidence::What;
use crate::exchange::ConnectOutcome;
use crate::exchange::Mono;
use crate::exchange::SendOutcome;
use crate::exchange::TapStatistics;
use crate::exchange::Transmit;
use crate::exchange::Wall;
use crate::live::facts;
use crate::live::ipvs;
use crate::plan::Host;
use crate::plan::Plan;
use crate::report::ForcedField;
use crate::report::Planned;
use crate::report::dry_run;
use crate::report::escape;
use crate::run::Command;
use crate::run::Engine;
use crate::run::Event;
use crate::run::Limits;
use crate::run::Task;
use crate::verdict::Judgement;

/// Prints every packet that would be sent if nothing were answered, decoded and in hex, and writes them where
/// that is asked for.
///
/// Facts of this host are read, those of others are not: no agent is started. Of several rounds each has its
/// own: they differ by the session's key.
pub(super) fn say(
    mut plan: Plan,
    vias: &Vias,
    rounds: u16,
    settings: &Settings,
) -> Result<(), Failure> {
    if settings.save.is_some() {
        return Err(Failure::NothingToSave);
    }
    let mut said = String::new();
    let mut packets = Packets::new(settings);
    let nothing = Judgement { paths: Vec::new() };
    for round in 1..=rounds {
        let (text, evidence) = play(plan.clone(), vias, settings.limits)?;
        if rounds > 1 {
            let session = plan.session;
            said.push_str(&format!(
                "round {round} of {rounds}, session {session}:\n\n"
            ));
        }
        said.push_str(&text);
        if round < rounds {
            said.push('\n');
        }
        packets.add(
            &evidence,
            &nothing,
            (rounds > 1).then_some(usize::from(round)),
        );
        plan.session = plan.session.next();
    }
    let written = output::say(&said, settings);
    output::all([written, packets.end()])
}

/// What would be sent, as text and as evidence.
fn play(mut plan: Plan, vias: &Vias, limits: Limits) -> Result<(String, Evidence), Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    // A step is shown although those before it had no answer.
    let steps = plan.suites.iter_mut().flat_map(|suite| &mut suite.steps);
    for after in steps.flat_map(|step| &mut step.after) {
        after.go_on = true;
    }
    let mut now = Mono::default();
    let mut engine = Engine::new(plan, Task::Prove, limits, now);
    let mut packets = Vec::new();
    let mut cleanups = Vec::new();
    let mut answers = VecDeque::new();
    loop {
        while let Some((host, command)) = engine.poll_command(now) {
            note(&engine, host, &command, &mut packets);
            if let Command::Send {
                transmit,
                cleanup: Some(cleanup),
                ..
            } = &command
            {
                cleanups.push((transmit.clone(), cleanup.clone()));
            }
            let event = match command {
                Command::Facts(query) if vias.get(&host) == Some(&prove::local()) => {
                    Some(Event::Facts(Box::new(
                        runtime.block_on(facts::gather(&query, ipvs::read)),
                    )))
                }
                command => answer(command, now),
            };
            answers.extend(event.map(|event| (host, event)));
        }
        if let Some((host, event)) = answers.pop_front() {
            engine.handle_event(host, event, now);
            continue;
        }
        match engine.poll_timeout() {
            Some(due) if !engine.is_finished() => {
                now = due.max(now);
                engine.handle_timeout(now);
            }
            _ => break,
        }
    }
    let mut text = dry_run(&packets);
    let unasked: Vec<_> = vias
        .iter()
        .filter(|(_, via)| **via != prove::local())
        .map(|(host, _)| escape(&engine.evidence().plan().host_name(*host)))
        .collect();
    if !unasked.is_empty() {
        text.push_str(&format!(
            "not asked: {}; what depends on their routes (ARP requests, frames) is not shown\n",
            unasked.join(", ")
        ));
    }
    let mut evidence = engine.into_evidence();
    for (transmit, cleanup) in cleanups {
        add_cleanup(&mut evidence, &transmit, cleanup);
    }
    Ok((text, evidence))
}

/// Adds what would close what a packet opened, which no engine hears of.
fn add_cleanup(evidence: &mut Evidence, of: &Transmit, cleanup: Transmit) {
    let sent = evidence.items().iter().find_map(|item| match &item.what {
        What::Sent {
            transmit,
            outcome: outcome @ SendOutcome::Sent { .. },
        } if transmit == of => Some((
            item.host,
            item.time,
            (item.probe, item.path),
            outcome.clone(),
        )),
        _ => None,
    });
    if let Some((host, time, subject, outcome)) = sent {
        let transmit = cleanup;
        evidence.append(host, None, time, subject, What::Sent { transmit, outcome });
    }
}

/// Keeps what a command would send.
fn note(engine: &Engine, host: Host, command: &Command, packets: &mut Vec<Planned>) {
    let name = engine.evidence().plan().host_name(host);
    match command {
        Command::Send {
            transmit, cleanup, ..
        } => {
            let forced = forced(engine.evidence(), transmit);
            packets.push(Planned::packet(&name, transmit.clone()).with_forced(forced));
            packets.extend(cleanup.clone().map(|c| Planned::cleanup(&name, c)));
        }
        Command::Connect { to, .. } => packets.push(Planned::connection(&name, *to)),
        _ => {}
    }
}

/// What was forced of a packet that a suite wrote out.
fn forced(evidence: &Evidence, transmit: &Transmit) -> Vec<ForcedField> {
    let key = evidence.plan().session;
    let mut crafted = evidence.probes().iter().rev().filter_map(|probe| {
        let packet = probe.script.as_ref()?;
        craft::script(packet, probe.id, &key).ok()
    });
    let own = crafted.find(|crafted| crafted.bytes == transmit.bytes);
    let forced = own.map_or(Vec::new(), |crafted| crafted.forced);
    let field = |field: Forced| ForcedField {
        layer: field.layer,
        name: field.field,
        value: field.value,
        derived: field.derived,
    };
    forced.into_iter().map(field).collect()
}

/// What a host would say that sends everything and sees nothing.
fn answer(command: Command, now: Mono) -> Option<Event> {
    Some(match command {
        Command::Facts(_) => Event::Facts(Box::default()),
        Command::OpenTap(_) => Event::TapOpen,
        Command::Send { token, .. } => Event::Sent {
            token,
            outcome: SendOutcome::Sent {
                time: Wall::from_nanos(now.since(Mono::default()).as_nanos() as u64),
            },
        },
        Command::Settle { token } => Event::Settled { token },
        Command::Connect { token, .. } => Event::Connected {
            token,
            outcome: ConnectOutcome::TimedOut,
        },
        Command::ForgetNeighbour { address, .. } => {
            Event::NeighbourForgotten { address, old: None }
        }
        Command::Firewall(_) => Event::Firewall(Box::default()),
        Command::WatchDrops(_) => Event::DropsWatched(None),
        Command::TapStatistics => Event::Statistics(TapStatistics::default()),
        Command::Finish => return None,
    })
}
