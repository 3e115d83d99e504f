//! Steps that tunproof knows how to do.

use crate::plan::Builtin;
use crate::plan::ProbeId;
use crate::plan::Protocol;
use crate::plan::Task;
use crate::plan::Toward;
use crate::suite::reader::Table;
use crate::suite::source::At;
use crate::suite::step::INTERVAL;
use crate::suite::step::MOST_PACKETS;
use crate::suite::step::MOST_TRIES;

/// Reads a step with `probe`.
pub(crate) fn read(table: &Table<'_>) -> Option<Builtin> {
    let task = table.word("probe", &Task::all(), Task::id);
    let count = table.number("count");
    let at_least = table.number("at-least");
    let interval = table.duration("interval");
    let ttls = table.numbers("ttl").unwrap_or_default();
    let sizes = table.numbers("size").unwrap_or_default();
    let flows = table.number("flows");
    let toward = table.word("toward", &Toward::ALL, Toward::id);
    if count.is_some() && at_least.is_some() {
        let problem = At::new((), table.key("at-least")).wrong(
            "`at-least` beside `count`",
            "`count` says already how often: no more and no less",
        );
        let problem = problem.context(table.key("count"), "the count");
        table.source.problem(problem);
    }
    let task = task?;
    check_meaning(table, &task);
    let (values, tries) = (
        ttls.len().max(1) * sizes.len().max(1),
        count.as_ref().map_or(MOST_TRIES, |at| at.value),
    );
    check_packets(table, values as u64 * tries, &task);
    Some(Builtin {
        task: task.value,
        count: count.map(|at| at.value as u16),
        at_least: at_least.map_or(1, |at| at.value as u16),
        interval: interval.map_or(INTERVAL, |at| at.value),
        ttls: ttls.into_iter().map(|at| at.value as u8).collect(),
        sizes: sizes.into_iter().map(|at| at.value as u16).collect(),
        flows: flows.map_or(ProbeId::FLOWS, |at| at.value as u16),
        toward: toward.map_or(Toward::Client, |at| at.value),
    })
}

/// What has no meaning for a task is no help to who wrote it.
fn check_meaning(table: &Table<'_>, task: &At<Task>) {
    let is_kind = matches!(task.value, Task::Probe(_));
    let is_filled = matches!(task.value, Task::Probe(kind) if !kind.sends_syn_ack() && !kind.opens(Protocol::Tcp));
    let is_passes = task.value == Task::SpoofPasses;
    let keys = [
        ("count", task.value.is_counted()),
        ("at-least", task.value.is_counted() && !is_passes),
        ("interval", task.value.is_counted()),
        ("ttl", is_kind),
        ("size", is_filled),
        ("flows", is_passes),
        ("toward", is_passes),
    ];
    for (key, has_meaning) in keys {
        if !has_meaning && table.has(key) {
            let id = task.value.id();
            let message = format!("`{key}` has no meaning for `{id}`");
            let label = match (key, task.value.is_counted()) {
                ("flows" | "toward", _) => "it is for `spoof-passes`",
                ("size", true) => "only datagrams can be filled up",
                (_, true) => "it is for kinds of probes",
                (_, false) => "it knows itself what to send, and when to end",
            };
            let problem = At::new((), table.key(key)).wrong(message, label);
            let problem = problem.context(task.span.clone(), "what it is");
            table.source.problem(problem);
        }
    }
}

fn check_packets(table: &Table<'_>, packets: u64, task: &At<Task>) {
    let most = match task.value {
        Task::Probe(kind) => u64::from(ProbeId::once(kind)),
        _ => MOST_PACKETS,
    };
    if packets > most {
        let key = ["ttl", "size", "count"].into_iter().find(|k| table.has(k));
        let place = table.key(key.unwrap_or("probe"));
        let label = format!("expected {most} at most of `{}`", task.value.id());
        let problem = At::new((), place).wrong(format!("{packets} packets in one step"), label);
        table.source.problem(problem);
    }
}
