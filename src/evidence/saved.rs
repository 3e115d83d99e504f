//! A case file: plan, evidence and packets of a run, to be judged again anywhere.
//!
//! One JSON object, schema [`SCHEMA`]: a line for each field, and for each entry of a list. What follows from
//! the rest (the real server that IPVS chose for a probe, and the like) is not kept but found out again. What
//! [`load`] returns can be judged without a look at any index: all of them were checked. A suite that was
//! played several times is a list of such objects, so that a file without its end is none.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::Formatter;

use crate::evidence::Course;
use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::HostRecord;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::Timing;
use crate::exchange::Wall;
use crate::plan::Action;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::Step;
use crate::plan::Suite;

/// The schema's name.
pub const SCHEMA: &str = "tunproof.evidence/1";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a run was for, and so which report it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To prove the path, hop by hop.
    Proof,
    /// To play a suite, step by step.
    Suite,
}

/// Why a case file cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is cut off.
    #[error("it ends too soon: {0}")]
    Cut(serde_json::Error),
    /// It is no JSON object, or not of the fields that it must have.
    #[error("{error}")]
    Syntax {
        /// What, and at which line and column.
        error: serde_json::Error,
        /// The version of tunproof that made it, if it names another than this one.
        by: Option<String>,
    },
    /// It is of another schema, or of none.
    #[error("its schema is {}, and tunproof {VERSION} reads `{SCHEMA}`", Schema { found, by })]
    Schema {
        /// Its schema, if it names one.
        found: Option<String>,
        /// The version of tunproof that made it, if it names one.
        by: Option<String>,
    },
    /// Its parts contradict each other.
    #[error("{place}: {problem}")]
    Inconsistent {
        /// Which part.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What `schema` and `tunproof` of a file say.
struct Schema<'a> {
    found: &'a Option<String>,
    by: &'a Option<String>,
}

impl fmt::Display for Schema<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            None => f.write_str("not named")?,
            Some(schema) => write!(f, "`{}`", schema.escape_debug())?,
        }
        match self.by {
            None => Ok(()),
            Some(version) => write!(f, ", made by tunproof {}", version.escape_debug()),
        }
    }
}

/// What a case file tells.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What was known.
    pub evidence: Evidence,
    /// When it became known.
    pub timing: Timing,
    /// What the run was for.
    pub purpose: Purpose,
    /// The version of tunproof that made the file, if it was another.
    pub by: Option<String>,
}

/// What every file says first, whatever its schema.
#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
    tunproof: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    schema: String,
    /// The version that made it.
    tunproof: String,
    purpose: Purpose,
    /// Nanoseconds since 1970, as all times in it.
    started: Wall,
    elapsed_ms: u64,
    /// Why probing ended before it was over, if it did.
    cut_short: Option<String>,
    plan: Plan,
    hosts: Vec<SavedHost>,
    probes: Vec<Probe>,
    /// The probes whose silence says nothing, because they were sent too shortly before the end.
    excused: Vec<ProbeId>,
    /// Those whose answers may have been on their way at the end.
    expected: Vec<ProbeId>,
    /// The ports of the client at which the service answers nobody's question.
    #[serde(default)]
    unasked: BTreeSet<u16>,
    /// How far each step of each path's suite came.
    courses: Vec<Vec<Course>>,
    evidence: Vec<Item>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedHost {
    host: Host,
    known: HostRecord,
}

