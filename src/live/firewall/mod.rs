//! What of this host's firewall could stop the path's packets: asked of `nft` and `iptables-save`.
//!
//! Their listings are what an administrator sees and types commands from; the kernel's own messages have neither
//! text nor, for rules of iptables, meaning. The agent's janitor runs the programs, in the agent's own network
//! namespace, each for a few seconds; the agent reads as many octets as a large firewall has. Whatever does not work is
//! in `unread`.

mod iptables;
mod nft;
mod ruleset;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use crate::exchange::Firewall;
use crate::exchange::FirewallQuery;
use crate::exchange::FirewallTool;
use crate::exchange::Listing;
use crate::exchange::Unread;
use crate::exchange::Wall;
use crate::live::clock;
use crate::live::firewall::ruleset::Ruleset;
use crate::live::janitor::Janitor;
use crate::live::janitor::Lister;

/// How long a program may take.
const TIME_LIMIT: Duration = Duration::from_secs(4);

/// How many octets of a listing are read.
const LISTING: u64 = 64 << 20;

/// How many rules are told of: more explain nothing to anybody.
const RULES: usize = 64;

/// How many octets of a rule's text are told of.
const TEXT: usize = 240;

/// Reads the firewall of the janitor's network namespace, as far as it could stop the packets asked about.
///
/// One program is run where there is no firewall: the others only if its listing makes them worth it.
pub(crate) async fn read(query: &FirewallQuery, janitor: &Janitor) -> Firewall {
    let mut firewall = Firewall::default();
    let mut ruleset = Ruleset::default();
    let nftables = nftables(query, janitor, &mut firewall.listings).await;
    let mut has_iptables = nftables.is_err() || has_legacy_tables();
    match nftables {
        Ok(read) => {
            has_iptables |= read.chains.iter().any(iptables::may_have_made);
            ruleset = read;
        }
        Err(error) => firewall.unread.push(unread("nftables rules", error)),
    }
    if has_iptables {
        let begun = clock::steady();
        match run(janitor, Lister::Iptables).await {
            Ok(saved) => {
                firewall
                    .listings
                    .push(listed(FirewallTool::Iptables, begun));
                let saved =
                    iptables::parse(&String::from_utf8_lossy(&saved), FirewallTool::Iptables);
                if saved.in_nftables {
                    // Of chains that both list, `iptables-save` shows all that their rules say. It lists others
                    // of the same tables not at all.
                    ruleset.chains.retain(|chain| !saved.lists(chain));
                }
                ruleset.chains.extend(saved.ruleset.chains);
                // The kind that writes to nftables lists nothing at all where nothing is there.
                if (saved.in_nftables || saved.is_empty) && has_legacy_tables() {
                    let begun = clock::steady();
                    match run(janitor, Lister::IptablesLegacy).await {
                        Ok(text) => {
                            firewall
                                .listings
                                .push(listed(FirewallTool::IptablesLegacy, begun));
                            let text = String::from_utf8_lossy(&text);
                            let legacy = iptables::parse(&text, FirewallTool::IptablesLegacy);
                            ruleset.chains.extend(legacy.ruleset.chains);
                        }
                        Err(error) => firewall.unread.push(unread("iptables-legacy rules", error)),
                    }
                }
            }
            // What nft lists is all there is.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !has_legacy_tables() => {}
            Err(error) => firewall.unread.push(unread("iptables rules", error)),
        }
    }
    let mut rules = ruleset.dooms(&query.packets);
    firewall.left_out = rules.len().saturating_sub(RULES) as u32;
    rules.truncate(RULES);
    for rule in &mut rules {
        if rule.text.len() > TEXT {
            let ends = |at: &usize| rule.text.is_char_boundary(*at);
            let end = (0..=TEXT).rev().find(ends).unwrap_or_default();
            rule.text.truncate(end);
            rule.text.push('…');
        }
    }
    firewall.rules = rules;
    firewall
}

/// The rules of nftables; with their text, where any could stop the packets.
async fn nftables(
    query: &FirewallQuery,
    janitor: &Janitor,
    listings: &mut Vec<Listing>,
) -> io::Result<Ruleset> {
    let begun = clock::steady();
    let json = run(janitor, Lister::NftJson).await?;
    listings.push(listed(FirewallTool::Nft, begun));
    let read = nft::parse(&json, "")?;
    if read.dooms(&query.packets).is_empty() {
        return Ok(read);
    }
    let text = run(janitor, Lister::NftText).await?;
    Ok(nft::parse(&json, &String::from_utf8_lossy(&text))?)
}

