//! A sweep against fleets in memory, in virtual time.

use std::collections::HashMap;
use std::collections::HashSet;

use super::*;
use crate::matching::FleetError;
use crate::matching::Whom;
use crate::plan::Range;
use crate::plan::Service;

const LIMITS: FleetLimits = FleetLimits {
    rate: 1000,
    each: 10,
    tries: 3,
};

fn fleet(services: &[(u16, Protocol)], realservers: u32) -> Arc<Fleet> {
    let services = services.iter().map(|(port, protocol)| Service {
        vip: [192, 0, 2, 10].into(),
        port: *port,
        protocol: *protocol,
    });
    let ranges = vec![Range {
        first: 0x0a00_0001.into(),
        last: (0x0a00_0000 + realservers).into(),
    }];
    let cip = [198, 51, 100, 7].into();
    let groups = vec![(services.collect(), ranges)];
    Arc::new(Fleet::new([192, 0, 2, 2].into(), Some(cip), groups).unwrap())
}

const TWO: &[(u16, Protocol)] = &[(80, Protocol::Tcp), (53, Protocol::Udp)];

fn ms(number: u64) -> Mono {
    Mono::new(Duration::from_millis(1000 + number))
}

fn new(fleet: &Arc<Fleet>, asking: Asking, limits: FleetLimits) -> FleetSweep {
    let key = SessionKey::new([7; 16]);
    FleetSweep::new(Arc::clone(fleet), key, asking, limits, ms(0))
}

fn hoped(probe: FleetProbe) -> FleetAnswer {
    match probe {
        FleetProbe::ClosedLoop => FleetAnswer::ClientReset,
        FleetProbe::ReflectSyn => FleetAnswer::SynAck,
        FleetProbe::ReflectUdp => FleetAnswer::PortUnreachable,
    }
}

fn protocol_unreachable() -> FleetAnswer {
    FleetAnswer::Error(FleetError {
        icmp_type: 3,
        code: 2,
        about: About::Tunnel,
        from: Whom::RealServer,
    })
}

/// What was sent when, and what was decided.
#[derive(Default)]
struct Played {
    sent: Vec<(Mono, FleetSend)>,
    results: HashMap<u32, Swept>,
    now: Mono,
}

impl Played {
    /// Plays `sweep` for so long at most, with what `answer` gives to the nth packet after 20 ms.
    fn play(
        &mut self,
        sweep: &mut FleetSweep,
        until: Mono,
        answer: &mut dyn FnMut(&FleetSend) -> Option<FleetAnswer>,
    ) -> bool {
        let mut flying = VecDeque::new();
        for _ in 0..2_000_000 {
            while let Some((at, pair, probe, answer)) = flying.front().copied() {
                if at > self.now {
                    break;
                }
                flying.pop_front();
                sweep.handle_heard(pair, probe, answer, at);
            }
            let mut batch = Vec::new();
            let poll = sweep.poll(self.now, &mut batch);
            for send in batch {
                self.sent.push((self.now, send));
                if let Some(answer) = answer(&send) {
                    let at = self.now + Duration::from_millis(20);
                    flying.push_back((at, send.pair.number, send.probe, answer));
                }
            }
            while let Some(swept) = sweep.poll_result() {
                let told = self.results.insert(swept.pair.number, swept);
                assert_eq!(told, None, "told twice");
            }
            let FleetPoll::Wait(next) = poll else {
                return true;
            };
            let arrival = flying.front().map_or(next, |(at, ..)| *at);
            self.now = self.now.max(next.min(arrival));
            if self.now > until {
                return false;
            }
        }
        panic!("it does not end");
    }
}

fn play(
    sweep: &mut FleetSweep,
    answer: &mut dyn FnMut(&FleetSend) -> Option<FleetAnswer>,
) -> Played {
    let mut played = Played {
        now: ms(0),
        ..Played::default()
    };
    assert!(played.play(sweep, ms(100_000_000), answer));
    played
}

