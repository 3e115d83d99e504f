//! What `nft -j -t -p list ruleset` and `nft -a -t -p list ruleset` say.
//!
//! The first is for programs and has no text, the second has the text that people know. `-t` leaves the elements
//! of sets out, of which there may be millions, and `-p` names protocols by number.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use serde_json::Value as Json;

use crate::exchange::FirewallTool;
use crate::exchange::RulePlace;
use crate::live::firewall::ruleset::Action;
use crate::live::firewall::ruleset::Base;
use crate::live::firewall::ruleset::Chain;
use crate::live::firewall::ruleset::Field;
use crate::live::firewall::ruleset::Rule;
use crate::live::firewall::ruleset::Ruleset;
use crate::live::firewall::ruleset::Test;
use crate::live::firewall::ruleset::Value;

/// The families whose chains IPv4 packets meet.
const FAMILIES: [&str; 3] = ["ip", "inet", "netdev"];

/// Reads both listings; a rule that the second lacks is shown as JSON.
pub(super) fn parse(json: &[u8], text: &str) -> Result<Ruleset, serde_json::Error> {
    let listed: Json = serde_json::from_slice(json)?;
    let texts = texts(text);
    let mut ruleset = Ruleset::default();
    // Chains may be listed behind rules that stand in them.
    for chain in objects(&listed, "chain") {
        if let Some(chain) = self::chain(chain) {
            ruleset.chains.push(chain);
        }
    }
    let mut places: HashMap<(String, String, String), usize> = HashMap::new();
    for (number, chain) in ruleset.chains.iter().enumerate() {
        let key = (
            chain.family.clone(),
            chain.table.clone(),
            chain.name.clone(),
        );
        places.insert(key, number);
    }
    for rule in objects(&listed, "rule") {
        let key = (
            word(rule, "family"),
            word(rule, "table"),
            word(rule, "chain"),
        );
        let (Some(number), Some(handle)) = (places.get(&key), rule["handle"].as_u64()) else {
            continue;
        };
        let known = texts.get(&(key.0.as_str(), key.1.as_str(), handle));
        let text = known.map_or_else(|| rule["expr"].to_string(), |text| without_counts(text));
        ruleset.chains[*number]
            .rules
            .push(self::rule(rule, handle, text));
    }
    Ok(ruleset)
}

fn objects<'a>(listed: &'a Json, kind: &str) -> impl Iterator<Item = &'a Json> {
    listed["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(kind))
}

