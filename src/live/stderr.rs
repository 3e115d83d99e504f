//! What agents, and the commands that they are started through, write to stderr.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

/// Makes a line from another host safe for a terminal.
pub type Relay = fn(&str) -> String;

/// How much of a stderr is kept, in octets.
const KEPT: usize = 4096;

/// Keeps the last of a stderr, and passes its lines on.
pub(crate) async fn listen(
    mut stderr: pipe::Receiver,
    kept: Arc<Mutex<VecDeque<u8>>>,
    relay: Option<Relay>,
) {
    let mut buffer = [0; 1024];
    let mut line = Vec::new();
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let bytes = &buffer[..length];
        {
            let mut kept = kept.lock().expect("no holder panics");
            kept.extend(bytes);
            let surplus = kept.len().saturating_sub(KEPT);
            kept.drain(..surplus);
        }
        let Some(relay) = relay else {
            continue;
        };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend(part);
            if part.ends_with(b"\n") || line.len() > KEPT {
                pass_on(&mut line, relay).await;
            }
        }
    }
    if let Some(relay) = relay.filter(|_| !line.is_empty()) {
        pass_on(&mut line, relay).await;
    }
}

async fn pass_on(line: &mut Vec<u8>, relay: Relay) {
    let shown = relay(String::from_utf8_lossy(line).trim_end()) + "\n";
    line.clear();
    // Nobody reads our stderr: that is no reason to stop.
    let mut stderr = tokio::io::stderr();
    let _ = stderr.write_all(shown.as_bytes()).await;
    let _ = stderr.flush().await;
}