#[test]
fn a_healthy_fleet_is_asked_once_and_closed() {
    let fleet = fleet(TWO, 500);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let played = play(&mut sweep, &mut |send| {
        (!send.closes).then(|| hoped(send.probe))
    });
    assert_eq!(played.results.len(), 1000);
    for swept in played.results.values() {
        assert_eq!((swept.tries, swept.closed_loop), (1, None));
        assert_eq!(swept.round_trip, Some(Duration::from_millis(20)));
    }
    let counts = sweep.counts();
    assert_eq!(
        (counts.probes, counts.closings, counts.answered),
        (1000, 500, 1000)
    );
    let closed: HashSet<_> = played
        .sent
        .iter()
        .filter(|(_, send)| send.closes)
        .collect::<Vec<_>>()
        .iter()
        .map(|(_, send)| send.pair.number)
        .collect();
    assert_eq!(closed.len(), 500);
    // The datagram of each real server is 1.05 s after its SYN, and nothing waits for a pause that nobody needs.
    let took = played.now.since(ms(0));
    assert!(
        took > Duration::from_millis(1400) && took < Duration::from_millis(2100),
        "{took:?}"
    );
}

#[test]
fn neither_rate_is_ever_exceeded() {
    for (realservers, each, asking) in [
        (1, 10, Asking::Reflect),
        (7, 4, Asking::Both),
        (300, 10, Asking::Both),
        (3000, 1, Asking::Reflect),
    ] {
        let fleet = fleet(
            &[
                (80, Protocol::Tcp),
                (81, Protocol::Tcp),
                (53, Protocol::Udp),
            ],
            realservers,
        );
        let limits = FleetLimits { each, ..LIMITS };
        let mut sweep = new(&fleet, asking, limits);
        // Two of three answer, so passes leave holes.
        let played = play(&mut sweep, &mut |send| {
            (!send.closes && send.pair.number % 3 != 0).then(|| hoped(send.probe))
        });
        let mut last: HashMap<_, Mono> = HashMap::new();
        for (at, send) in played.sent.iter().filter(|(_, send)| !send.closes) {
            if let Some(before) = last.insert(send.pair.rip, *at) {
                let apart = at.since(before);
                assert!(
                    apart.as_secs_f64() >= 2.0 / f64::from(each) - 1e-6,
                    "{apart:?}"
                );
            }
        }
        let mut packets: HashMap<_, Vec<Mono>> = HashMap::new();
        for (at, send) in &played.sent {
            packets.entry(send.pair.rip).or_default().push(*at);
        }
        for times in packets.values() {
            for (number, from) in times.iter().enumerate() {
                let second = times[number..]
                    .iter()
                    .filter(|at| at.since(*from) < Duration::from_secs(1));
                assert!(second.count() <= each as usize + 2, "packets in a second");
            }
        }
        let all: Vec<_> = played.sent.iter().map(|(at, _)| *at).collect();
        for window in all.windows(1005) {
            assert!(
                window[1004].since(window[0]) >= Duration::from_millis(999),
                "the rate in all"
            );
        }
    }
}

#[test]
fn groups_that_share_a_real_server_keep_its_rate() {
    let service = |vip: u8| Service {
        vip: [192, 0, 2, vip].into(),
        port: 80,
        protocol: Protocol::Udp,
    };
    let range = |first: u32, last: u32| {
        vec![Range {
            first: first.into(),
            last: last.into(),
        }]
    };
    let groups = (0..20u8).map(|n| {
        (
            vec![service(n + 10)],
            range(0x0a00_0001 + u32::from(n), 0x0a00_0005 + u32::from(n)),
        )
    });
    let fleet = Fleet::new([192, 0, 2, 2].into(), None, groups.collect()).unwrap();
    let mut sweep = new(&Arc::new(fleet), Asking::Reflect, LIMITS);
    let played = play(&mut sweep, &mut |_| None);
    let mut last: HashMap<_, Mono> = HashMap::new();
    for (at, send) in &played.sent {
        if let Some(before) = last.insert(send.pair.rip, *at) {
            assert!(
                at.since(before) >= Duration::from_secs(1),
                "ICMP is limited"
            );
        }
    }
    assert_eq!(played.sent.len(), 3 * 100);
}

