//! What each target does with an input from outside; `true` if it was taken, `false` if it was refused. `tests/fuzz.rs`
//! replays the seeds through the same functions.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use siphasher::sip128::Hasher128;
use siphasher::sip128::SipHasher13;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;
use tokio_util::codec::Encoder;
use tunproof::agent;
use tunproof::agent::FromAgent;
use tunproof::agent::MessageCodec;
use tunproof::agent::ToAgent;
use tunproof::craft;
use tunproof::evidence;
use tunproof::evidence::Loaded;
use tunproof::exchange::Mono;
use tunproof::matching::Certainty;
use tunproof::matching::FleetMatcher;
use tunproof::matching::FleetSighting;
use tunproof::matching::Matcher;
use tunproof::plan::Action;
use tunproof::plan::Fleet;
use tunproof::plan::FleetProbe;
use tunproof::plan::Host;
use tunproof::plan::Policy;
use tunproof::plan::Probe;
use tunproof::plan::ProbeId;
use tunproof::plan::SessionKey;
use tunproof::report;
use tunproof::report::Report;
use tunproof::report::RunReport;
use tunproof::run::Command;
use tunproof::run::Engine;
use tunproof::run::Limits;
use tunproof::run::Task;
use tunproof::suite::Embedded;
use tunproof::suite::Environment;
use tunproof::suite::FleetFile;
use tunproof::suite::PathFile;
use tunproof::suite::SuiteFile;
use tunproof::verdict;
use tunproof::wire;
use tunproof::wire::Ipv4;
use tunproof::wire::LinkType;
use tunproof::wire::Octets;
use tunproof::wire::Quote;
use tunproof::wire::Savefile;

/// A target.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by name.
pub const TARGETS: [(&str, Target); 10] = [
    ("frame", frame),
    ("quote", quote),
    ("capture", capture),
    ("suite", suite),
    ("path_file", path_file),
    ("fleet_file", fleet_file),
    ("to_agent", to_agent),
    ("from_agent", from_agent),
    ("saved_case", saved_case),
    ("stranger", stranger),
];

static PATH: LazyLock<PathFile> = LazyLock::new(|| {
    let text = include_str!("../seeds/path_file/one-real-server.toml");
    PathFile::parse("path.toml", text).expect("a path file")
});
static FLEET: LazyLock<Arc<Fleet>> = LazyLock::new(|| {
    let text = include_str!("../../tests/data/fleet.toml");
    Arc::new(
        FleetFile::parse("fleet.toml", text)
            .expect("a fleet file")
            .fleet,
    )
});

/// A captured frame, the link type in its first two octets: taken apart, named, matched; no view claims what is not there.
pub fn frame(input: &[u8]) -> bool {
    let Some((link_type, bytes)) = input.split_first_chunk() else {
        return false;
    };
    let _ = (wire::dissect_frame(bytes).to_string(), wire::hexdump(bytes));
    let Ok(frame) = wire::link_frame(LinkType(u16::from_be_bytes(*link_type)), bytes) else {
        return false;
    };
    let dissection = wire::dissect(frame.network, frame.ether_type);
    let _ = (dissection.to_string(), wire::named(frame.network));
    let _ = Matcher::without_suite(SessionKey::new([7; 16])).recognise(frame.network);
    let whole = Ipv4::checked(Octets::new(frame.network));
    whole.is_ok_and(|ip| ip.payload().len() + ip.header().len() == usize::from(ip.total_length()))
}

/// What an ICMP error quotes: no more than there is, and a quote in a quote ends.
pub fn quote(input: &[u8]) -> bool {
    let Ok(quote) = Quote::read(Octets::new(input)) else {
        return false;
    };
    assert!(quote.octets() <= input.len());
    assert_eq!(quote.is_whole(), quote.octets() >= quote.original_octets());
    let _ = (format!("{quote:?}"), wire::named(input));
    let error = [&ERROR[..], &[10, 0, 0, 2, 11, 0, 0, 0, 0, 0, 0, 0], input];
    let _ = Matcher::new(SessionKey::new([7; 16])).recognise(&error.concat());
    true
}

/// A pcap or pcapng file: however it is cut into pieces, the same packets come out, or the same error.
pub fn capture(input: &[u8]) -> bool {
    let read = |size: usize| {
        let (mut file, mut found) = (Savefile::default(), Vec::new());
        for piece in input.chunks(size) {
            file.feed(piece);
            while let Some(packet) = file
                .next_packet()
                .map_err(|error| (error.to_string(), found.len()))?
            {
                let frame = wire::link_frame(packet.interface.link_type, packet.bytes);
                found.push(format!("{packet:?} {frame:?}"));
            }
        }
        let end = file.end().map_err(|error| error.to_string());
        Ok::<_, (String, usize)>((
            found,
            end,
            file.dropped(),
            format!("{:?}", file.interfaces()),
        ))
    };
    let whole = read(input.len().max(1));
    assert_eq!(whole, read(7));
    whole.is_ok_and(|(found, end, ..)| end.is_ok() && !found.is_empty())
}

