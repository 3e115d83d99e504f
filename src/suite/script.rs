//! Packets written out: `send`, `from`, `device`, `loop`, `count`.

use crate::plan::Carrier;
use crate::plan::Hardware;
use crate::plan::Packet;
use crate::plan::Role;
use crate::plan::Script;
use crate::suite::environment::Scope;
use crate::suite::environment::Value;
use crate::suite::fields;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::source::At;
use crate::suite::step::INTERVAL;
use crate::suite::step::MOST_PACKETS;
use crate::suite::suite_file::may_be_bound;
use crate::wire::Icmpv4;
use crate::wire::Mac;
use crate::wire::layers::Field;
use crate::wire::layers::Layer;

/// Octets that an IPv4 packet can have.
const MOST_OCTETS: usize = 65535;

/// A step's packets: the whole loop, `count` times.
pub(crate) fn read(table: &Table<'_>, scope: &Scope<'_>) -> Option<Script> {
    let from = table.word("from", &Role::ALL, Role::id);
    if !table.has("from") {
        table.missing("from", "\"director\"");
    }
    let count = match table.has("count") {
        true => table.number("count").map(|at| at.value),
        false => Some(1),
    };
    let interval = match table.has("interval") {
        true => table.duration("interval").map(|at| at.value),
        false => Some(INTERVAL),
    };
    let loops = read_loops(table, scope)?;
    let combinations = loops
        .iter()
        .map(|(_, values)| values.len() as u64)
        .fold(1, u64::saturating_mul);
    let packets = combinations.saturating_mul(count.unwrap_or(1));
    if packets > MOST_PACKETS {
        let place = ["loop", "count"].into_iter().find(|key| table.has(key));
        let problem = At::new((), table.key(place.unwrap_or("send"))).wrong(
            format!("{packets} packets in one step"),
            format!("expected {MOST_PACKETS} at most"),
        );
        table.source.problem(problem);
        return None;
    }
    let mut packets = Vec::new();
    for number in 0..combinations {
        let mut inner = scope.clone();
        let mut rest = number;
        // The last variable runs fastest.
        for (name, values) in loops.iter().rev() {
            let length = values.len() as u64;
            let value = values[(rest % length) as usize].clone();
            inner.bind(&name.value, value, Some(name.span.clone()));
            rest /= length;
        }
        // What is wrong with one is most often wrong with all.
        packets.push(read_packet(&table.within(&inner), &inner)?);
    }
    let count = usize::try_from(count?).ok()?;
    let all = packets.iter().cycle().take(packets.len() * count);
    Some(Script {
        from: from?.value,
        packets: all.cloned().collect(),
        interval: interval?,
        device: table.device("device"),
    })
}

/// A loop's variable, and its values.
type Loop = (At<String>, Vec<Value>);

/// The loops, in the order of the file.
fn read_loops(table: &Table<'_>, scope: &Scope<'_>) -> Option<Vec<Loop>> {
    let Some(at) = table.given("loop") else {
        return Some(Vec::new());
    };
    let Given::Table(entries) = at.value else {
        return table.wrong_type("loop", &at);
    };
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut loops = Vec::new();
    let mut complete = true;
    for (name, value) in entries {
        let name = At::new(name.get_ref().to_string(), name.span());
        let values = may_be_bound(table, &name)
            .then(|| is_new(table, scope, &name))
            .filter(|is_new| *is_new)
            .and_then(|_| table.resolve(value))
            .and_then(|at| table.expand(&name.value, at))
            .and_then(|values| plain(table, &name, &values));
        match values {
            Some(values) => loops.push((name, values)),
            None => complete = false,
        }
    }
    complete.then_some(loops)
}

fn is_new(table: &Table<'_>, scope: &Scope<'_>, name: &At<String>) -> bool {
    let Some(bound) = scope.get(&name.value) else {
        return true;
    };
    let shown = &name.value;
    let problem = name.wrong(
        format!("`${shown}` is a variable already"),
        "expected another name",
    );
    table.source.problem(match &bound.place {
        Some(place) => problem.context(place.clone(), "the first"),
        None => problem.hint("`[vars]` declares it, and `--set` gave it its value"),
    });
    false
}

fn plain(table: &Table<'_>, name: &At<String>, values: &[At<Given<'_>>]) -> Option<Vec<Value>> {
    let values = values.iter().map(|at| match (&at.value, at.value.held()) {
        (Given::Integer(_) | Given::Text(_), value) => value,
        (other, _) => {
            let problem = at.wrong(
                format!("a value of `{}` is {}", name.value, other.described()),
                "expected a number or a string",
            );
            table.source.problem(problem);
            None
        }
    });
    values.collect()
}