#[test]
fn what_is_silent_is_tried_three_times_closed_and_only_then_told() {
    let fleet = fleet(TWO, 50);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let played = play(&mut sweep, &mut |_| None);
    assert_eq!(played.results.len(), 100);
    assert!(
        played
            .results
            .values()
            .all(|swept| swept.heard == FleetHeard::Silence)
    );
    let sent = |closes| {
        played
            .sent
            .iter()
            .filter(|(_, send)| send.closes == closes)
            .count()
    };
    assert_eq!((sent(false), sent(true)), (300, 50));
    // Tries of a pair are further and further apart: 1 s, 2 s, and 4 s before it is told.
    for pair in [0, 99] {
        let times: Vec<_> = played
            .sent
            .iter()
            .filter(|(_, send)| send.pair.number == pair && !send.closes)
            .map(|(at, _)| *at)
            .collect();
        assert!(times[1].since(times[0]) >= Duration::from_secs(1));
        assert!(times[2].since(times[1]) >= Duration::from_secs(2));
        assert!(played.now.since(times[2]) >= Duration::from_secs(4));
    }
}

#[test]
fn a_later_answer_mends_an_error_and_an_error_outlives_silence() {
    let fleet = fleet(&[(80, Protocol::Tcp)], 40);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let mut tries: HashMap<u32, u32> = HashMap::new();
    let played = play(&mut sweep, &mut |send| {
        let nth = tries.entry(send.pair.number).or_default();
        *nth += u32::from(!send.closes);
        match (send.closes, send.pair.number % 4, *nth) {
            (true, ..) | (_, 3, _) | (_, 1, 2..) => None,
            (_, 0, 2) => Some(FleetAnswer::SynAck),
            (_, 2, _) => Some(FleetAnswer::Reset),
            _ => Some(protocol_unreachable()),
        }
    });
    assert_eq!(played.results.len(), 40);
    for (number, swept) in &played.results {
        let answered = |answer| FleetHeard::Answered(FleetProbe::ReflectSyn, answer);
        let expected = match number % 4 {
            0 => answered(FleetAnswer::SynAck),
            1 => answered(protocol_unreachable()),
            2 => answered(FleetAnswer::Reset),
            _ => FleetHeard::Silence,
        };
        assert_eq!(swept.heard, expected, "{number}");
        assert_eq!(swept.round_trip, None, "which try was answered?");
    }
}

#[test]
fn silence_does_not_count_where_packets_were_lost() {
    let fleet = fleet(TWO, 10);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let mut played = Played {
        now: ms(0),
        ..Played::default()
    };
    assert!(!played.play(&mut sweep, ms(500), &mut |_| None));
    sweep.handle_lost(3);
    assert!(!played.play(&mut sweep, ms(3500), &mut |_| None));
    sweep.handle_lost(1);
    assert!(played.play(&mut sweep, ms(100_000), &mut |_| None));
    assert_eq!(played.results.len(), 20);
    assert!(
        played
            .results
            .values()
            .all(|swept| swept.heard == FleetHeard::Unheard)
    );
    assert_eq!(sweep.counts().lost, 4);
}

