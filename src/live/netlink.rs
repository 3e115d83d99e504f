//! One netlink conversation: a request, its answers, its errors.
//!
//! It knows nothing of what is asked. A conversation belongs to the network namespace of the thread that
//! opened it. It blocks, for as long as the kernel needs to answer: microseconds, for all we ask.
//!
//! Not rtnetlink's connection: that one drops a message it cannot decode and goes on, and a device must not
//! go missing from the facts because a new kernel gave it a new attribute.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_packet_core::DecodeError;
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_core::NLM_F_DUMP_INTR;
use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_core::NetlinkDeserializable;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_core::NetlinkSerializable;
use netlink_sys::Socket;
use socket2::SockRef;

/// The kernel answers at once; this long without an answer is a fault.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Room for one datagram of answers; the kernel fills at most 32 KiB of it, or one message if that is larger.
const ROOM: usize = 128 * 1024;

/// How often a dump is begun anew because what it lists changed meanwhile.
const ATTEMPTS: u32 = 4;

/// A conversation with one netlink protocol.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// What the kernel answered.
pub(super) struct Answer<T> {
    /// The messages.
    pub(super) messages: Vec<T>,
    /// Why those that are missing from `messages` could not be decoded.
    pub(super) undecoded: Vec<DecodeError>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call failed.
    #[error("cannot {operation} a netlink socket")]
    Socket {
        /// What was tried: `open`, `send to`, `receive from`.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("the kernel refused it")]
    Refused(#[source] io::Error),
    /// The answer was longer than any answer should be.
    #[error("the kernel's answer of {length} octets was cut off at {ROOM}")]
    CutOff {
        /// Its length.
        length: usize,
    },
    /// The answer was no netlink message.
    #[error("the kernel's answer cannot be read: {0}")]
    Unreadable(String),
    /// What was listed changed whenever it was listed.
    #[error("the list changed each of {ATTEMPTS} times it was read")]
    Changing,
}

impl NetlinkError {
    /// The error number the kernel refused the request with, if it did.
    pub fn refusal(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

impl Netlink {
    /// Opens a conversation with `protocol`, a `NETLINK_*`, in the calling thread's network namespace.
    pub(super) fn open(protocol: isize) -> Result<Netlink, NetlinkError> {
        let open = || {
            let socket = Socket::new(protocol)?;
            SockRef::from(&socket.as_fd()).set_read_timeout(Some(TIME_LIMIT))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError::Socket {
            operation: "open",
            source,
        })?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Asks for one thing, or has one thing done; `flags` are the `NLM_F_*` that say how it is to be done.
    pub(super) fn request<T>(&mut self, message: T, flags: u16) -> Result<Answer<T>, NetlinkError>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        Ok(self.receive()?.0)
    }

    /// Asks for a list.
    pub(super) fn dump<T>(&mut self, message: T) -> Result<Answer<T>, NetlinkError>
    where
        T: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        for _ in 0..ATTEMPTS {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let (answer, interrupted) = self.receive()?;
            if !interrupted {
                return Ok(answer);
            }
        }
        Err(NetlinkError::Changing)
    }

    fn send<T: NetlinkSerializable>(&mut self, message: T, flags: u16) -> Result<(), NetlinkError> {
        self.sequence += 1;
        let mut message =
            NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(message));
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        match self.socket.send(&buffer, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(NetlinkError::Socket {
                operation: "send to",
                source,
            }),
        }
    }

    /// The answers up to the end of the list or to the acknowledgement, and whether the list changed meanwhile.
    fn receive<T: NetlinkDeserializable>(&mut self) -> Result<(Answer<T>, bool), NetlinkError> {
        let mut answer = Answer {
            messages: Vec::new(),
            undecoded: Vec::new(),
        };
        let mut interrupted = false;
        let mut buffer = Vec::with_capacity(ROOM);
        loop {
            buffer.clear();
            let (length, sender) = self
                .socket
                .recv_from(&mut buffer, libc::MSG_TRUNC)
                .map_err(|source| NetlinkError::Socket {
                    operation: "receive from",
                    source,
                })?;
            if sender.port_number() != 0 {
                continue;
            }
            if length > buffer.len() {
                return Err(NetlinkError::CutOff { length });
            }
            for message in split(&buffer) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match NetlinkMessage::<T>::deserialize(message.octets) {
                    Ok(message) => match message.payload {
                        NetlinkPayload::InnerMessage(message) => answer.messages.push(message),
                        NetlinkPayload::Done(done) if done.code < 0 => {
                            return Err(refused(done.code));
                        }
                        NetlinkPayload::Error(error) if error.raw_code() != 0 => {
                            return Err(refused(error.raw_code()));
                        }
                        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => {
                            return Ok((answer, interrupted));
                        }
                        _ => {}
                    },
                    Err(error) => answer.undecoded.push(error),
                }
            }
        }
    }
}

/// One message of a datagram.
struct Framed<'a> {
    flags: u16,
    sequence: u32,
    octets: &'a [u8],
}

