//! What a sweep's pair is worth: which hops an answer proves, and which one an error breaks.

use crate::evidence::FleetHeard;
use crate::evidence::Swept;
use crate::matching::About;
use crate::matching::FleetAnswer;
use crate::matching::FleetError;
use crate::matching::Whom;
use crate::plan::FleetProbe;
use crate::plan::Hop;
use crate::verdict::Outcome;

/// What is known of the hops of a pair's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairJudgement {
    /// Proven if the last probe was answered as hoped and no other was silent; broken by an error that was never
    /// followed by an answer; else unproven. A silence breaks nothing.
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

/// Destination unreachable, and its codes for a host, a protocol and a port.
const UNREACHABLE: u8 = 3;
const HOST: [u8; 2] = [1, 7];
const PROTOCOL: u8 = 2;
const PORT: u8 = 3;

/// Judges a pair.
pub fn judge_pair(swept: &Swept) -> PairJudgement {
    let broken = |proven, hop| PairJudgement {
        outcome: Outcome::Broken,
        proven,
        broken: Some(hop),
    };
    let proven = |hops| PairJudgement {
        outcome: match swept.is_loop_silent {
            true => Outcome::Unproven,
            false => Outcome::Proven,
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
        FleetHeard::Silence | FleetHeard::Unheard => unproven(&[]),
        FleetHeard::NotSent(_) => broken(&[], Hop::DirectorToRealserver),
        FleetHeard::Answered(probe, answer) => match answer {
            FleetAnswer::ClientReset => proven(RETURNED),
            FleetAnswer::SynAck => proven(SERVED),
            FleetAnswer::PortUnreachable => proven(ACCEPTED),
            FleetAnswer::Reset => broken(ACCEPTED, Hop::Service),
            FleetAnswer::Error(error) => match error.about {
                About::Tunnel if is_from_the_tunnels_end(&error) => {
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

/// Only the host that a packet was for speaks of its protocol and of what it carries.
fn is_from_the_tunnels_end(error: &FleetError) -> bool {
    error.from == Whom::RealServer
        || error.icmp_type == UNREACHABLE && matches!(error.code, PROTOCOL | PORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fleet;
    use crate::plan::Protocol;
    use crate::plan::Range;
    use crate::plan::Service;

    fn judged(heard: FleetHeard, is_loop_silent: bool) -> PairJudgement {
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
            is_loop_silent,
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
            let judgement = judged(FleetHeard::Answered(probe, answer), false);
            let got = (judgement.outcome, judgement.proven.len(), judgement.broken);
            assert_eq!(got, (outcome, proven, hop), "{probe:?} {answer:?}");
            assert!(!judgement.proven.iter().any(|proven| Some(*proven) == hop));
        }
    }

    #[test]
    fn silence_breaks_nothing_and_half_an_answer_proves_not_all() {
        for heard in [FleetHeard::Silence, FleetHeard::Unheard] {
            let judgement = judged(heard, false);
            assert_eq!(
                (judgement.outcome, judgement.proven.len()),
                (Outcome::Unproven, 0)
            );
        }
        let heard = FleetHeard::Answered(FleetProbe::ReflectSyn, FleetAnswer::SynAck);
        let half = judged(heard, true);
        assert_eq!((half.outcome, half.proven.len()), (Outcome::Unproven, 4));
    }
}