#[test]
fn what_the_loop_leaves_open_is_asked_directly() {
    let fleet = fleet(TWO, 30);
    let mut sweep = new(&fleet, Asking::Both, LIMITS);
    let played = play(
        &mut sweep,
        &mut |send| match (send.closes, send.probe, send.pair.number % 3) {
            (true, ..) => None,
            (_, FleetProbe::ClosedLoop, 0) => Some(FleetAnswer::ClientReset),
            (_, FleetProbe::ClosedLoop, _) | (_, FleetProbe::ReflectSyn, 2) => None,
            (_, probe, _) => Some(hoped(probe)),
        },
    );
    assert_eq!(played.results.len(), 60);
    for (number, swept) in &played.results {
        let answered = |probe| FleetHeard::Answered(probe, hoped(probe));
        let expected = match (number / 30, number % 3) {
            (0, 0) => (answered(FleetProbe::ClosedLoop), None),
            (0, 1) => (answered(FleetProbe::ReflectSyn), Some(NoAnswer::Silent)),
            (0, _) => (FleetHeard::Silence, Some(NoAnswer::Silent)),
            _ => (answered(FleetProbe::ReflectUdp), None),
        };
        assert_eq!((swept.heard, swept.closed_loop), expected, "{number}");
        assert_eq!(sweep.is_proven(*number), *number >= 30 || number % 3 == 0);
    }
    // Each SYN that was never answered is closed once, of either kind.
    let closings = played.sent.iter().filter(|(_, send)| send.closes);
    assert_eq!(closings.count(), 10 + 20 + 10 + 10);
}

#[test]
fn an_answer_that_comes_twice_is_counted_once_and_closed_twice() {
    let fleet = fleet(&[(80, Protocol::Tcp)], 1);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let mut batch = Vec::new();
    sweep.poll(ms(0), &mut batch);
    for at in [10, 20] {
        sweep.handle_heard(0, FleetProbe::ReflectSyn, FleetAnswer::SynAck, ms(at));
    }
    let played = play(&mut sweep, &mut |_| None);
    assert_eq!(played.results.len(), 1);
    assert_eq!(
        played.sent.iter().filter(|(_, send)| send.closes).count(),
        2
    );
    assert_eq!((sweep.counts().answered, sweep.counts().repeated), (1, 1));
}

#[test]
fn an_answer_that_was_refused_on_its_way_has_opened_something() {
    let fleet = fleet(&[(80, Protocol::Tcp)], 5);
    let mut sweep = new(&fleet, Asking::ClosedLoop, LIMITS);
    let refused = FleetAnswer::Error(FleetError {
        icmp_type: 3,
        code: 13,
        about: About::Return,
        from: Whom::Other([10, 0, 0, 1].into()),
    });
    let played = play(&mut sweep, &mut |send| (!send.closes).then_some(refused));
    let sent = |closes| {
        let sent = played.sent.iter();
        sent.filter(|(_, send)| send.closes == closes).count()
    };
    assert_eq!((sent(false), sent(true)), (15, 15));
    let heard = FleetHeard::Answered(FleetProbe::ClosedLoop, refused);
    assert!(played.results.values().all(|swept| swept.heard == heard));
}

#[test]
fn a_sweep_that_is_stopped_closes_what_it_opened() {
    let fleet = fleet(&[(80, Protocol::Tcp)], 1000);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let mut played = Played {
        now: ms(0),
        ..Played::default()
    };
    let mut answer = |send: &FleetSend| (!send.closes).then_some(FleetAnswer::SynAck);
    // Probes for 20 ms, then what closes them, and so on.
    assert!(!played.play(&mut sweep, ms(170), &mut answer));
    sweep.stop(played.now);
    // What was in flight when it was stopped; `play` forgets it.
    let open: Vec<_> = played
        .sent
        .iter()
        .map(|(_, send)| *send)
        .filter(|send| !send.closes && !played.results.contains_key(&send.pair.number))
        .collect();
    assert!(
        !open.is_empty(),
        "{} sent, {} told",
        played.sent.len(),
        played.results.len()
    );
    // Of one in two the answer is lost: nobody but this host closes what it opened.
    for send in open.iter().step_by(2) {
        sweep.handle_heard(send.pair.number, send.probe, FleetAnswer::SynAck, ms(180));
    }
    let saved = sweep.save(());
    assert!(played.play(&mut sweep, ms(5000), &mut answer));
    assert!(sweep.is_partial());
    assert_eq!(
        sweep.save(()).len(),
        saved.len(),
        "it goes on from where it was stopped"
    );
    let sent = |closes| {
        played
            .sent
            .iter()
            .filter(|(_, send)| send.closes == closes)
            .count()
    };
    assert_eq!(sent(false), sent(true));
    assert_eq!(played.results.len(), sent(false) - open.len() / 2);
    let closings = played.sent.iter().filter(|(_, send)| send.closes);
    let closed: HashSet<_> = closings.map(|(_, send)| send.pair.number).collect();
    assert_eq!(closed.len(), sent(true), "each once");
}

