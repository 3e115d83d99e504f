use super::*;

const GOOD: &str = r#"[path]
vip = "192.0.2.10"
port = 80
protocol = "udp"
encapsulation = "ipip"

[director]
ip = "192.0.2.2"
via = "local"
ingress = "eth0"

[[realserver]]
name = "rs1"
ip = "203.0.113.5"
via = "ssh -o 'ProxyCommand=nc %h' root@rs1"
gateway = "203.0.113.1"
tunnel = "tunl0"

[[realserver]]
ip = "203.0.113.6"

[client]
ip = "198.51.100.7"
"#;

fn parse(text: &str) -> Result<PathFile, Diagnostics> {
    PathFile::parse("path.toml", text)
}

#[test]
fn reads_every_key() {
    let path = parse(GOOD).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(path.vip, Ipv4Addr::new(192, 0, 2, 10));
    assert_eq!((path.port, path.protocol), (80, Protocol::Udp));
    assert_eq!(path.director_via, Some(vec!["local".to_owned()]));
    assert_eq!((path.ingress.as_deref(), path.egress), (Some("eth0"), None));
    assert_eq!(path.realservers.len(), 2);
    let rs1 = &path.realservers[0];
    assert_eq!(
        rs1.via.as_deref(),
        Some(&["ssh", "-o", "ProxyCommand=nc %h", "root@rs1"].map(str::to_owned)[..])
    );
    assert_eq!(rs1.gateway, Some(Ipv4Addr::new(203, 0, 113, 1)));
    assert_eq!(rs1.tunnel.as_deref(), Some("tunl0"));
    assert_eq!(path.realservers[1].name, "203.0.113.6");
    assert_eq!(path.realservers[1].via, None);
    assert_eq!(path.client_via, None);
}

#[test]
fn protocol_and_encapsulation_have_defaults() {
    let text = GOOD
        .replace("protocol = \"udp\"\n", "")
        .replace("encapsulation = \"ipip\"\n", "");
    assert_eq!(parse(&text).unwrap().protocol, Protocol::Tcp);
}

/// What to replace in `GOOD`, by what; line and column of the error; words in it.
const WRONG: &[(&str, &str, (usize, usize), &str)] = &[
    (
        "vip = \"192.0.2.10\"",
        "vip = \"2001:db8::1\"",
        (2, 7),
        "IPv4 only",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"192.0.2\"",
        (2, 7),
        "no IPv4 address",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"192.0.2.10/32\"",
        (2, 7),
        "the address alone: `192.0.2.10`",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"www.example.org\"",
        (2, 7),
        "names are not looked up",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"0.0.0.0\"",
        (2, 7),
        "no host's address",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"127.0.0.1\"",
        (2, 7),
        "loopback",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"224.0.0.5\"",
        (2, 7),
        "multicast",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"255.255.255.255\"",
        (2, 7),
        "broadcast",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = \"240.1.2.3\"",
        (2, 7),
        "reserved",
    ),
    (
        "vip = \"192.0.2.10\"",
        "vip = 3221225994",
        (2, 7),
        "`vip` is an integer",
    ),
    ("vip = \"192.0.2.10\"\n", "", (1, 1), "has no `vip`"),
    ("vip =", "vpi =", (2, 1), "unknown key `vpi`"),
    ("port = 80", "prot = 80", (3, 1), "did you mean `port`?"),
    ("port = 80", "port = 0", (3, 8), "`0` is no port"),
    ("port = 80", "port = 65536", (3, 8), "1 to 65535"),
    ("port = 80", "port = -1", (3, 8), "`-1` is no port"),
    ("port = 80", "port = \"80\"", (3, 8), "`port` is a string"),
    (
        "protocol = \"udp\"",
        "protocol = \"sctp\"",
        (4, 12),
        "`\"tcp\"` or `\"udp\"`",
    ),
    ("\"ipip\"", "\"gue\"", (5, 17), "`gue` is not supported yet"),
    ("\"ipip\"", "\"ipsec\"", (5, 17), "unknown encapsulation"),
    (
        "[director]",
        "[directer]",
        (7, 2),
        "did you mean `director`?",
    ),
    (
        "ip = \"192.0.2.2\"",
        "ip = \"192.0.2.10\"",
        (8, 6),
        "the director and the VIP have the same address",
    ),
    (
        "via = \"local\"",
        "via = \"ssh 'lb1\"",
        (9, 12),
        "never closed",
    ),
    ("via = \"local\"", "via = \"\"", (9, 7), "`via` is empty"),
    (
        "via = \"local\"",
        "via = [\"ssh\"]",
        (9, 7),
        "`via` is an array",
    ),
    (
        "ingress = \"eth0\"",
        "ingres = \"eth0\"",
        (10, 1),
        "did you mean `ingress`?",
    ),
    (
        "ingress = \"eth0\"",
        "ingress = \"a-much-too-long-name\"",
        (10, 11),
        "at most 15",
    ),
    (
        "ingress = \"eth0\"",
        "ingress = \"et/h\"",
        (10, 11),
        "no device name",
    ),
    (
        "ingress = \"eth0\"",
        "via = \"x\"",
        (10, 1),
        "duplicate key",
    ),
    (
        "name = \"rs1\"",
        "name = \"client\"",
        (13, 8),
        "no name for a real server",
    ),
    (
        "ip = \"203.0.113.5\"",
        "ip = \"192.0.2.10\"",
        (14, 6),
        "`rs1` and the VIP",
    ),
    (
        "ip = \"203.0.113.5\"",
        "ip = \"192.0.2.2\"",
        (14, 6),
        "`rs1` and the director",
    ),
    (
        "gateway = \"203.0.113.1\"",
        "gateway = \"203.0.113.5\"",
        (16, 11),
        "itself",
    ),
    (
        "ip = \"203.0.113.6\"",
        "ip = \"203.0.113.5\"",
        (20, 6),
        "the same address 203.0.113.5",
    ),
    (
        "ip = \"203.0.113.6\"",
        "ip = \"203.0.113.6\"\nname = \"rs1\"",
        (21, 8),
        "two real servers are called `rs1`",
    ),
    (
        "name = \"rs1\"",
        "name = \"203.0.113.6\"",
        (20, 6),
        "two real servers are called `203.0.113.6`",
    ),
    ("ip = \"203.0.113.6\"", "", (19, 1), "has no `ip`"),
    (
        "ip = \"198.51.100.7\"",
        "ip = \"192.0.2.10\"",
        (23, 6),
        "the client and the VIP",
    ),
    (
        "[client]\nip = \"198.51.100.7\"\n",
        "",
        (20, 19),
        "no `[client]`",
    ),
    ("port = 80", "port = ", (3, 8), ""),
    ("[client]", "[client", (22, 8), ""),
];