/// A listing that was made just now.
fn listed(tool: FirewallTool, begun: Wall) -> Listing {
    let ended = clock::steady();
    Listing { tool, begun, ended }
}

/// Whether there are tables of iptables's own in the kernel; asking must not make it load them. Where an ordinary user
/// may not know, there may be.
fn has_legacy_tables() -> bool {
    match std::fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) => !names.trim().is_empty(),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// What a program prints.
async fn run(janitor: &Janitor, lister: Lister) -> io::Result<Vec<u8>> {
    let program = lister.program();
    let running = janitor.list(lister)?;
    let (stdout, stderr) = (running.stdout, running.stderr);
    let read = async { tokio::join!(octets(stdout, LISTING), octets(stderr, 4096)) };
    let Ok((listed, said)) = timeout(TIME_LIMIT, read).await else {
        janitor.end(running.process, true)?;
        let limit = humantime::format_duration(TIME_LIMIT);
        return Err(io::Error::other(format!(
            "`{program}` took more than {limit}"
        )));
    };
    let is_too_long = |listed: &Vec<u8>| listed.len() as u64 == LISTING;
    let status = janitor.end(running.process, listed.as_ref().is_ok_and(is_too_long))?;
    let listed = listed?;
    if is_too_long(&listed) {
        return Err(io::Error::other(format!(
            "`{program}` lists more than {LISTING} octets"
        )));
    }
    match status.success() {
        true => Ok(listed),
        false => {
            let said = said.unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let first = said.lines().next().unwrap_or_default();
            Err(io::Error::other(format!(
                "`{program}` failed ({status}): {first}"
            )))
        }
    }
}

async fn octets(from: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let from = Receiver::from_owned_fd(from)?;
    from.take(limit).read_to_end(&mut octets).await?;
    Ok(octets)
}