#[test]
fn a_probe_that_came_back_proves_nothing_by_what_follows_it() {
    let fleet = fleet(TWO, 5);
    for asking in [Asking::Reflect, Asking::Both] {
        let mut sweep = new(&fleet, asking, LIMITS);
        let mut batch = Vec::new();
        sweep.poll(ms(0), &mut batch);
        let first = batch[0];
        sweep.handle_heard(first.pair.number, first.probe, FleetAnswer::CameBack, ms(5));
        sweep.handle_heard(first.pair.number, first.probe, hoped(first.probe), ms(6));
        let played = play(&mut sweep, &mut |send| {
            (!send.closes).then(|| hoped(send.probe))
        });
        assert_eq!(played.results.len(), 10);
        for (number, swept) in &played.results {
            let is_first = *number == first.pair.number;
            let came_back = FleetHeard::Answered(first.probe, FleetAnswer::CameBack);
            assert_eq!(swept.heard == came_back, is_first, "{swept:?}");
        }
        assert!(!sweep.is_proven(first.pair.number));
        assert_eq!((sweep.counts().errors, sweep.counts().late), (1, 1));
    }
}

#[test]
fn a_closed_loop_that_was_not_heard_is_not_silent() {
    let fleet = fleet(&[(80, Protocol::Tcp)], 4);
    let mut sweep = new(&fleet, Asking::Both, LIMITS);
    let mut played = Played {
        now: ms(0),
        ..Played::default()
    };
    for until in [200, 1700] {
        assert!(!played.play(&mut sweep, ms(until), &mut |_| None));
        sweep.handle_lost(1);
    }
    let mut answer = |send: &FleetSend| {
        (!send.closes && send.probe == FleetProbe::ReflectSyn).then_some(FleetAnswer::SynAck)
    };
    assert!(played.play(&mut sweep, ms(100_000), &mut answer));
    assert_eq!(played.results.len(), 4);
    for swept in played.results.values() {
        assert_eq!(swept.closed_loop, Some(NoAnswer::Unheard));
    }
}

#[test]
fn what_was_not_sent_says_why() {
    let fleet = fleet(&[(53, Protocol::Udp)], 3);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let mut results = Vec::new();
    let mut now = ms(0);
    for _ in 0..10_000 {
        let mut batch = Vec::new();
        let poll = sweep.poll(now, &mut batch);
        for send in batch {
            sweep.handle_not_sent(&send, 113, now);
        }
        results.extend(std::iter::from_fn(|| sweep.poll_result()));
        match poll {
            FleetPoll::Wait(next) => now = next.max(now),
            FleetPoll::Done => break,
        }
    }
    let heard: Vec<_> = results.iter().map(|swept| swept.heard).collect();
    assert_eq!(heard, [FleetHeard::NotSent(113); 3]);
}

#[test]
fn what_never_left_for_want_of_arp_is_no_silence() {
    let fleet = fleet(TWO, 4);
    let mut sweep = new(&fleet, Asking::Reflect, LIMITS);
    let mut played = Played {
        now: ms(0),
        ..Played::default()
    };
    assert!(!played.play(&mut sweep, ms(1400), &mut |_| None));
    for address in [[10, 0, 0, 2], [10, 0, 0, 3], [10, 99, 0, 1]] {
        sweep.handle_mute(address.into(), 113);
        sweep.handle_mute(address.into(), 113);
    }
    assert_eq!(sweep.counts().errors, 4, "each pair once");
    let mut answer = |send: &FleetSend| {
        let is_third = send.pair.rip == Ipv4Addr::new(10, 0, 0, 3);
        (!send.closes && is_third).then(|| hoped(send.probe))
    };
    assert!(played.play(&mut sweep, ms(100_000), &mut answer));
    for swept in played.results.values() {
        let expected = match swept.pair.rip.octets() {
            [.., 2] => FleetHeard::NotSent(113),
            [.., 3] => continue,
            _ => FleetHeard::Silence,
        };
        assert_eq!(swept.heard, expected, "{swept:?}");
    }
    assert_eq!(sweep.counts().answered, 2, "an answer mends it");
}

