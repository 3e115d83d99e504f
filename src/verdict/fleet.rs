//! What a sweep's pair is worth: which hops an answer proves, and which one an error breaks.

use crate::evidence::FleetHeard;
use crate::evidence::Swept;
use crate::matching::About;
use crate::matching::FleetAnswer;
use crate::matching::Whom;
use crate::plan::FleetProbe;
use crate::plan::Hop;
use crate::verdict::Outcome;

/// What is known of the hops of a pair's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairJudgement {
    /// Proven if the last probe was answered as hoped and no other was silent; broken by an error that was never
    /// followed by an answer; else unproven. A silence breaks nothing, nor does a packet that never left.
    pub outcome: Outcome,
    /// What is proven of the path, in its order: never more than what was seen.
    pub proven: &'static [Hop],
    /// The hop that is broken.
    pub broken: Option<Hop>,
}

const TUNNELLED: &[Hop] = &[Hop::DirectorToRealserver];
const DECAPSULATED: &[Hop] = &[Hop::DirectorToRealserver, Hop::Decapsulation];
const ACCEPTED: &[Hop] = &[
    Hop::DirectorToRealserver,
    Hop::Decapsulation,
    Hop::RealserverAccept,
];
const SERVED: &[Hop] = &[
    Hop::DirectorToRealserver,
    Hop::Decapsulation,
    Hop::RealserverAccept,
    Hop::Service,
];
const RETURNED: &[Hop] = &[
    Hop::DirectorToRealserver,
    Hop::Decapsulation,
    Hop::RealserverAccept,
    Hop::Service,
    Hop::RealserverEgress,
    Hop::SpoofedSourceTransit,
    Hop::ClientArrival,
    Hop::ReturnToDirector,
];

/// Destination unreachable, and its codes for a host.
const UNREACHABLE: u8 = 3;
const HOST: [u8; 2] = [1, 7];