/// The case file of what is known; before it is judged, which makes conclusions evidence, too.
pub fn save(evidence: &Evidence, timing: Timing, purpose: Purpose) -> String {
    let (excused, expected) = evidence.unfinished();
    let saved = Saved {
        schema: SCHEMA.to_owned(),
        tunproof: VERSION.to_owned(),
        purpose,
        started: timing.started,
        elapsed_ms: timing.elapsed.as_millis() as u64,
        cut_short: evidence.is_cut_short().map(str::to_owned),
        plan: evidence.plan().clone(),
        hosts: evidence
            .hosts()
            .map(|(host, known)| SavedHost {
                host,
                known: known.clone(),
            })
            .collect(),
        probes: evidence.probes().to_vec(),
        excused,
        expected,
        unasked: evidence.unasked().clone(),
        courses: evidence.courses().to_vec(),
        evidence: evidence.items().to_vec(),
    };
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, Lines::default());
    saved
        .serialize(&mut serializer)
        .expect("evidence has string keys only, and memory takes all");
    text.push(b'\n');
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// What a case file holds besides the cases of several rounds: before the first, between two, after the last.
pub const ROUNDS: [&str; 3] = ["[\n", ",\n", "]\n"];

/// What a case file tells: one case, or one of each round.
///
/// # Errors
/// [`LoadError`] says where the file is wrong.
pub fn load(text: &[u8]) -> Result<Vec<Loaded>, LoadError> {
    let mut by = None;
    for head in read::<Head>(text, &None)? {
        if head.schema.as_deref() != Some(SCHEMA) {
            return Err(LoadError::Schema {
                found: head.schema,
                by: head.tunproof,
            });
        }
        by = head.tunproof.filter(|version| version != VERSION);
    }
    let rounds: Vec<Saved> = read(text, &by)?;
    let Some(first) = rounds.first() else {
        return Err(wrong("rounds", "there is none"));
    };
    for (number, saved) in rounds.iter().enumerate() {
        let of_round = |place: &str| match rounds.len() {
            1 => place.to_owned(),
            _ => format!("round {}: {place}", number + 1),
        };
        saved.check().map_err(|error| match error {
            LoadError::Inconsistent { place, problem } => wrong(of_round(&place), problem),
            other => other,
        })?;
        let is_one = rounds.len() == 1
            || saved.purpose == Purpose::Suite
                && saved.plan.paths == first.plan.paths
                && saved.plan.suites == first.plan.suites;
        if !is_one {
            let problem = "it plays another suite than the first, another path, or none";
            return Err(wrong(of_round("plan"), problem));
        }
    }
    Ok(rounds.into_iter().map(Saved::into_loaded).collect())
}

/// The object, or every object of a list.
fn read<T: DeserializeOwned>(text: &[u8], by: &Option<String>) -> Result<Vec<T>, LoadError> {
    let is_list = text.trim_ascii_start().starts_with(b"[");
    let read = match is_list {
        true => serde_json::from_slice(text),
        false => serde_json::from_slice(text).map(|one| vec![one]),
    };
    read.map_err(|error| match error.is_eof() {
        true => LoadError::Cut(error),
        false => LoadError::Syntax {
            error,
            by: by.clone(),
        },
    })
}

fn wrong(place: impl fmt::Display, problem: impl Into<String>) -> LoadError {
    LoadError::Inconsistent {
        place: place.to_string(),
        problem: problem.into(),
    }
}

impl Saved {
    fn into_loaded(self) -> Loaded {
        let by = Some(self.tunproof).filter(|version| version != VERSION);
        let timing = Timing {
            started: self.started,
            elapsed: Duration::from_millis(self.elapsed_ms),
        };
        let mut evidence = Evidence::new(self.plan);
        for SavedHost { host, known } in self.hosts {
            *evidence.host_mut(host) = known;
        }
        for probe in self.probes {
            evidence.add_probe(probe);
        }
        for item in self.evidence {
            let subject = (item.probe, item.path);
            evidence.append(item.host, item.station, item.time, subject, item.what);
        }
        for probe in self.excused {
            evidence.excuse(probe);
        }
        for probe in self.expected {
            evidence.expect(probe);
        }
        for (path, courses) in self.courses.into_iter().enumerate() {
            for (step, course) in courses.into_iter().enumerate() {
                *evidence.course_mut(path, step) = course;
            }
        }
        evidence.set_unasked(self.unasked);
        if let Some(why) = self.cut_short {
            evidence.cut_short(why);
        }
        Loaded {
            evidence,
            timing,
            purpose: self.purpose,
            by,
        }
    }

