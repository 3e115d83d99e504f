//! `tunproof watch`: the whole proof, again and again.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio::runtime;

use crate::cli::common;
use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::cli::prove;
use crate::cli::prove::Audience;
use crate::cli::prove::Ended;
use crate::cli::prove::Film;
use crate::cli::prove::Missing;
use crate::cli::prove::Told;
use crate::cli::screen::Screen;
use crate::cli::verify;
use crate::exchange::Mono;
use crate::live::clock;
use crate::live::controller;
use crate::plan::SessionKey;
use crate::report::Change;
use crate::report::Report;
use crate::report::Watch;
use crate::report::escape;
use crate::run::Engine;
use crate::run::Limits;
use crate::run::Task;
use crate::suite::Embedded;
use crate::verdict::Outcome;
use crate::verdict::judge;

const EXAMPLES: &str = "\
Every round is a whole proof, as `tunproof verify` makes one, with a session key of its own. On a terminal it
shows a table: of each hop its state (✔ proven, ✘ broken, ? unproven, · skipped), since when, and over all rounds:
  seen, loss  probes that set out on the hop and were seen beyond it; ICMP errors are not counted, as hosts limit
              them, nor what nobody could see
  last, avg, best, worst, stdev  round trips in milliseconds, each by one host's clock:
              director-to-realserver  from the director to the real server and straight back
              service                 within the real server: out of the tunnel, and answered
              gateway-arp             the gateway's answer to the real server's kernel
              client-arrival          as the client feels it: SYN to SYN-ACK
              return-to-director      the closed loop: director, real server, client, director
  flaps       how often it went from proven to broken or back; a round that could not decide is none
Without a terminal it prints a line for each round, and one for each verdict that changes.

The agents end with each round, so that between two rounds nothing runs on the hosts and nothing is changed there.
To log in by ssh only once, let ssh keep the connection:
  via = \"ssh -o ControlMaster=auto -o ControlPath=~/.ssh/%C -o ControlPersist=10m root@lb1\"

Examples:
  tunproof watch path.toml
  tunproof watch path.toml --interval 1m --on-change | logger -t tunproof
  tunproof watch path.toml --count 30 && echo thirty rounds without a break
  tunproof watch path.toml --format json | jq -c 'select(.event == \"change\")'

Ctrl-C ends it with a summary; of a round that is not over by then nothing counts.

Exit status, by the worst of all rounds: 0 every hop proven in each; 1 a hop broken in one; 2 could not run, or in
one an agent did not start or was lost; 3 nothing broken, not all proven in each";

/// The shortest time from the beginning of one round to that of the next.
const SHORTEST: Duration = Duration::from_secs(5);
/// How often the table's times are drawn anew between two rounds.
const TICK: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The path file
    #[arg(value_name = "PATH.toml")]
    path: PathBuf,
    /// From the beginning of one round to that of the next, 5s at least; three seconds lie between two rounds in any
    /// case
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = interval)]
    interval: Duration,
    /// End after so many rounds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Print a line for each verdict that changes, and nothing else; in the first round, for each hop that is not
    /// proven
    #[arg(long)]
    on_change: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Packets a second that one host sends at most. Unless it is said: 100 for each real server that it has to do
    /// with, 10000 in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// When to give a round up, such as `20s`
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = common::duration)]
    timeout: Duration,
    /// Show what agents write to their stderr; no table then
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs: JSON lines, schema `tunproof.watch/1`
    Json,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = common::duration(text)?;
    match interval < SHORTEST {
        true => Err(
            "expected 5s or more: hosts answer few probes a second, and need time between rounds"
                .to_owned(),
        ),
        false => Ok(interval),
    }
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let file = verify::path_file(&arguments.path)?;
    let mut plan = file.plan(SessionKey::new(rand::random()));
    plan.suites = Embedded::LVS_TUN.suites(&plan.paths);
    if plan.vantages.is_empty() {
        return Err(Failure::NoVantage {
            path: arguments.path,
        });
    }
    let vias = verify::vias(file);
    let limits = Limits {
        rate: arguments.rate,
        timeout: arguments.timeout,
    };
    let settings = Settings::of_rounds(limits, arguments.verbose);
    let vantages = prove::reach(vias, &[], &settings)?;
    let mut watcher = Watcher::new(&arguments);
    loop {
        let began = clock::mono();
        watcher.film = Film::new();
        let round = plan.clone();
        let (known, ending) =
            match prove::carry_out(round, &vantages, Task::Prove, &settings, &mut watcher) {
                Err(Failure::Stopped) => break,
                known => known?,
            };
        ending
            .wait()
            .iter()
            .for_each(|missing| watcher.miss(missing));
        let mut evidence = known.evidence;
        if evidence.is_cut_short() == Some(Engine::INTERRUPTED) {
            break;
        }
        let judgement = judge(&mut evidence);
        let report = Report::new(&evidence, &judgement, known.timing);
        let changes = watcher.watch.add(&evidence, &report, known.timing.started);
        watcher.tell(&changes)?;
        let is_last = arguments.count == Some(watcher.watch.rounds());
        if is_last || watcher.is_unread || watcher.rest(began, arguments.interval)? {
            break;
        }
        plan.session = plan.session.next();
    }
    watcher.end()
}

