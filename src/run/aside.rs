//! Questions beside the path, asked early and at most twice, whose answers nobody waits for: is the tunnel
//! open to anyone, and who else claims the VIP?

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::exchange::HostFacts;
use crate::exchange::Mono;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::ProbeKind;
use crate::run::queries;
use crate::run::queries::OnLink;

/// When a question is asked, after its first time.
const TIMES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(250)];

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Does a probe of this kind, which nobody should answer, get an answer?
    Probe(ProbeKind),
    /// Who has the VIP, where it is on-link?
    WhoHas(OnLink, Ipv4Addr),
}

/// A question, for whom, and how often it was asked.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    question: Question,
    path: usize,
    host: Host,
    begin: Mono,
    asked: usize,
}

impl Aside {
    /// What the client of path number `path` asks.
    pub(super) fn of_client(path: usize, now: Mono) -> impl Iterator<Item = Aside> {
        [ProbeKind::OpenTunnel, ProbeKind::SpoofTunnel]
            .into_iter()
            .map(move |kind| Aside {
                question: Question::Probe(kind),
                path,
                host: Host::Client,
                begin: now,
                asked: 0,
            })
    }

    /// What `host`, which says `facts` of itself, asks on the link that the VIP is on, if it has one.
    pub(super) fn of_neighbour(
        (path, declared): (usize, &Path),
        (host, facts): (Host, &HostFacts),
        ingress: Option<&str>,
        now: Mono,
    ) -> Option<Aside> {
        let link = queries::on_link(facts, host, declared, ingress)?;
        Some(Aside {
            question: Question::WhoHas(link, declared.vip),
            path,
            host,
            begin: now,
            asked: 0,
        })
    }

    /// When it is to be asked next.
    pub(super) fn due(&self) -> Option<Mono> {
        TIMES.get(self.asked).map(|offset| self.begin + *offset)
    }

    /// The question, its path and who asks, if it is due.
    pub(super) fn poll(&mut self, now: Mono) -> Option<(Host, usize, Question)> {
        self.due().filter(|due| *due <= now)?;
        self.asked += 1;
        Some((self.host, self.path, self.question.clone()))
    }

    /// Who asks.
    pub(super) fn host(&self) -> Host {
        self.host
    }
}