    /// Whether every part is about something that is there.
    fn check(&self) -> Result<(), LoadError> {
        self.check_plan()?;
        self.check_suites()?;
        self.check_hosts()?;
        let probes = self.check_probes()?;
        for (list, ids) in [("excused", &self.excused), ("expected", &self.expected)] {
            if let Some(id) = ids.iter().find(|id| !probes.contains(id)) {
                return Err(wrong(list, no_probe(*id)));
            }
        }
        self.check_courses()?;
        for (index, item) in self.evidence.iter().enumerate() {
            if item.id.0 as usize != index + 1 {
                let expected = EvidenceId(index as u32 + 1);
                let problem = format!("{expected} should stand here: one is missing or misplaced");
                return Err(wrong(format!("evidence {}", item.id), problem));
            }
            self.check_item(item, &probes)
                .map_err(|problem| wrong(format!("evidence {}", item.id), problem))?;
        }
        Ok(())
    }

    fn check_plan(&self) -> Result<(), LoadError> {
        let shared = |path: &Path| (path.vip, path.port, path.protocol, path.cip);
        let Some(first) = self.plan.paths.first() else {
            return Err(wrong("plan", "it has no path"));
        };
        let paths = self.plan.paths.iter().enumerate();
        for (number, path) in paths {
            if shared(path) != shared(first) {
                let problem = "its VIP, port, protocol or client is not that of path 0";
                return Err(wrong(format!("plan: path {number}"), problem));
            }
        }
        Ok(())
    }

    fn check_suites(&self) -> Result<(), LoadError> {
        let (suites, paths) = (&self.plan.suites, self.plan.paths.len());
        if !suites.is_empty() && suites.len() != paths {
            let problem = format!("there are {} for {paths} paths", suites.len());
            return Err(wrong("plan: suites", problem));
        }
        for (path, suite) in suites.iter().enumerate() {
            for (number, step) in suite.steps.iter().enumerate() {
                let place = || format!("plan: suite {path}: step {number}");
                check_step(step, number).map_err(|problem| wrong(place(), problem))?;
            }
        }
        Ok(())
    }

    fn check_courses(&self) -> Result<(), LoadError> {
        let steps = |suite: &Suite| suite.steps.len();
        let expected: Vec<usize> = self.plan.suites.iter().map(steps).collect();
        let found: Vec<usize> = self.courses.iter().map(Vec::len).collect();
        if expected != found {
            let problem = format!("there are {found:?}, and the suites have {expected:?} steps");
            return Err(wrong("courses", problem));
        }
        let mut frames = self
            .courses
            .iter()
            .flatten()
            .flat_map(|course| &course.frames);
        let there = 1..=self.evidence.len() as u32;
        match frames.find(|frame| !there.contains(&frame.0)) {
            Some(frame) => Err(wrong("courses", format!("there is no evidence {frame}"))),
            None => Ok(()),
        }
    }

    fn check_hosts(&self) -> Result<(), LoadError> {
        let mut vantages = HashSet::new();
        for host in &self.plan.vantages {
            self.check_host(*host)
                .map_err(|problem| wrong("plan: vantages", problem))?;
            if !vantages.insert(*host) {
                return Err(wrong("plan: vantages", format!("{host} is there twice")));
            }
        }
        for SavedHost { host, .. } in &self.hosts {
            if !vantages.remove(host) {
                let problem = format!("{host} is there twice, or none of the plan's vantages");
                return Err(wrong("hosts", problem));
            }
        }
        match vantages.into_iter().next() {
            Some(missing) => Err(wrong("hosts", format!("{missing} is missing"))),
            None => Ok(()),
        }
    }

    fn check_probes(&self) -> Result<HashSet<ProbeId>, LoadError> {
        let mut ids = HashSet::new();
        for probe in &self.probes {
            let place = || format!("probe {}", probe.id);
            if !ids.insert(probe.id) {
                return Err(wrong(place(), "it is there twice"));
            }
            self.check_path(probe.path)
                .and_then(|()| self.check_host(probe.from))
                .and_then(|()| self.check_step(probe))
                .map_err(|problem| wrong(place(), problem))?;
        }
        Ok(ids)
    }