fn word(object: &Json, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

fn chain(listed: &Json) -> Option<Chain> {
    let family = word(listed, "family");
    FAMILIES.contains(&family.as_str()).then(|| Chain {
        tool: FirewallTool::Nft,
        family,
        table: word(listed, "table"),
        name: word(listed, "name"),
        base: listed["hook"].as_str().map(|hook| Base {
            hook: hook.to_owned(),
            priority: listed["prio"].as_i64().unwrap_or(0) as i32,
            drops: listed["policy"] == "drop",
            counter: None,
        }),
        rules: Vec::new(),
    })
}

fn rule(listed: &Json, handle: u64, text: String) -> Rule {
    let mut rule = Rule {
        place: RulePlace::Handle(handle),
        text,
        tests: Vec::new(),
        action: Action::Other,
        counter: None,
    };
    for statement in listed["expr"].as_array().into_iter().flatten() {
        let Some((kind, body)) = statement.as_object().and_then(|all| all.iter().next()) else {
            // Such as "notrack".
            continue;
        };
        match kind.as_str() {
            "match" => tests(body, &mut rule.tests),
            // A counter with a name is shared by several rules, and says nothing of this one.
            "counter" => rule.counter = body["packets"].as_u64(),
            "vmap" => rule.action = map(body),
            // What it lets through goes on to the rest of the rule.
            "limit" | "quota" | "ct count" | "xt" | "synproxy" => rule.tests.push(Test::unknown()),
            _ => {
                if let Some(action) = action(kind, body) {
                    rule.action = action;
                }
            }
        }
    }
    rule
}

fn action(kind: &str, body: &Json) -> Option<Action> {
    let target = || word(body, "target");
    Some(match kind {
        "accept" => Action::Accept,
        "drop" => Action::Drop,
        "reject" => Action::Reject,
        "return" => Action::Return,
        "jump" => Action::Jump(target()),
        "goto" => Action::Goto(target()),
        _ => return None,
    })
}

/// `{"key": …, "data": {"set": [[value, {"drop": null}], …]}}`; of a named map, everything is possible.
fn map(body: &Json) -> Action {
    let Some(entries) = body["data"]["set"].as_array() else {
        return Action::Map(vec![(Test::unknown(), Action::Drop)]);
    };
    let entries = entries.iter().filter_map(|entry| {
        let (verdict, target) = entry[1].as_object()?.iter().next()?;
        let (field, _) = field(&body["key"]);
        let test = Test::new(field, values(&entry[0]));
        Some((test, action(verdict, target)?))
    });
    Action::Map(entries.collect())
}

fn tests(body: &Json, tests: &mut Vec<Test>) {
    let (field, protocol) = field(&body["left"]);
    if let Some(protocol) = protocol {
        let number = Value::Range(protocol, protocol);
        tests.push(Test::new(Field::Protocol, vec![number]));
    }
    let values = values(&body["right"]);
    tests.push(match body["op"].as_str() {
        Some("==" | "in") => Test::new(field, values),
        Some("!=") => Test {
            field,
            negated: true,
            values,
        },
        _ => Test::unknown(),
    });
}

/// The field, and the protocol that a packet must have to have it.
fn field(left: &Json) -> (Field, Option<u32>) {
    if let Some(payload) = left.get("payload") {
        let protocol = match payload["protocol"].as_str() {
            Some("tcp") => Some(6),
            Some("udp") => Some(17),
            Some("icmp") => Some(1),
            Some("sctp") => Some(132),
            Some("ip6" | "icmpv6" | "arp") => return (Field::Unknown, Some(u32::MAX)),
            _ => None,
        };
        let field = match (payload["protocol"].as_str(), payload["field"].as_str()) {
            (Some("ip"), Some("saddr")) => Field::Source,
            (Some("ip"), Some("daddr")) => Field::Destination,
            (Some("ip"), Some("protocol")) => Field::Protocol,
            (Some("tcp" | "udp" | "th"), Some("sport")) => Field::SourcePort,
            (Some("tcp" | "udp" | "th"), Some("dport")) => Field::DestinationPort,
            _ => Field::Unknown,
        };
        return (field, protocol);
    }
    let field = match (left["meta"]["key"].as_str(), left["ct"]["key"].as_str()) {
        (Some("l4proto"), _) => Field::Protocol,
        (Some("iifname" | "iif"), _) => Field::InDevice,
        (Some("oifname" | "oif"), _) => Field::OutDevice,
        (Some("nfproto" | "protocol"), _) => Field::IpVersion,
        (_, Some("state")) => Field::ConnectionState,
        _ => Field::Unknown,
    };
    (field, None)
}

/// The values that a field is compared with: one, a range, a prefix, a set, a list of flags.
fn values(right: &Json) -> Vec<Value> {
    let address = |json: &Json| json.as_str()?.parse::<Ipv4Addr>().ok().map(u32::from);
    let bound = |json: &Json| {
        let number = json.as_u64().and_then(|number| u32::try_from(number).ok());
        number.or_else(|| address(json))
    };
    match right {
        Json::Number(_) => match bound(right) {
            Some(number) => vec![Value::Range(number, number)],
            None => vec![Value::Unknown],
        },
        Json::String(text) => vec![match (address(right), text.as_str()) {
            (Some(number), _) => Value::Range(number, number),
            (None, "ip" | "ipv4") => Value::Range(4, 4),
            (None, "ip6" | "ipv6") => Value::Range(6, 6),
            (None, text) if text.starts_with('@') => Value::Unknown,
            (None, text) => Value::Name(text.to_owned()),
        }],
        Json::Array(flags) => flags.iter().flat_map(values).collect(),
        Json::Object(object) => {
            if let Some(set) = object.get("set") {
                return values(set);
            }
            // With a counter or a time of its own.
            if let Some(element) = object.get("elem") {
                return values(&element["val"]);
            }
            if let Some(prefix) = object.get("prefix")
                && let (Some(address), Some(length)) =
                    (address(&prefix["addr"]), prefix["len"].as_u64())
            {
                let rest = u32::MAX.checked_shr(length as u32).unwrap_or(0);
                return vec![Value::Range(address & !rest, address | rest)];
            }
            if let Some(range) = object.get("range")
                && let (Some(first), Some(last)) = (bound(&range[0]), bound(&range[1]))
            {
                return vec![Value::Range(first, last)];
            }
            vec![Value::Unknown]
        }
        Json::Null | Json::Bool(_) => vec![Value::Unknown],
    }
}

/// The rules by family, table and handle.
fn texts(listing: &str) -> HashMap<(&str, &str, u64), String> {
    let mut texts = HashMap::new();
    let mut table = None;
    let mut open = String::new();
    for line in listing.lines() {
        let words = line.trim();
        let Some((text, handle)) = words.rsplit_once(" # handle ") else {
            // A long set goes on in the next line.
            match words.ends_with([',', '{']) || !open.is_empty() && !words.ends_with(';') {
                true => open = format!("{open}{words} "),
                false => open.clear(),
            }
            continue;
        };
        let before = std::mem::take(&mut open);
        if let Some(opened) = text.strip_suffix(" {") {
            if let Some(rest) = opened.strip_prefix("table ") {
                table = rest.split_once(' ');
            }
            continue;
        }
        if let (Some((family, name)), Ok(handle)) = (table, handle.parse()) {
            texts.insert((family, name, handle), format!("{before}{text}"));
        }
    }
    texts
}

/// `counter packets 5 bytes 420` is `counter`.
fn without_counts(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut kept = Vec::new();
    let mut rest = &words[..];
    while let Some((word, others)) = rest.split_first() {
        kept.push(*word);
        rest = match (*word, others) {
            ("counter", ["packets", _, "bytes", _, others @ ..]) => others,
            _ => others,
        };
    }
    kept.join(" ")
}
