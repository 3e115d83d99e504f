//! `tunproof agent`: serves one controller over stdin and stdout.

use std::io::Write;
use std::process::ExitCode;

use crate::live::host;
use crate::live::janitor;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Clean up after an agent that was killed
    #[arg(long, hide = true)]
    janitor: bool,
}

/// Serves until the pipe ends.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let result = match arguments.janitor {
        true => janitor::run().map_err(|error| error.to_string()),
        false => serve(),
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

fn serve() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    let result = runtime
        .block_on(host::serve(tokio::io::stdin(), tokio::io::stdout()))
        .map_err(|error| error.to_string());
    // A read from stdin cannot be called off; the process's end does that.
    runtime.shutdown_background();
    result
}