/// The messages of a datagram: `struct nlmsghdr` (length, type, flags, sequence, port) and what follows it,
/// each begun at a multiple of four octets.
fn split(datagram: &[u8]) -> impl Iterator<Item = Result<Framed<'_>, NetlinkError>> {
    const HEADER: usize = 16;
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match rest.first_chunk::<HEADER>() {
            Some(header) => {
                u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize
            }
            None => 0,
        };
        if length < HEADER || length > rest.len() {
            let told = format!("a length of {length} in {} octets", rest.len());
            rest = &[];
            return Some(Err(NetlinkError::Unreadable(told)));
        }
        let octets = &rest[..length];
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some(Ok(Framed {
            flags: u16::from_ne_bytes([octets[6], octets[7]]),
            sequence: u32::from_ne_bytes([octets[8], octets[9], octets[10], octets[11]]),
            octets,
        }))
    })
}

fn refused(code: i32) -> NetlinkError {
    NetlinkError::Refused(io::Error::from_raw_os_error(-code))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::address::AddressAttribute;
    use netlink_packet_route::address::AddressMessage;
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::live::testbed;

    #[test]
    fn a_list_that_changes_is_read_whole_or_refused() {
        testbed::in_namespace(
            concat!(
                module_path!(),
                "::a_list_that_changes_is_read_whole_or_refused"
            ),
            || {
                const STAY: usize = 2000;
                testbed::ip(
                    "link add eth0 type veth peer name eth1
                     link set eth0 up
                     link set eth1 up",
                );
                let line = |verb: &str, number: usize, device: &str, net: u8| {
                    let (high, low) = (number / 250, number % 250 + 1);
                    format!("address {verb} 10.{net}.{high}.{low}/32 dev {device}\n")
                };
                let stay: String = (0..STAY).map(|n| line("add", n, "eth0", 1)).collect();
                testbed::ip(&stay);
                // Others come and go, before and behind them.
                let comes_and_goes: String = (0..4000)
                    .flat_map(|n| {
                        let device = ["lo", "eth1"][n % 2];
                        ["add", "del"].map(|verb| line(verb, n % 1000, device, 2))
                    })
                    .collect();
                let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
                let churn = std::thread::spawn(move || {
                    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    testbed::ip(&comes_and_goes);
                });
                let mut ask = AddressMessage::default();
                ask.header.family = AddressFamily::Inet;
                let ask = RouteNetlinkMessage::GetAddress(ask);
                let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
                let (mut torn, mut whole) = (0, 0);
                while !churn.is_finished() {
                    netlink
                        .send(ask.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                        .unwrap();
                    let (_, interrupted) = netlink.receive::<RouteNetlinkMessage>().unwrap();
                    torn += usize::from(interrupted);
                    match netlink.dump(ask.clone()) {
                        Ok(answer) => {
                            let stay = answer.messages.iter().filter(|message| {
                                let RouteNetlinkMessage::NewAddress(message) = message else {
                                    return false;
                                };
                                message.attributes.iter().any(|attribute| {
                                    matches!(attribute, AddressAttribute::Local(IpAddr::V4(ip))
                                        if ip.octets()[..2] == [10, 1])
                                })
                            });
                            assert_eq!(stay.count(), STAY, "a list that looks whole is");
                            assert_eq!(answer.undecoded.len(), 0);
                            whole += 1;
                        }
                        Err(NetlinkError::Changing) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                churn.join().unwrap();
                assert!(
                    torn > 0,
                    "no list changed while it was read, {whole} were whole"
                );
                assert!(netlink.dump(ask).is_ok(), "once nothing changes any more");
            },
        );
    }

    fn message(length: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut octets = length.to_ne_bytes().to_vec();
        octets.extend(16u16.to_ne_bytes());
        octets.extend(2u16.to_ne_bytes());
        octets.extend(sequence.to_ne_bytes());
        octets.extend([0; 4]);
        octets.extend(body);
        octets
    }

    #[test]
    fn a_datagram_is_split_at_multiples_of_four_octets() {
        let mut datagram = message(17, 5, &[1, 0, 0, 0]);
        datagram.extend(message(18, 6, &[2, 3]));
        let found: Vec<_> = split(&datagram)
            .map(|message| message.unwrap())
            .map(|message| (message.flags, message.sequence, message.octets.len()))
            .collect();
        assert_eq!(found, [(2, 5, 17), (2, 6, 18)]);
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error_and_the_end() {
        for datagram in [
            message(15, 5, &[]),
            message(21, 5, &[0; 4]),
            message(0, 5, &[]),
            vec![7; 5],
        ] {
            let found: Vec<_> = split(&datagram).collect();
            assert_eq!(found.len(), 1, "{datagram:?}");
            assert!(matches!(found[0], Err(NetlinkError::Unreadable(_))));
        }
    }
}