/// A suite: every packet that it writes out can be crafted, and whatever is wrong with it can be shown.
pub fn suite(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let (suite, notes) = match SuiteFile::check("own.toml", &text, &Environment::example()) {
        Ok(checked) => checked,
        Err(problems) => return problems.to_string().is_empty(),
    };
    let _ = notes.map(|notes| notes.styled());
    let id = ProbeId::from_number(0x8801).expect("a packet of a suite");
    for step in &suite.steps {
        let Action::Script(script) = &step.action else {
            continue;
        };
        let crafted = script
            .packets
            .iter()
            .map(|packet| craft::script(packet, id, &SessionKey::new([7; 16])));
        crafted.for_each(|crafted| drop(crafted.expect("what was checked can be crafted")));
    }
    true
}

/// A path file: what is taken can be planned and begun.
pub fn path_file(input: &[u8]) -> bool {
    match PathFile::parse("path.toml", &String::from_utf8_lossy(input)) {
        Err(problems) => problems.to_string().is_empty(),
        Ok(file) => {
            let mut engine = engine(&file);
            let asked = std::iter::from_fn(|| engine.poll_command(Mono::default()));
            asked.take(100).count() < 100
        }
    }
}

/// A fleet file: every pair's identity comes back, if only the first and the last pairs are looked at.
pub fn fleet_file(input: &[u8]) -> bool {
    let file = match FleetFile::parse("fleet.toml", &String::from_utf8_lossy(input)) {
        Ok(file) => file,
        Err(problems) => return problems.to_string().is_empty(),
    };
    let key = SessionKey::new([7; 16]);
    let last = file.fleet.pairs() - 1;
    for number in (0..8)
        .chain(last.saturating_sub(8)..=last)
        .filter(|number| *number <= last)
    {
        let pair = file.fleet.pair(number).expect("a pair below their number");
        assert!(file.fleet.pairs_of(pair.rip).any(|found| found == number));
        let packet = craft::FleetCraft::new(&file.fleet, key).probe(FleetProbe::ReflectUdp, &pair);
        assert!(Ipv4::checked(Octets::new(packet.octets())).is_ok());
    }
    true
}

/// What a controller says to an agent: what is understood is read back the same, and judged before it is sent.
pub fn to_agent(input: &[u8]) -> bool {
    let (messages, is_whole) = messages::<ToAgent>(input);
    let mut scope = agent::Scope::default();
    for message in messages {
        match message {
            ToAgent::Start { paths, .. } => {
                scope = agent::Scope::under(Policy::default(), paths).unwrap_or_default();
            }
            ToAgent::Do(Command::Send { transmit, .. }) => drop(scope.check(&transmit)),
            ToAgent::Do(_) | ToAgent::Ping => {}
        }
    }
    is_whole
}

/// What an agent says to the controller, its hello first: whatever it is, the run ends, and is judged.
pub fn from_agent(input: &[u8]) -> bool {
    let line = input
        .iter()
        .position(|octet| *octet == b'\n')
        .map_or(input.len(), |at| at + 1);
    let is_hello = agent::Hello::read(&input[..line])
        .inspect_err(|e| drop(e.to_string()))
        .is_ok();
    let mut engine = engine(&PATH);
    let (messages, is_whole) = messages(&input[line..]);
    for (number, message) in messages.into_iter().enumerate() {
        let now = Mono::new(Duration::from_millis(20 * number as u64));
        if let FromAgent::Said(event) = message {
            engine.handle_event(Host::Director, event, now);
        }
        engine.handle_timeout(now);
        while engine.poll_command(now).is_some() {}
    }
    say(engine.into_evidence());
    is_hello && is_whole
}

/// A saved case: judged and reported in each format, or refused in words.
pub fn saved_case(input: &[u8]) -> bool {
    match evidence::load(input) {
        Err(error) => error.to_string().is_empty(),
        Ok(rounds) => {
            let each = rounds.into_iter().map(|Loaded { evidence, .. }| evidence);
            each.for_each(say);
            true
        }
    }
}

/// Packets with right addresses and ports, made with another session's key and changed as the input says: never ours.
/// The key follows from the whole input, so that no search comes nearer to it.
pub fn stranger(input: &[u8]) -> bool {
    let (ours, theirs) = (key(input, 0), key(input, 1));
    let Some((asked, forged)) = forge(input, &ours, &theirs) else {
        return false;
    };
    let seen = Matcher::without_suite(ours).recognise(&forged);
    let counts =
        seen.is_some_and(|seen| seen.probe == asked && seen.certainty != Certainty::Minimal);
    assert!(!counts, "under {ours} of {forged:02x?}");
    let answer = FleetMatcher::new(FLEET.clone(), ours).recognise(&forged);
    let counts = matches!(answer, Some(FleetSighting::Of { .. }));
    assert!(!counts, "under {ours} of {forged:02x?}");
    true
}

/// An engine that is to prove the paths of a file from the director alone.
fn engine(file: &PathFile) -> Engine {
    let mut plan = file.plan(SessionKey::new([7; 16]));
    plan.vantages = vec![Host::Director];
    plan.suites = Embedded::DIRECTOR_ALONE.suites(&plan.paths);
    Engine::new(plan, Task::Prove, Limits::default(), Mono::default())
}

