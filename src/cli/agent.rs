//! `tunproof agent`: serves one controller over stdin and stdout.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe::Receiver;
use tokio::net::unix::pipe::Sender;

use crate::live::host;
use crate::live::host::Opened;
use crate::live::janitor::Janitor;
use crate::live::log::Log;
use crate::live::log::Record;
use crate::live::send;
use crate::live::starter;
use crate::plan::Policy;
use crate::suite::policy;

const POLICY: &str = r#"The policy, a TOML file; what it does not name, every request may:
  vips = ["192.0.2.0/24"]            addresses and prefixes that may be VIPs
  realservers = ["203.0.113.0/24"]   the same of real servers, clients, directors
  clients = ["198.51.100.7"]
  directors = ["192.0.2.2"]
  probes = ["service", "tunnel"]     families of packets: service, tunnel, reflect, open-tunnel, spoof, control,
                                     arp, script
  rate = 20                          packets a second in all; 100 for each real server, unless it is said
  forget-neighbours = false          whether neighbour entries may be deleted, which are put back
Without it: only addresses of the controller's path file, 100 packets a second for each real server there, 10000 in
all. The controller cannot raise it.

By ssh, for nothing else, in ~/.ssh/authorized_keys:
  command="/usr/local/bin/tunproof agent",restrict ssh-ed25519 AAAA…

Rights: root, or once `setcap cap_net_raw,cap_net_admin+ep /usr/local/bin/tunproof`. It opens its sockets, then gives
every right up; a process of its own keeps those to read IPVS and the firewall's rules and to put things back. Each
request leaves a line in syslog.

Exit status: 0 told to finish; 2 anything else"#;

#[derive(clap::Args)]
#[command(after_help = POLICY)]
pub(super) struct Arguments {
    /// What this host lets the controller do
    #[arg(long, value_name = "FILE", default_value = Policy::FILE)]
    policy: PathBuf,
    /// Start agents for a controller
    #[arg(long, hide = true)]
    starter: bool,
}

/// Serves until the pipe ends.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let result = match arguments.starter {
        true => starter::run().map_err(|error| error.to_string()),
        false => serve(&arguments.policy),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With the controller, the reader of stderr may be gone, too.
            let _ = writeln!(std::io::stderr(), "tunproof agent: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve(file: &Path) -> Result<(), String> {
    let log = Log::open();
    let policy = read(file).inspect_err(|error| log.say(&format!("nothing is served: {error}")))?;
    host::greet().map_err(|error| format!("say hello: {error}"))?;
    // Before anything is open whose end is waited for.
    let sending = send::Sender::open().map(|sender| {
        let janitor = Janitor::call(&sender);
        (sender, janitor)
    });
    let pipes = Pipes::open();
    let opened = Opened::now(sending);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    let mut record = Record::default();
    let served = async {
        let (stdin, stdout) = pipes.register();
        host::serve(opened, policy, &mut record, stdin, stdout).await
    };
    let result = runtime.block_on(served).map_err(|error| error.to_string());
    log.say(&record.line(result.as_ref().err().map_or("finished", String::as_str)));
    // A read from stdin that is no pipe cannot be called off; the process's end does that.
    runtime.shutdown_background();
    result
}

/// Stdin and stdout where they are pipes, opened once more: what is read and written without a thread is not to block,
/// and what others share of them stays as it is.
struct Pipes {
    stdin: Option<File>,
    stdout: Option<File>,
}

impl Pipes {
    fn open() -> Pipes {
        // What is none (ssh's socket, a terminal), or may not be opened anew (another user's), does as it is.
        let open = |name, how: &mut OpenOptions| {
            let is_pipe = fs::metadata(name).is_ok_and(|known| known.file_type().is_fifo());
            is_pipe.then(|| how.custom_flags(libc::O_NONBLOCK).open(name).ok())?
        };
        Pipes {
            stdin: open("/proc/self/fd/0", File::options().read(true)),
            stdout: open("/proc/self/fd/1", File::options().write(true)),
        }
    }

    /// As the runtime reads and writes them.
    fn register(
        self,
    ) -> (
        Box<dyn AsyncRead + Unpin>,
        Box<dyn AsyncWrite + Send + Unpin>,
    ) {
        let stdin = self.stdin.and_then(|file| Receiver::from_file(file).ok());
        let stdout = self.stdout.and_then(|file| Sender::from_file(file).ok());
        (
            match stdin {
                Some(pipe) => Box::new(pipe),
                None => Box::new(tokio::io::stdin()),
            },
            match stdout {
                Some(pipe) => Box::new(pipe),
                None => Box::new(tokio::io::stdout()),
            },
        )
    }
}

/// The policy; the usual one where there is no such file and none was asked for.
fn read(file: &Path) -> Result<Policy, String> {
    let shown = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => policy(&shown, &text).map_err(|problems| problems.to_string()),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && shown == Policy::FILE
                // A link that leads nowhere was meant to lead to one.
                && fs::symlink_metadata(file).is_err() =>
        {
            Ok(Policy::default())
        }
        Err(error) => Err(format!("cannot read the policy `{shown}`: {error}")),
    }
}