#[test]
fn a_sweep_goes_on_wherever_it_was_cut_and_tells_each_pair_once() {
    let fleet = fleet(TWO, 40);
    let mut answer = |send: &FleetSend| match (send.closes, send.pair.number % 4) {
        (true, _) | (_, 3) => None,
        (_, 2) => Some(protocol_unreachable()),
        _ => Some(hoped(send.probe)),
    };
    let resumed = |saved: &[u8], now| {
        FleetSweep::resume::<u32>(Arc::clone(&fleet), Asking::Both, LIMITS, saved, now)
    };
    let mut cuts = 0;
    let mut played = Played {
        now: ms(0),
        ..Played::default()
    };
    let mut sweep = new(&fleet, Asking::Both, LIMITS);
    let mut until = 1000;
    while !played.play(&mut sweep, ms(until - 1000), &mut answer) {
        let saved = sweep.save(cuts);
        let (again, more) = resumed(&saved, played.now).unwrap();
        assert_eq!(more, cuts);
        assert_eq!(again.counts(), sweep.counts());
        sweep = again;
        cuts += 1;
        // Longer and longer, as a pause begins anew each time.
        until += 40 * u64::from(cuts);
        assert!(cuts < 1000);
    }
    assert!(cuts > 20, "{cuts}");
    assert_eq!(played.results.len(), 80);
    for (number, swept) in &played.results {
        let is_right = match number % 4 {
            // Nobody listened while it was cut, in any pass.
            3 => matches!(swept.heard, FleetHeard::Silence | FleetHeard::Unheard),
            2 => matches!(swept.heard, FleetHeard::Answered(_, FleetAnswer::Error(_))),
            _ => {
                matches!(swept.heard, FleetHeard::Answered(probe, answer) if answer == hoped(probe))
            }
        };
        assert!(is_right, "{swept:?}");
    }
}

#[test]
fn what_was_cut_off_or_is_of_another_fleet_is_refused() {
    let fleet = fleet(TWO, 3);
    let sweep = new(&fleet, Asking::Reflect, LIMITS);
    let saved = sweep.save("more");
    let resumed = |fleet: &Arc<Fleet>, asking, tries, saved: &[u8]| {
        let limits = FleetLimits { tries, ..LIMITS };
        FleetSweep::resume::<String>(Arc::clone(fleet), asking, limits, saved, ms(0)).err()
    };
    let right = |saved: &[u8]| resumed(&fleet, Asking::Reflect, 3, saved);
    assert_eq!(right(&saved), None);
    assert_eq!(
        resumed(&fleet, Asking::Both, 3, &saved),
        Some(ResumeError::OtherProbes)
    );
    assert_eq!(
        resumed(&fleet, Asking::Reflect, 2, &saved),
        Some(ResumeError::OtherProbes)
    );
    let other = super::tests::fleet(TWO, 4);
    assert_eq!(
        resumed(&other, Asking::Reflect, 3, &saved),
        Some(ResumeError::OtherFleet)
    );
    assert_eq!(right(b"[director]"), Some(ResumeError::Schema));
    for length in 0..saved.len() {
        assert!(right(&saved[..length]).is_some(), "{length}");
    }
    for at in 0..saved.len() {
        let mut changed = saved.clone();
        changed[at] ^= 1;
        // Hex digits of either case are one number.
        assert!(right(&changed).is_some(), "octet {at}");
    }
}