fn read_packet(table: &Table<'_>, scope: &Scope<'_>) -> Option<Packet> {
    let mut packet = Packet {
        layers: Vec::new(),
        carriers: Vec::new(),
        hardware: Vec::new(),
    };
    let mut quoted = false;
    let tables = table.tables("send");
    let mut complete = table.source.is_clean();
    for element in &tables {
        let Some(read) = fields::read(element, scope, quoted) else {
            complete = false;
            continue;
        };
        check_order(element, packet.layers.last(), &read.layer);
        if packet.layers.is_empty() {
            check_raw_socket(element);
        }
        quoted |= matches!(&read.layer, Layer::Icmpv4(icmp) if is_error(icmp.icmp_type));
        let number = packet.layers.len();
        let carriers = read.carriers.into_iter();
        packet
            .carriers
            .extend(carriers.map(|carrier| (number, carrier)));
        let hardware = read.hardware.into_iter().map(|whose| (number, whose));
        packet.hardware.extend(hardware);
        packet.layers.push(read.layer);
    }
    if tables.is_empty() && table.source.is_clean() {
        let problem = At::new((), table.key("send"));
        let problem = problem.wrong("`send` is empty", "expected one layer at least");
        table.source.problem(problem);
    }
    if !complete || !table.source.is_clean() {
        return None;
    }
    if let Some(Layer::Udp(_)) = packet.layers.last()
        && !quoted
    {
        packet
            .carriers
            .push((packet.layers.len(), Carrier::Payload));
        packet.layers.push(Layer::Raw(Vec::new()));
    }
    address_everybody(&mut packet);
    check_length(table, &packet)?;
    if !table.source.is_clean() {
        return None;
    }
    if let Err(why) = scope.environment.judge(&packet) {
        let problem = At::new((), table.key("send")).wrong("this packet cannot be sent", why);
        table.source.problem(problem);
        return None;
    }
    Some(packet)
}

/// Where ARP asks or announces, a destination that was left out is everybody's.
fn address_everybody(packet: &mut Packet) {
    if packet.asks_next_hop()
        && let [Layer::Ethernet(ethernet), Layer::Arp(arp), ..] = &mut packet.layers[..]
        && (arp.operation == ASKS || arp.sender_ip == arp.target_ip)
    {
        ethernet.destination = Mac::BROADCAST;
        packet
            .hardware
            .retain(|(_, whose)| *whose != Hardware::NextHop);
    }
}

/// `who-has`.
const ASKS: u16 = 1;

fn is_error(icmp_type: u8) -> bool {
    matches!(
        icmp_type,
        Icmpv4::DESTINATION_UNREACHABLE
            | Icmpv4::SOURCE_QUENCH
            | Icmpv4::REDIRECT
            | Icmpv4::TIME_EXCEEDED
            | Icmpv4::PARAMETER_PROBLEM
    )
}

/// Whether a layer can stand where it does.
fn check_order(element: &Table<'_>, before: Option<&Layer>, layer: &Layer) {
    let wrong = match (before, layer) {
        (None, Layer::Ethernet(_) | Layer::Ipv4(_)) => None,
        (None, Layer::Arp(_)) => Some((
            "`arp` is the first layer",
            "expected `ethernet` before it: it goes out of a device as it is",
        )),
        (None, _) => Some((
            "a packet starts with this layer",
            "expected `ipv4`, or `ethernet` before it",
        )),
        (Some(_), Layer::Ethernet(_)) => {
            Some(("`ethernet` behind another layer", "expected it first"))
        }
        (Some(Layer::Arp(_)), Layer::Raw(_)) => None,
        (Some(Layer::Arp(_)), _) => Some(("a layer behind `arp`", "nothing can follow it")),
        (Some(Layer::Ethernet(_)), Layer::Arp(_)) => None,
        (_, Layer::Arp(_)) => Some((
            "`arp` behind another layer",
            "expected `ethernet` before it",
        )),
        (Some(Layer::Ipv4(_)), Layer::Udp(_) | Layer::Tcp(_)) => None,
        (_, Layer::Udp(udp)) if udp.checksum == Field::Derived => Some(NO_ADDRESSES),
        (_, Layer::Tcp(tcp)) if tcp.checksum == Field::Derived => Some(NO_ADDRESSES),
        _ => None,
    };
    if let Some((message, label)) = wrong {
        let problem = At::new((), element.span.clone()).wrong(message, label);
        element.source.problem(problem);
    }
}

/// What the kernel writes into a packet that a raw socket sends, nobody else can (`raw_send_hdrinc`).
fn check_raw_socket(element: &Table<'_>) {
    let Some(value) = element.entries.get("ipv4") else {
        return;
    };
    for (name, value) in value.get_ref().as_table().into_iter().flatten() {
        let zero = element.resolve(value).map(|at| at.value);
        let is_written = match &**name.get_ref() {
            "len" | "ihl" | "chksum" => true,
            "id" => matches!(zero, Some(Given::Integer(0))),
            _ => false,
        };
        if is_written {
            let message = format!(
                "the kernel itself writes the `{}` of what a raw socket sends",
                name.get_ref()
            );
            let problem = At::new((), name.span()).wrong(
                message,
                "leave it out, or put `ethernet` before: that goes out as it is",
            );
            element.source.problem(problem);
        }
    }
}

const NO_ADDRESSES: (&str, &str) = (
    "there is no `ipv4` right before, to derive the checksum from",
    "expected `chksum` in it, or `ipv4` before it",
);

/// Whether the length fields can hold the lengths.
fn check_length(table: &Table<'_>, packet: &Packet) -> Option<()> {
    let octets: usize = packet
        .layers
        .iter()
        .map(|layer| match layer {
            Layer::Ethernet(_) => 0,
            Layer::Arp(_) => 28,
            Layer::Ipv4(ip) => 20 + ip.options.len().next_multiple_of(4),
            Layer::Udp(_) | Layer::Icmpv4(_) => 8,
            Layer::Tcp(tcp) => 20 + tcp.options.len().next_multiple_of(4),
            Layer::Raw(octets) => octets.len(),
        })
        .sum();
    if octets > MOST_OCTETS {
        let problem = At::new((), table.key("send")).wrong(
            format!("a packet of {octets} octets"),
            format!("expected {MOST_OCTETS} at most"),
        );
        table.source.problem(problem);
        return None;
    }
    Some(())
}