/// Judges, and says it in each format.
fn say(mut evidence: evidence::Evidence) {
    let judgement = verdict::judge(&mut evidence);
    let spoofing: Vec<_> = verdict::judge_spoofing(&evidence);
    let timing = tunproof::exchange::Timing {
        started: tunproof::exchange::Wall::from_nanos(0),
        elapsed: Duration::ZERO,
    };
    let _ = report::SpoofReport::new(&evidence, &spoofing, timing).to_text(report::WIDTH);
    let steps = verdict::judge_steps(&evidence, &judgement);
    let outcome = verdict::suite_outcome(&evidence, &judgement, &steps);
    let _ = report::pcapng(&evidence, &judgement, None);
    let report = Report::new(&evidence, &judgement, timing);
    let _ = (
        report.to_json(),
        report::text(&report, true, report::WIDTH),
        report::junit(&report),
    );
    let _ = RunReport::new(&evidence, report, &steps, outcome).to_json();
}

/// Every message of a stream, each encoded and decoded once more, and whether nothing else was in it.
fn messages<T>(stream: &[u8]) -> (Vec<T>, bool)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let (mut codec, mut stream, mut found) = (
        MessageCodec::<T>::default(),
        BytesMut::from(stream),
        Vec::new(),
    );
    loop {
        match codec.decode_eof(&mut stream) {
            Err(error) => return (found, error.to_string().is_empty()),
            Ok(None) => return (found, true),
            Ok(Some(message)) => {
                let mut again = BytesMut::new();
                codec
                    .encode(&message, &mut again)
                    .expect("what was decoded can be encoded");
                let decoded = codec
                    .decode(&mut again)
                    .expect("what was encoded can be decoded");
                assert_eq!(decoded.as_ref(), Some(&message));
                found.push(message);
            }
        }
    }
}

/// A session key that nobody finds by changing the input.
fn key(input: &[u8], purpose: u64) -> SessionKey {
    let mut hasher = SipHasher13::new_with_keys(purpose, 0);
    std::hash::Hasher::write(&mut hasher, input);
    SessionKey::new(hasher.finish128().as_bytes())
}

/// What another session's probe would look like with this session's addresses and ports, or an answer to it: the probe's
/// number, the shape, where it is cut off, then places and what is changed there.
fn forge(input: &[u8], ours: &SessionKey, theirs: &SessionKey) -> Option<(ProbeId, Vec<u8>)> {
    let [high, low, shape, cut, changes @ ..] = input else {
        return None;
    };
    let id = ProbeId::from_number(u16::from_be_bytes([*high, *low]))?;
    let plan = PATH.plan(*ours);
    let probe = Probe::new(id, 0, &plan.paths[0], ours)?;
    let mut packet = match shape % 4 {
        0 => craft::probe(&probe, theirs),
        1 => craft::cleanup(&probe, theirs)?,
        2 => answered(craft::probe(&probe, theirs)),
        _ => fleet_probe(u32::from(*cut), theirs),
    };
    if shape & 4 != 0 {
        packet.truncate(usize::from(*cut));
        let to = packet.get(12..16)?.to_vec();
        let around = [
            &ERROR[..16],
            &to,
            &[3 + (shape >> 3 & 8), shape >> 5, 0, 0, 0, 0, 5, 0xdc],
        ];
        packet = [&around.concat()[..], &packet].concat();
    }
    for change in changes.chunks_exact(2) {
        let place = usize::from(change[0]) % packet.len();
        packet[place] ^= change[1];
    }
    Some((id, packet))
}

/// The header of an ICMP error from a router, as far as its destination.
const ERROR: [u8; 16] = [0x45, 0, 2, 0, 0, 0, 0, 0, 60, 1, 0, 0, 10, 0, 3, 1];

/// The SYN-ACK or RST that would answer a segment; the ends of anything else exchanged.
fn answered(mut packet: Vec<u8>) -> Vec<u8> {
    let at = packet.len() - 44;
    let own = &mut packet[at..];
    for octet in 12..16 {
        own.swap(octet, octet + 4);
    }
    own.swap(20, 22);
    own.swap(21, 23);
    let sequence: [u8; 8] = own[24..32].try_into().expect("8 octets");
    own[24..28].copy_from_slice(&sequence[4..]);
    let next = u32::from_be_bytes(sequence[..4].try_into().expect("4 octets")).wrapping_add(1);
    own[28..32].copy_from_slice(&next.to_be_bytes());
    own[33] = 0x12;
    packet.split_off(at)
}

/// What another sweep sends to a pair.
fn fleet_probe(number: u32, theirs: &SessionKey) -> Vec<u8> {
    let pair = FLEET.pair(number % FLEET.pairs()).expect("a pair");
    craft::FleetCraft::new(&FLEET, *theirs)
        .probe(FleetProbe::ALL[number as usize % 3], &pair)
        .octets()
        .to_vec()
}