    fn check_item(&self, item: &Item, probes: &HashSet<ProbeId>) -> Result<(), String> {
        self.check_host(item.host)?;
        if let Some(path) = item.path {
            self.check_path(path)?;
        }
        if let Some(id) = item.probe.filter(|id| !probes.contains(id)) {
            return Err(no_probe(id));
        }
        if let Some(station) = item.station
            && Host::of(station, path_of(item.host)) != item.host
        {
            return Err(format!("{station} is no station of {}", item.host));
        }
        match &item.what {
            What::Seen {
                sighting, capture, ..
            }
            | What::Drop {
                sighting, capture, ..
            } => {
                if item.probe != Some(sighting.probe) {
                    return Err(format!("it sights {} and is about another", sighting.probe));
                }
                check_capture(capture)
            }
            What::Arp { capture, .. } => check_capture(capture),
            What::Sent { .. } | What::Connect { .. } | What::Fact { .. } | What::Silence(_) => {
                Ok(())
            }
        }
    }

    fn check_host(&self, host: Host) -> Result<(), String> {
        self.check_path(path_of(host))
    }

    fn check_step(&self, probe: &Probe) -> Result<(), String> {
        let step = probe
            .step
            .filter(|step| self.plan.step(probe.path, *step).is_none());
        match step {
            Some(step) => Err(format!("there is no step {step} in the suite of its path")),
            None => Ok(()),
        }
    }

    fn check_path(&self, path: usize) -> Result<(), String> {
        let count = self.plan.paths.len();
        match path < count {
            true => Ok(()),
            false => Err(format!(
                "there is no path {path}: the plan has {count}, from 0"
            )),
        }
    }
}

fn path_of(host: Host) -> usize {
    match host {
        Host::Realserver(path) => path,
        Host::Director | Host::Client => 0,
    }
}

/// Whether a step waits for earlier ones only, and its packets carry their identity in layers that they have.
fn check_step(step: &Step, number: usize) -> Result<(), String> {
    if let Some(after) = step.after.iter().find(|after| after.step >= number) {
        return Err(format!(
            "it waits for step {}, which is no earlier one",
            after.step
        ));
    }
    let packets = match &step.action {
        Action::Script(script) => &script.packets[..],
        Action::Builtin(_) | Action::Ask(_) => &[],
    };
    for packet in packets {
        let mut carriers = packet.carriers.iter();
        if let Some((layer, _)) = carriers.find(|(layer, _)| *layer >= packet.layers.len()) {
            return Err(format!("a packet of it has no layer {layer}"));
        }
    }
    Ok(())
}

fn no_probe(id: ProbeId) -> String {
    format!("{id} is none of the probes")
}

fn check_capture(capture: &Capture) -> Result<(), String> {
    let (there, said) = (capture.bytes.len(), capture.original_length);
    match there <= said as usize {
        true => Ok(()),
        false => Err(format!("{there} octets are there of a packet of {said}")),
    }
}

/// A line for each field of the outermost object, and for each entry of its lists.
#[derive(Default)]
struct Lines {
    depth: usize,
}

impl Lines {
    fn comma<W: ?Sized + io::Write>(
        &self,
        writer: &mut W,
        first: bool,
        ends_line: bool,
    ) -> io::Result<()> {
        writer.write_all(match (first, ends_line) {
            (true, true) => b"\n",
            (true, false) => b"",
            (false, true) => b",\n",
            (false, false) => b",",
        })
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(b"[")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.comma(writer, first, self.depth == 2)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(if self.depth == 1 { b"\n]" } else { b"]" })
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.comma(writer, first, self.depth == 1)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(if self.depth == 1 { b": " } else { b":" })
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(if self.depth == 0 { b"\n}" } else { b"}" })
    }
}
