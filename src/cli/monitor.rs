//! `tunproof monitor`: the proof again and again, for Prometheus.
//!
//! Probes are sent in the background and never by a scrape: whoever reaches the port, or scrapes in pairs, gets what
//! the last run found, and sends nothing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::common::Settings;
use crate::cli::common::duration;
use crate::cli::failure::Failure;
use crate::cli::prove;
use crate::cli::prove::Audience;
use crate::cli::prove::Ended;
use crate::cli::prove::Missing;
use crate::cli::prove::Told;
use crate::cli::verify;
use crate::cli::whole;
use crate::cli::whole::Readers;
use crate::cli::whole::Whole;
use crate::live::http::Page;
use crate::live::http::Server;
use crate::plan::SessionKey;
use crate::report::METRICS_TYPE;
use crate::report::Metrics;
use crate::report::Report;
use crate::run::Engine;
use crate::run::Limits;
use crate::run::Task;
use crate::suite::Embedded;
use crate::verdict::HopVerdict;
use crate::verdict::judge;

/// Where it listens, unless it is said.
const LOOPBACK: &str = "127.0.0.1:9814";
/// The shortest interval: a run takes seconds, and hosts limit their ICMP errors.
const SHORTEST: Duration = Duration::from_secs(10);
const EXAMPLES: &str = "\
Examples:
  tunproof monitor path.toml
      http://127.0.0.1:9814/metrics for Prometheus, proven anew every minute
  tunproof monitor path.toml --listen 192.0.2.2:9814 --interval 5m
  tunproof monitor path.toml --textfile /var/lib/prometheus/node-exporter/tunproof.prom
      no port at all: node_exporter's textfile collector reads it

Probes are sent in the background, every --interval, and by nothing else: a scrape gets what the last run found,
and never sends a packet, whoever asks and how often. A run is what `tunproof verify` does, with its agents started
anew, at --rate packets a second; the next one begins at the interval, and never less than 3 s after the last one's
end. No run is ever beside another.

  /metrics       tunproof_path_proven, tunproof_hop_state, tunproof_finding, tunproof_agent_up, probes sent and
                 returned, round trips, when the last run was, how long it took, its exit status
  /-/healthy     200 as long as the monitor runs
  /              a page with these links

It serves whoever reaches the port, without TLS: listen on loopback, or behind what keeps others out. A unit for
systemd, alert rules and a dashboard for Grafana are in docs/monitoring, and in the Debian package in
/usr/share/doc/tunproof/monitoring.

Exit status: 0 ended by SIGTERM or Ctrl-C; 2 could not run, or cannot go on";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The path file
    #[arg(value_name = "PATH.toml")]
    path: PathBuf,
    /// Serve /metrics at this address and port; 127.0.0.1:9814, unless it is said or --textfile is
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Write the metrics to FILE after each run, whole or not at all; its name ends in `.prom`
    #[arg(long, value_name = "FILE", value_parser = textfile, value_hint = clap::ValueHint::FilePath)]
    textfile: Option<PathBuf>,
    /// How often a run begins, such as `5m`; 10 s at least
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = interval)]
    interval: Duration,
    /// Packets a second that one host sends at most. Unless it is said: 100 for each real server that it has to do
    /// with, 10000 in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    /// When to give a run up, such as `20s`
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Show every run's verdict, not changes alone, and what agents write to their stderr
    #[arg(short, long)]
    verbose: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < SHORTEST => Err("expected 10 s or more".to_owned()),
        interval => Ok(interval),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = "expected an address and a port, such as `127.0.0.1:9814` or `[::1]:9814`; names are not looked up, and \
                 `[::]:9814` is every address of this host";
    text.parse().map_err(|_| wrong.to_owned())
}

fn textfile(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension == "prom" => Ok(path),
        _ => Err("expected a name that ends in `.prom`: node_exporter reads no other".to_owned()),
    }
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let file = verify::path_file(&arguments.path)?;
    let mut plan = file.plan(SessionKey::new(rand::random()));
    plan.suites = Embedded::LVS_TUN.suites(&plan.paths);
    if plan.vantages.is_empty() {
        let path = arguments.path;
        return Err(Failure::NoVantage { path });
    }
    let vias = verify::vias(file);
    let textfile = arguments.textfile.as_deref();
    if let Some(file) = textfile {
        whole::check(file, Readers::All).map_err(|source| cannot_write(file, source))?;
    }
    let listen = match (arguments.listen, textfile) {
        (None, None) => Some(LOOPBACK.parse().expect("it is an address")),
        (listen, _) => listen,
    };
    let limits = Limits {
        rate: arguments.rate,
        timeout: arguments.timeout,
    };
    let mut settings = Settings::of_rounds(limits, arguments.verbose);
    settings.output.clone_from(&arguments.textfile);
    let mut metrics = Metrics::new(arguments.interval);
    let shown = Arc::new(Mutex::new(metrics.to_text()));
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Runtime)?;
    let server = listen.map(|address| begin(&runtime, address)).transpose()?;
    // Before there is another thread, and a port is answered at.
    let vantages = prove::reach(vias, &[], &settings)?;
    let stopped = attend(runtime, server, &shown)?;
    let mut said = String::new();
    let mut journal = Journal::default();
    loop {
        let began = Instant::now();
        let run = plan.clone();
        let (known, ending) =
            match prove::carry_out(run, &vantages, Task::Prove, &settings, &mut journal) {
                Err(Failure::Stopped) => break,
                known => known?,
            };
        ending
            .wait()
            .iter()
            .for_each(|missing| journal.miss(missing));
        let mut evidence = known.evidence;
        if evidence.is_cut_short() == Some(Engine::INTERRUPTED) {
            break;
        }
        let judgement = judge(&mut evidence);
        let ended = match journal.told.end_run() {
            [] => Ended::Judged(judgement.outcome()),
            _ => Ended::WithoutAnAgent,
        };
        metrics.add(&evidence, &judgement, known.timing, ended.status());
        let summary = summary(&Report::new(&evidence, &judgement, known.timing));
        if settings.verbose || summary != said {
            anstream::eprintln!("{summary}");
            said = summary;
        }
        let text = metrics.to_text();
        if let Some(file) = textfile {
            // It is as well written after the next run; its age is an alert.
            if let Err(source) = write(file, &text) {
                cannot_write(file, source).print();
            }
        }
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = text;
        if !vantages.can_start() {
            return Err(Failure::NoStarter);
        }
        let pause = arguments.interval.saturating_sub(began.elapsed());
        if stopped.recv_timeout(pause.max(prove::APART)) != Err(mpsc::RecvTimeoutError::Timeout) {
            break;
        }
        plan.session = SessionKey::new(rand::random());
    }
    Ok(Ended::Said)
}