fn unread(what: &str, error: impl ToString) -> Unread {
    Unread {
        what: what.to_owned(),
        error: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Ipv4Addr;
    use std::process::Stdio;

    use super::*;
    use crate::exchange::FirewallPacket;
    use crate::exchange::FirewallRule;
    use crate::exchange::Leg;
    use crate::exchange::RulePlace;
    use crate::exchange::RuleVerdict;
    use crate::live::testbed::in_namespace;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

    fn packet(leg: Leg, protocol: u8) -> FirewallPacket {
        let (source, destination) = match leg {
            Leg::Tunnel => (DIP, RIP),
            Leg::Request | Leg::Decapsulated => (CIP, VIP),
            Leg::Answer => (VIP, CIP),
        };
        let device = if leg == Leg::Decapsulated {
            "tunl0"
        } else {
            "eth0"
        };
        FirewallPacket {
            leg,
            incoming: leg != Leg::Answer,
            protocol,
            source,
            destination,
            source_port: None,
            destination_port: (protocol == 6 && leg == Leg::Decapsulated).then_some(80),
            devices: vec![device.to_owned()],
        }
    }

    fn listed() -> Ruleset {
        let json = include_bytes!("../../../tests/data/firewall/nft.json");
        let text = include_str!("../../../tests/data/firewall/nft.txt");
        nft::parse(json, text).unwrap()
    }

    fn saved(text: &str) -> iptables::Saved {
        iptables::parse(text, FirewallTool::Iptables)
    }

    /// The rules that a packet could meet its end by, as people are shown them.
    fn dooms(ruleset: &Ruleset, packet: FirewallPacket) -> Vec<String> {
        let found = ruleset.dooms(&[packet]);
        found.iter().map(FirewallRule::to_string).collect()
    }

    /// nftables' own tables, without those that iptables made.
    fn own(mut ruleset: Ruleset) -> Ruleset {
        ruleset.chains.retain(|chain| chain.family != "ip");
        ruleset
    }

    #[test]
    fn rules_of_nftables_that_a_tunnel_packet_could_meet() {
        let found = dooms(&own(listed()), packet(Leg::Tunnel, 4));
        let expected = [
            "nft netdev early in handle 2: `ip protocol 4 ip saddr 192.0.2.2 counter drop`",
            "nft inet filter input handle 6: `ct state invalid drop`",
            "nft inet filter input handle 8: `ct state vmap { invalid : drop, established : accept, related : accept }`",
            "nft inet filter input handle 9: `meta l4proto 4 counter reject`",
        ];
        assert_eq!(found, expected, "handle 9 takes them all");
    }

    #[test]
    fn rules_of_nftables_that_a_decapsulated_packet_could_meet() {
        let found = dooms(&own(listed()), packet(Leg::Decapsulated, 6));
        let expected = [
            "nft inet filter input handle 6: `ct state invalid drop`",
            "nft inet filter input handle 8: `ct state vmap { invalid : drop, established : accept, related : accept }`",
            "nft inet filter service handle 5: `ip saddr 198.51.100.0/24 counter drop`",
        ];
        assert_eq!(found, expected);
        let found = dooms(&own(listed()), packet(Leg::Decapsulated, 17));
        assert_eq!(
            found[2..],
            [
                "nft inet filter input handle 14: `ip saddr @bad drop`",
                "nft inet filter input handle 20: `udp dport 33434-65535 reject`",
            ],
            "a closed port may be any, and what is left over is accepted by its device"
        );
    }

    #[test]
    fn rules_of_nftables_that_an_answer_could_meet() {
        let found = own(listed()).dooms(&[packet(Leg::Answer, 6)]);
        let [rule] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(rule.place, RulePlace::Handle(24));
        assert_eq!((rule.hook.as_str(), rule.priority), ("output", 0));
        assert_eq!(rule.verdict, RuleVerdict::Drop);
        assert_eq!(rule.counter, None);
        assert!(rule.is_outgoing() && !rule.invalid);
        assert_eq!(dooms(&own(listed()), packet(Leg::Answer, 1)), [""; 0]);
    }

    #[test]
    fn counters_and_conntracks_rules_are_known() {
        let found = own(listed()).dooms(&[packet(Leg::Tunnel, 4)]);
        let counters: Vec<_> = found.iter().map(|rule| rule.counter).collect();
        assert_eq!(counters, [Some(3), None, None, Some(5)]);
        let invalid: Vec<_> = found.iter().map(|rule| rule.invalid).collect();
        assert_eq!(invalid, [false, true, true, false]);
    }

    #[test]
    fn rules_of_iptables_are_numbered_by_chain() {
        for text in [
            include_str!("../../../tests/data/firewall/iptables-nft.txt"),
            include_str!("../../../tests/data/firewall/iptables-legacy.txt"),
        ] {
            let saved = saved(text);
            assert_eq!(saved.in_nftables, text.contains("nf_tables"));
            let found = dooms(&saved.ruleset, packet(Leg::Decapsulated, 6));
            let expected = [
                "iptables filter INPUT 1: `-A INPUT -m conntrack --ctstate INVALID -j DROP`",
                "iptables filter service 1: `-A service -s 198.51.100.0/24 -m comment --comment \"not these\" -j DROP`",
            ];
            assert_eq!(found, expected, "{text}");
            let found = saved.ruleset.dooms(&[packet(Leg::Decapsulated, 17)]);
            let counted: Vec<_> = found
                .iter()
                .map(|rule| (rule.place, rule.counter))
                .collect();
            let expected = [
                (RulePlace::Number(1), Some(0)),
                (RulePlace::Number(5), Some(12)),
                (RulePlace::Policy, Some(0)),
            ];
            assert_eq!(counted, expected);
            assert_eq!(found[1].removed_by(), "iptables -D INPUT 5");
            assert_eq!(found[2].removed_by(), "iptables -P INPUT ACCEPT");
            assert_eq!(found[2].shown_by(), "iptables-save -c -t filter");
        }
    }

    #[test]
    fn a_tunnel_packet_that_is_accepted_meets_no_policy() {
        let saved = saved(include_str!(
            "../../../tests/data/firewall/iptables-nft.txt"
        ));
        let found = dooms(&saved.ruleset, packet(Leg::Tunnel, 4));
        let expected =
            ["iptables filter INPUT 1: `-A INPUT -m conntrack --ctstate INVALID -j DROP`"];
        assert_eq!(found, expected);
        let leaving = FirewallPacket {
            incoming: false,
            ..packet(Leg::Tunnel, 4)
        };
        let found = saved.ruleset.dooms(&[leaving]);
        assert_eq!(found[0].removed_by(), "iptables -t raw -D OUTPUT 1");
        assert_eq!(found[0].priority, -300);
    }

    #[test]
    fn what_is_no_listing_is_an_error_or_nothing() {
        assert!(nft::parse(b"{", "").is_err());
        assert_eq!(nft::parse(b"{}", "").unwrap(), Ruleset::default());
        let odd = br#"{"nftables": [{"chain": 7}, {"rule": {"expr": [null, {}, 3]}}, 9]}"#;
        assert_eq!(nft::parse(odd, "").unwrap(), Ruleset::default());
        for text in [
            "*filter\n:INPUT\n[1:2\n-A\n[] -A",
            "[0:0] -A INPUT -j DROP",
            ":\n:x -\n-A x -s",
        ] {
            assert_eq!(dooms(&saved(text).ruleset, packet(Leg::Tunnel, 4)), [""; 0]);
        }
    }

    #[test]
    fn a_rule_for_everything_that_is_left_is_told_from_one_for_the_path() {
        for (rule, general) in [
            (
                "-A INPUT -j REJECT --reject-with icmp-host-prohibited",
                true,
            ),
            ("-A INPUT -p tcp -j DROP", true),
            ("-A INPUT ! -s 192.0.2.2/32 -j DROP", true),
            ("-A INPUT -m limit --limit 5/min -j DROP", true),
            ("-A INPUT -p 4 -j DROP", false),
            ("-A INPUT -s 192.0.2.2/32 -j DROP", false),
            ("-A INPUT -p tcp -m tcp --dport 80 -j DROP", false),
        ] {
            let text = format!("*filter\n:INPUT ACCEPT [0:0]\n{rule}");
            let leg = match rule.contains("tcp") {
                true => packet(Leg::Decapsulated, 6),
                false => packet(Leg::Tunnel, 4),
            };
            let leg = FirewallPacket {
                source: if rule.contains('!') { CIP } else { leg.source },
                ..leg
            };
            let found = saved(&text).ruleset.dooms(&[leg]);
            assert_eq!(found.len(), 1, "{rule}");
            assert_eq!(found[0].general, general, "{rule}");
        }
    }

    #[test]
    fn thousands_of_rules_that_could_match_take_no_time() {
        let rules: Vec<_> = (0..30_000)
            .map(|n| format!("-A INPUT -m mark --mark {n} -j DROP"))
            .collect();
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n{}", rules.join("\n"));
        let ruleset = saved(&text).ruleset;
        let packets = [6, 17, 4, 1].map(|protocol| packet(Leg::Decapsulated, protocol));
        let begun = std::time::Instant::now();
        assert_eq!(ruleset.dooms(&packets).len(), 30_000);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_chain_that_jumps_to_itself_ends() {
        let text =
            "*filter\n:INPUT DROP [0:0]\n:a - [0:0]\n-A INPUT -j a\n-A a -j a\n-A a -p 4 -j DROP";
        let found = dooms(&saved(text).ruleset, packet(Leg::Tunnel, 4));
        assert_eq!(found, ["iptables filter a 2: `-A a -p 4 -j DROP`"]);
    }

    fn read_now(packets: Vec<FirewallPacket>) -> Firewall {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(read(&FirewallQuery { packets }, &Janitor::thread()))
    }

    fn nft(rules: &str) {
        let mut nft = std::process::Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft of nftables");
        let mut input = nft.stdin.take().unwrap();
        input.write_all(rules.as_bytes()).unwrap();
        drop(input);
        assert!(nft.wait().unwrap().success());
    }

    #[test]
    fn the_firewall_is_this_namespaces() {
        in_namespace(
            concat!(module_path!(), "::the_firewall_is_this_namespaces"),
            || {
                assert_eq!(read_now(vec![packet(Leg::Tunnel, 4)]).rules, []);
                nft(
                    "table ip filter {\nchain input {\ntype filter hook input priority 0; policy drop;\n}\n}",
                );
                let firewall = read_now(vec![packet(Leg::Tunnel, 4)]);
                assert_eq!(firewall.unread, []);
                let listing = firewall.listing(FirewallTool::Nft).expect("nft's listing");
                assert!(listing.begun <= listing.ended);
                let shown: Vec<_> = firewall.rules.iter().map(FirewallRule::to_string).collect();
                assert_eq!(shown, ["nft ip filter input: `policy drop`"]);
            },
        );
    }

    #[test]
    fn thousands_of_rules_make_no_large_message() {
        in_namespace(
            concat!(module_path!(), "::thousands_of_rules_make_no_large_message"),
            || {
                let rules: Vec<_> = (0..5000)
                    .map(|n| {
                        format!(
                            "ip saddr 10.{}.{}.0/24 drop\nmeta mark {n} drop",
                            n / 256,
                            n % 256
                        )
                    })
                    .collect();
                nft(&format!(
                    "table ip filter {{\nchain input {{\ntype filter hook input priority 0;\n{}\n}}\n}}",
                    rules.join("\n")
                ));
                let firewall = read_now(vec![packet(Leg::Tunnel, 4)]);
                assert_eq!(firewall.unread, []);
                assert_eq!(firewall.rules.len(), RULES);
                assert_eq!(firewall.left_out, 5000 - RULES as u32);
                let message = serde_json::to_vec(&firewall).unwrap();
                assert!(message.len() < 32 << 10, "{}", message.len());
            },
        );
    }
}