#[test]
fn every_error_stands_at_its_place() {
    let mut failures = Vec::new();
    for (from, to, place, words) in WRONG {
        assert!(GOOD.contains(from), "{from} is not in the good file");
        let text = GOOD.replacen(from, to, 1);
        let Err(problems) = parse(&text) else {
            failures.push(format!("`{to}` was taken"));
            continue;
        };
        let shown = problems.to_string();
        let places: Vec<_> = problems.iter().map(|p| problems.place(p)).collect();
        let arrow = format!("path.toml:{}:{}", place.0, place.1);
        if !places.contains(place) || !shown.contains(words) || !shown.contains(&arrow) {
            failures.push(format!("`{to}`: expected {place:?} {words}\n{shown}"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

#[test]
fn several_errors_are_shown_at_once_in_the_order_of_the_file() {
    let text = GOOD
        .replace("port = 80", "port = 0")
        .replace("203.0.113.6", "fe80::1")
        .replace("[client]", "[clinet]");
    let problems = parse(&text).unwrap_err();
    let lines: Vec<_> = problems.iter().map(|p| problems.place(p).0).collect();
    assert_eq!(lines, [3, 20, 22, 23]);
}

#[test]
fn control_characters_are_shown_escaped() {
    let text = GOOD.replace("eth0", "e\\u001b[31m");
    let shown = parse(&text).unwrap_err().to_string();
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn no_text_makes_it_panic() {
    for end in 0..GOOD.len() {
        let _ = parse(&GOOD[..end]).map_err(|problems| problems.to_string());
        let _ = parse(&GOOD[end..]).map_err(|problems| problems.to_string());
    }
}

#[test]
fn vantages_are_the_hosts_that_have_a_via() {
    let file = PathFile::parse(
        "p",
        r#"
        path = { vip = "192.0.2.10", port = 53, protocol = "udp" }
        director = { ip = "192.0.2.2", via = "local" }
        client = { ip = "198.51.100.7" }
        realserver = [
            { name = "a", ip = "203.0.113.5" },
            { name = "b", ip = "203.0.113.6", via = "ssh b", tunnel = "t" },
        ]"#,
    );
    let plan = file.unwrap().plan(SessionKey::new([1; 16]));
    assert_eq!(plan.vantages, [Host::Director, Host::Realserver(1)]);
    assert_eq!(plan.paths.len(), 2);
    assert_eq!(plan.paths[0].dip, Some(Ipv4Addr::new(192, 0, 2, 2)));
    assert_eq!(plan.paths[1].protocol, Protocol::Udp);
    assert_eq!(plan.paths[1].tunnel.as_deref(), Some("t"));
}