/// Who tells of the rounds.
struct Watcher {
    watch: Watch,
    screen: Screen,
    film: Film,
    format: Format,
    on_change: bool,
    interval: Duration,
    told: Told,
    ever_missed: bool,
    /// Nobody reads stdout any more.
    is_unread: bool,
}

impl Watcher {
    fn new(arguments: &Arguments) -> Watcher {
        let is_table = arguments.format == Format::Text
            && !arguments.on_change
            && !arguments.verbose
            && io::stdout().is_terminal();
        Watcher {
            watch: Watch::default(),
            screen: Screen::stdout(is_table),
            film: Film::new(),
            format: arguments.format,
            on_change: arguments.on_change,
            interval: arguments.interval,
            told: Told::default(),
            ever_missed: false,
            is_unread: false,
        }
    }

    /// Says what the last round was, and what changed in it.
    fn tell(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let missing = self.told.end_run().iter();
        let hosts: Vec<_> = missing.map(|(host, _)| escape(host)).collect();
        if self.screen.is_shown() {
            return Ok(());
        }
        let mut text = String::new();
        for change in changes {
            text.push_str(&match self.format {
                Format::Text => change.to_text(),
                Format::Json => change.to_json(),
            });
        }
        match self.format {
            _ if self.on_change => {}
            Format::Text => text.push_str(&self.watch.round_text()),
            Format::Json => text.push_str(&self.watch.round_json(&hosts)),
        }
        self.print(&text)
    }

    /// Waits for the next round; whether the user has enough.
    fn rest(&mut self, began: Mono, interval: Duration) -> Result<bool, Failure> {
        let now = clock::mono();
        let next = now + interval.saturating_sub(now.since(began)).max(prove::APART);
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Failure::Runtime)?;
        loop {
            let left = next.since(clock::mono());
            if left.is_zero() {
                return Ok(false);
            }
            let waited = match self.screen.is_shown() {
                true => {
                    self.draw(&format!(
                        "next round in {}s, Ctrl-C ends",
                        left.as_secs() + 1
                    ));
                    left.min(TICK)
                }
                false => left,
            };
            let stopped = runtime.block_on(controller::pause(waited));
            if stopped.map_err(Failure::Runtime)? {
                return Ok(true);
            }
        }
    }

    fn draw(&mut self, status: &str) -> Option<Duration> {
        let (number, every) = (self.watch.rounds(), self.interval);
        let every = humantime::format_duration(every);
        let mut status = format!("round {number}, every {every}: {status}");
        if !self.told.missed().is_empty() {
            let hosts: Vec<_> = self
                .told
                .missed()
                .iter()
                .map(|(host, _)| escape(host))
                .collect();
            status = format!("no agent on {}; {status}", hosts.join(", "));
        }
        let (watch, now) = (&self.watch, clock::wall());
        self.screen
            .show(|size| watch.lines((size.columns, size.rows - 1), now, &status))
    }

    /// Says what all rounds were.
    fn end(mut self) -> Result<Ended, Failure> {
        let Some(worst) = self.watch.worst() else {
            return Err(Failure::Stopped);
        };
        let now = clock::wall();
        let summary = self.watch.end_text(now);
        let watch = &self.watch;
        self.screen.leave(|size| {
            let mut lines = watch.lines((size.columns, size.rows - 1), now, summary.trim_end());
            lines.truncate(size.rows);
            lines
        });
        match self.format {
            _ if self.screen.is_shown() => {}
            Format::Json => self.print(&self.watch.end_json(now))?,
            Format::Text if self.on_change => anstream::eprint!("{summary}"),
            Format::Text => self.print(&summary)?,
        }
        Ok(match worst {
            Outcome::Broken => Ended::Judged(worst),
            _ if self.ever_missed => Ended::WithoutAnAgent,
            _ => Ended::Judged(worst),
        })
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_unread = true,
            written => written.map_err(|source| Failure::Write {
                what: "stdout".to_owned(),
                source,
            })?,
        }
        Ok(())
    }
}

impl Audience for Watcher {
    fn begin(&mut self) {
        match self.watch.rounds() {
            0 => self.screen.note("starting agents"),
            _ => drop(self.draw("starting agents")),
        }
    }

    fn look(&mut self, engine: &Engine) -> Option<Duration> {
        if self.watch.rounds() > 0 {
            let sent = engine.evidence().probes().len();
            return self.draw(&format!("{}, {sent} sent", engine.phase()));
        }
        let film = &mut self.film;
        self.screen
            .show(|size| film.picture(engine).lines(size.columns, size.rows - 1))
    }

    fn miss(&mut self, missing: &Missing) {
        self.ever_missed = true;
        if self.told.is_news(missing) {
            self.screen.clear();
            missing.complain();
        }
    }

    fn note(&mut self, words: &str) {
        if self.told.is_new_note(words) {
            self.screen.clear();
            anstream::eprintln!("note: {words}");
        }
    }
}