/// Says what runs have to say but their verdicts.
#[derive(Default)]
struct Journal {
    told: Told,
}

impl Audience for Journal {
    fn begin(&mut self) {}

    fn look(&mut self, _: &Engine) -> Option<Duration> {
        None
    }

    fn miss(&mut self, missing: &Missing) {
        if self.told.is_news(missing) {
            missing.complain();
        }
    }

    fn note(&mut self, words: &str) {
        if self.told.is_new_note(words) {
            anstream::eprintln!("note: {words}");
        }
    }
}

/// Listens.
fn begin(runtime: &Runtime, address: SocketAddr) -> Result<Server, Failure> {
    let server = runtime.block_on(Server::listen(address));
    let server = server.map_err(|source| Failure::Listen { address, source })?;
    let address = server.address().map_err(Failure::Runtime)?;
    anstream::eprintln!("listening on http://{address}/metrics");
    Ok(server)
}

/// Serves, and watches for SIGTERM and Ctrl-C from now on; what comes when one does.
fn attend(
    runtime: Runtime,
    server: Option<Server>,
    shown: &Arc<Mutex<String>>,
) -> Result<Receiver<()>, Failure> {
    let signals = {
        let _within = runtime.enter();
        [SignalKind::terminate(), SignalKind::interrupt()].map(signal)
    };
    let [terminate, interrupt] = signals;
    let signals = [
        terminate.map_err(Failure::Runtime)?,
        interrupt.map_err(Failure::Runtime)?,
    ];
    let shown = Arc::clone(shown);
    let (stop, stopped) = mpsc::channel();
    thread::spawn(move || beside(&runtime, server, signals, shown, &stop));
    Ok(stopped)
}

/// Serves and watches, beside the runs.
fn beside(
    runtime: &Runtime,
    server: Option<Server>,
    signals: [Signal; 2],
    shown: Arc<Mutex<String>>,
    stop: &Sender<()>,
) {
    let [mut terminate, mut interrupt] = signals;
    runtime.block_on(async {
        if let Some(server) = server {
            let pages = move |path: &str| page(path, &shown);
            tokio::spawn(async move { server.serve(Arc::new(pages)).await });
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.send(()).is_err() {
                return;
            }
        }
    });
}

fn page(path: &str, shown: &Mutex<String>) -> Option<Page> {
    const HOME: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tunproof</title></head>\n\
        <body><h1>tunproof monitor</h1>\n<ul><li><a href=\"metrics\">metrics</a></li>\n\
        <li><a href=\"-/healthy\">health</a></li></ul></body></html>\n";
    let (kind, text) = match path {
        "/metrics" => {
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            (METRICS_TYPE, shown.clone())
        }
        "/-/healthy" => ("text/plain; charset=utf-8", "healthy\n".to_owned()),
        "/" => ("text/html; charset=utf-8", HOME.to_owned()),
        _ => return None,
    };
    Some(Page { kind, text })
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    // node_exporter is another user.
    let mut whole = Whole::begin(file, Readers::All)?;
    whole.add(text.as_bytes())?;
    whole.end()
}

fn cannot_write(path: &Path, source: io::Error) -> Failure {
    Failure::Write {
        what: format!("`{}`", path.display()),
        source,
    }
}

/// A line for each path, for the log: its verdict, the hops that are broken, and the findings' codes.
fn summary(report: &Report) -> String {
    let line = |path: &crate::report::PathReport| {
        let verdict = serde_json::to_value(path.verdict).unwrap_or_default();
        let verdict = verdict.as_str().unwrap_or_default().to_owned();
        let broken = path
            .hops
            .iter()
            .filter(|hop| hop.verdict == HopVerdict::Broken)
            .map(|hop| format!(" at {}", hop.id));
        let found = path
            .findings
            .iter()
            .map(|found| format!(" [{}]", found.code.id()));
        let words: String = broken.chain(found).collect();
        format!("{}: {verdict}{words}", path.realserver)
    };
    report.paths.iter().map(line).collect::<Vec<_>>().join("\n")
}