/// Judges a pair.
pub fn judge_pair(swept: &Swept) -> PairJudgement {
    let broken = |proven, hop| PairJudgement {
        outcome: Outcome::Broken,
        proven,
        broken: Some(hop),
    };
    let proven = |hops| PairJudgement {
        outcome: match swept.closed_loop {
            Some(_) => Outcome::Unproven,
            None => Outcome::Proven,
        },
        proven: hops,
        broken: None,
    };
    let unproven = |proven| PairJudgement {
        outcome: Outcome::Unproven,
        proven,
        broken: None,
    };
    match swept.heard {
        FleetHeard::Silence | FleetHeard::Unheard | FleetHeard::NotSent(_) => unproven(&[]),
        FleetHeard::Answered(probe, answer) => match answer {
            FleetAnswer::ClientReset => proven(RETURNED),
            FleetAnswer::SynAck => proven(SERVED),
            FleetAnswer::PortUnreachable => proven(ACCEPTED),
            FleetAnswer::Reset => broken(ACCEPTED, Hop::Service),
            FleetAnswer::CameBack => broken(DECAPSULATED, Hop::RealserverAccept),
            FleetAnswer::Error(error) => match error.about {
                // Others, whatever they say, are firewalls on the way: of its own protocols a host speaks as itself.
                About::Tunnel if error.from == Whom::RealServer => {
                    broken(TUNNELLED, Hop::Decapsulation)
                }
                About::Tunnel => broken(&[], Hop::DirectorToRealserver),
                About::Inner => broken(DECAPSULATED, Hop::RealserverAccept),
                // What is quoted is the service's answer; that the director does not get it is no client's matter.
                About::Return if probe != FleetProbe::ClosedLoop => unproven(SERVED),
                About::Return => {
                    let is_client = error.icmp_type == UNREACHABLE && HOST.contains(&error.code);
                    let hop = match is_client {
                        true => Hop::ClientArrival,
                        false => Hop::SpoofedSourceTransit,
                    };
                    broken(SERVED, hop)
                }
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::NoAnswer;
    use crate::matching::FleetError;
    use crate::plan::Fleet;
    use crate::plan::Protocol;
    use crate::plan::Range;
    use crate::plan::Service;

    fn judged(heard: FleetHeard, closed_loop: Option<NoAnswer>) -> PairJudgement {
        let rip = [203, 0, 113, 5].into();
        let service = Service {
            vip: [192, 0, 2, 10].into(),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let range = Range {
            first: rip,
            last: rip,
        };
        let groups = vec![(vec![service], vec![range])];
        let fleet = Fleet::new([192, 0, 2, 2].into(), None, groups).unwrap();
        judge_pair(&Swept {
            pair: fleet.pair(0).unwrap(),
            heard,
            closed_loop,
            tries: 1,
            round_trip: None,
        })
    }

    fn error(icmp_type: u8, code: u8, about: About, from: Whom) -> FleetAnswer {
        FleetAnswer::Error(FleetError {
            icmp_type,
            code,
            about,
            from,
        })
    }

    #[test]
    fn an_answer_proves_what_was_seen_and_an_error_breaks_one_hop() {
        use FleetProbe::ClosedLoop;
        use FleetProbe::ReflectSyn;
        let router = Whom::Other([10, 0, 0, 1].into());
        for (probe, answer, outcome, proven, hop) in [
            (ReflectSyn, FleetAnswer::SynAck, Outcome::Proven, 4, None),
            (
                FleetProbe::ReflectUdp,
                FleetAnswer::PortUnreachable,
                Outcome::Proven,
                3,
                None,
            ),
            (
                ClosedLoop,
                FleetAnswer::ClientReset,
                Outcome::Proven,
                8,
                None,
            ),
            (
                ReflectSyn,
                FleetAnswer::Reset,
                Outcome::Broken,
                3,
                Some(Hop::Service),
            ),
            (
                ClosedLoop,
                FleetAnswer::CameBack,
                Outcome::Broken,
                2,
                Some(Hop::RealserverAccept),
            ),
            (
                ReflectSyn,
                error(3, 2, About::Tunnel, Whom::RealServer),
                Outcome::Broken,
                1,
                Some(Hop::Decapsulation),
            ),
            (
                ReflectSyn,
                error(3, 1, About::Tunnel, router),
                Outcome::Broken,
                0,
                Some(Hop::DirectorToRealserver),
            ),
            (
                ReflectSyn,
                error(3, 2, About::Tunnel, router),
                Outcome::Broken,
                0,
                Some(Hop::DirectorToRealserver),
            ),
            (
                ReflectSyn,
                error(11, 0, About::Inner, router),
                Outcome::Broken,
                2,
                Some(Hop::RealserverAccept),
            ),
            (
                ReflectSyn,
                error(3, 13, About::Return, router),
                Outcome::Unproven,
                4,
                None,
            ),
            (
                ClosedLoop,
                error(3, 13, About::Return, router),
                Outcome::Broken,
                4,
                Some(Hop::SpoofedSourceTransit),
            ),
            (
                ClosedLoop,
                error(3, 1, About::Return, router),
                Outcome::Broken,
                4,
                Some(Hop::ClientArrival),
            ),
        ] {
            let judgement = judged(FleetHeard::Answered(probe, answer), None);
            let got = (judgement.outcome, judgement.proven.len(), judgement.broken);
            assert_eq!(got, (outcome, proven, hop), "{probe:?} {answer:?}");
            assert!(!judgement.proven.iter().any(|proven| Some(*proven) == hop));
        }
    }

    #[test]
    fn silence_breaks_nothing_and_half_an_answer_proves_not_all() {
        for heard in [
            FleetHeard::Silence,
            FleetHeard::Unheard,
            FleetHeard::NotSent(105),
        ] {
            let judgement = judged(heard, None);
            assert_eq!(
                (judgement.outcome, judgement.proven.len()),
                (Outcome::Unproven, 0)
            );
        }
        let heard = FleetHeard::Answered(FleetProbe::ReflectSyn, FleetAnswer::SynAck);
        for before in [NoAnswer::Silent, NoAnswer::Unheard] {
            let half = judged(heard, Some(before));
            assert_eq!((half.outcome, half.proven.len()), (Outcome::Unproven, 4));
        }
    }
}
