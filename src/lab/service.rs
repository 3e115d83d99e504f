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
use crate::lab::topology::RIP;
use crate::live::netns::Namespace;

/// The fault that stops it.
pub(super) const STOPPED: &str = "service-not-listening";
/// The fault that binds it to the real server's own address.
pub(super) const ELSEWHERE: &str = "service-bound-elsewhere";
/// The fault that fills its queue.
pub(super) const FULL: &str = "service-silent";

/// How often it looks whether it is to stop or start.
const LOOK: Duration = Duration::from_millis(50);

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(2);

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 23\r\n\
     Connection: close\r\n\r\nhello from real server\n";

/// How the service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It says hello on every address.
    Serving,
    /// Nothing listens.
    Stopped,
    /// It listens on the real server's own address only.
    Elsewhere,
    /// It takes no more connections: its queue is full.
    Full,
}

impl Manner {
    fn of(faults: &Faults) -> Manner {
        match () {
            () if faults.has(STOPPED) => Manner::Stopped,
            () if faults.has(ELSEWHERE) => Manner::Elsewhere,
            () if faults.has(FULL) => Manner::Full,
            () => Manner::Serving,
        }
    }
}

/// What serves.
pub(super) struct Service {
    manner: Manner,
    listener: Option<TcpListener>,
    /// What fills the queue.
    _waiting: Option<TcpStream>,
}

/// Opens its listener.
pub(super) fn open(server: &Namespace) -> Result<Service, LabError> {
    server
        .run(|| listen(Manner::Serving))
        .map_err(|source| LabError::Socket {
            what: "the service on s",
            source,
        })
}

fn listen(manner: Manner) -> io::Result<Service> {
    let at = match manner {
        Manner::Stopped => None,
        Manner::Elsewhere => Some(RIP),
        Manner::Serving | Manner::Full => Some(Ipv4Addr::UNSPECIFIED),
    };
    let listener = at.map(|ip| TcpListener::bind((ip, PORT))).transpose()?;
    let mut waiting = None;
    if let Some(listener) = &listener {
        let socket = SockRef::from(listener);
        socket.set_read_timeout(Some(LOOK))?;
        if manner == Manner::Full {
            // A queue of length 0 takes one (`sk_acceptq_is_full` of `include/net/sock.h`).
            socket.listen(0)?;
            waiting = Some(TcpStream::connect((RIP, PORT))?);
        }
    }
    Ok(Service {
        manner,
        listener,
        _waiting: waiting,
    })
}

/// Serves for as long as the lab lives.
pub(super) fn run(server: &Namespace, service: Service, faults: &Faults) {
    let mut service = Some(service);
    loop {
        let wanted = Manner::of(faults);
        if service.as_ref().is_none_or(|now| now.manner != wanted) {
            // The port must be free before it is taken again.
            drop(service.take());
            service = server.run(move || listen(wanted)).ok();
        }
        let listener = service.as_ref().and_then(|now| now.listener.as_ref());
        match listener.filter(|_| wanted != Manner::Full) {
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

/// How the service in the namespace of thread `thread` of `process` is, by its socket in `/proc/net/tcp`.
pub(super) fn manner(process: u32, thread: u32) -> Option<Manner> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/net/tcp")).ok()?;
    let port = format!("{PORT:04X}");
    let listener = text.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (ip, own) = fields.get(1)?.split_once(':')?;
        // State 0A is LISTEN; its receive queue is what waits to be accepted.
        (own == port && fields.get(3) == Some(&"0A")).then(|| {
            (
                ip.to_owned(),
                fields
                    .get(4)
                    .is_some_and(|queues| !queues.ends_with(":00000000")),
            )
        })
    });
    Some(match listener {
        None => Manner::Stopped,
        Some((ip, _)) if ip != "00000000" => Manner::Elsewhere,
        Some((_, true)) => Manner::Full,
        Some((_, false)) => Manner::Serving,
    })
}
