//! The service on the real server: a listener that says hello in HTTP.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::lab::LabError;
use crate::lab::state::Faults;
use crate::lab::topology::PORT;
use crate::live::netns::Namespace;

/// The fault that stops it.
pub(super) const STOPPED: &str = "service-not-listening";

/// How often it looks whether it is to stop or start.
const LOOK: Duration = Duration::from_millis(50);

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(2);

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 23\r\n\
     Connection: close\r\n\r\nhello from real server\n";

/// Opens its listener.
pub(super) fn open(server: &Namespace) -> Result<TcpListener, LabError> {
    server.run(listen).map_err(|source| LabError::Socket {
        what: "the service on s",
        source,
    })
}

fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    SockRef::from(&listener).set_read_timeout(Some(LOOK))?;
    Ok(listener)
}

/// Serves for as long as the lab lives.
pub(super) fn run(server: &Namespace, listener: TcpListener, faults: &Faults) {
    let mut listener = Some(listener);
    loop {
        if faults.has(STOPPED) {
            listener = None;
        } else if listener.is_none() {
            listener = server.run(listen).ok();
        }
        match &listener {
            Some(listener) => {
                if let Ok((stream, _)) = listener.accept() {
                    thread::spawn(move || answer(stream));
                }
            }
            None => thread::sleep(LOOK),
        }
    }
}

/// The client gets its answer, or is gone.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let _ = stream.read(&mut [0; 4096])?;
    stream.write_all(ANSWER.as_bytes())
}

/// Whether somebody listens on the service's port in the namespace of thread `thread` of `process`.
pub(super) fn is_listening(process: u32, thread: u32) -> bool {
    let path = format!("/proc/{process}/task/{thread}/net/tcp");
    let wanted = format!(":{PORT:04X} 00000000:0000 0A");
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(&wanted))
}
