//! The tap: one AF_PACKET socket that sees the paths' packets on every device of this host.

use std::collections::HashMap;
use std::io;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::LinkAddr;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recvmsg;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use nix::sys::time::TimeSpec;
use socket2::Domain;
use socket2::SockFilter;
use socket2::Socket;
use socket2::Type;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::exchange::TapSpec;
use crate::exchange::TapStatistics;
use crate::exchange::Wall;
use crate::live::clock;
use crate::live::filter;
use crate::live::sys;

/// Room for the packets that arrive while the agent is busy, in octets.
const BUFFER: usize = 16 << 20;

/// The longest packet that is kept whole.
const SNAP_LENGTH: usize = 1 << 16;

/// An open tap. It sees from the moment [`Tap::open`] returns.
#[derive(Debug)]
pub struct Tap {
    socket: AsyncFd<Socket>,
    reader: Reader,
    statistics: TapStatistics,
}

/// What reading takes.
#[derive(Debug)]
struct Reader {
    buffer: Vec<u8>,
    devices: HashMap<u32, String>,
    /// How many packets were read.
    read: u64,
}

/// Why a tap does not open or does not see any more.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct TapError {
    /// What was tried.
    pub operation: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl Tap {
    /// Opens a tap on every device of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// Those of [`Tap::socket`] and [`Tap::listen`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn open(spec: &TapSpec) -> Result<Tap, TapError> {
        Tap::listen(Tap::socket()?, spec)
    }

    /// A socket for a tap of the calling thread's network namespace, which hears nothing yet.
    ///
    /// # Errors
    ///
    /// [`TapError`]: mostly EPERM, without `CAP_NET_RAW`.
    pub fn socket() -> Result<Socket, TapError> {
        // Protocol 0: it receives nothing until it is bound.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)
            .map_err(during("open an AF_PACKET socket"))?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .map_err(|errno| during("set SO_TIMESTAMPNS")(errno.into()))?;
        // SO_RCVBUFFORCE needs CAP_NET_ADMIN; without it net.core.rmem_max is the limit.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            socket
                .set_recv_buffer_size(BUFFER)
                .map_err(during("set SO_RCVBUF"))?;
        }
        Ok(socket)
    }

    /// Hears with such a socket from now on, which takes no capability any more.
    ///
    /// The socket gets its filter before it is bound, so no other packet is ever queued.
    ///
    /// # Errors
    ///
    /// [`TapError`]: mostly if the paths are too many for one filter.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn listen(socket: Socket, spec: &TapSpec) -> Result<Tap, TapError> {
        let program: Vec<_> = filter::assemble(spec)
            .into_iter()
            .map(|i| SockFilter::new(i.code, i.if_true, i.if_false, i.k))
            .collect();
        if program.len() > filter::LIMIT {
            return Err(TapError {
                operation: "attach the packet filter",
                source: io::Error::other(format!(
                    "{} paths need {} instructions, and the kernel takes {}; prove them in several runs",
                    spec.paths.len(),
                    program.len(),
                    filter::LIMIT
                )),
            });
        }
        socket
            .attach_filter(&program)
            .map_err(during("attach the packet filter"))?;
        socket
            .bind(&sys::link_address(0, libc::ETH_P_ALL as u16))
            .map_err(during("bind the AF_PACKET socket"))?;
        Ok(Tap {
            socket: sys::register(socket).map_err(during("watch the AF_PACKET socket"))?,
            reader: Reader {
                buffer: vec![0; SNAP_LENGTH],
                devices: HashMap::new(),
                read: 0,
            },
            statistics: TapStatistics::default(),
        })
    }

    /// The next packet. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`TapError`], if the socket cannot be read.
    pub async fn receive(&mut self) -> Result<Capture, TapError> {
        let Tap { socket, reader, .. } = self;
        socket
            .async_io(Interest::READABLE, |socket| reader.read(socket))
            .await
            .map_err(during("read the AF_PACKET socket"))
    }

    /// The next packet, if one has arrived already.
    ///
    /// # Errors
    ///
    /// [`TapError`], if the socket cannot be read.
    pub fn try_receive(&mut self) -> Result<Option<Capture>, TapError> {
        match self.reader.read(self.socket.get_ref()) {
            Ok(capture) => Ok(Some(capture)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(during("read the AF_PACKET socket")(error)),
        }
    }

    /// How well the tap saw, up to now.
    ///
    /// # Errors
    ///
    /// [`TapError`], if the kernel does not say.
    pub fn statistics(&mut self) -> Result<TapStatistics, TapError> {
        // The kernel counts from zero again after each reading.
        let (received, dropped) = sys::packet_statistics(self.socket.get_ref())
            .map_err(during("read PACKET_STATISTICS"))?;
        self.statistics.received += u64::from(received);
        self.statistics.dropped += u64::from(dropped);
        Ok(self.statistics)
    }

    /// Whether packets are still to be read of those that the statistics count as received.
    pub(super) fn owes(&self, statistics: TapStatistics) -> bool {
        self.reader.read < statistics.received.saturating_sub(statistics.dropped)
    }
}

impl Reader {
    fn read(&mut self, socket: &Socket) -> io::Result<Capture> {
        loop {
            let mut control = cmsg_space!(libc::timespec);
            let mut buffers = [IoSliceMut::new(&mut self.buffer)];
            let received = recvmsg::<LinkAddr>(
                socket.as_raw_fd(),
                &mut buffers,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
            );
            let message = match received {
                Ok(message) => message,
                // A device went down (ENETDOWN): the socket goes on with the others.
                Err(Errno::EINTR | Errno::ENETDOWN) => continue,
                Err(errno) => return Err(errno.into()),
            };
            self.read += 1;
            let Some(link) = message.address else {
                continue;
            };
            let stamp = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::ScmTimestampns(time) => Some(nanoseconds(time)),
                    _ => None,
                })
            });
            let length = message.bytes;
            let kept = length.min(SNAP_LENGTH);
            return Ok(Capture {
                time: stamp.map_or_else(clock::steady, clock::steadied),
                device: self.device(link.ifindex() as u32),
                hardware: link.hatype(),
                direction: match link.pkttype() {
                    libc::PACKET_OUTGOING => Direction::Out,
                    _ => Direction::In,
                },
                protocol: u16::from_be(link.protocol()),
                link_source: link.addr().filter(|_| link.halen() == 6),
                bytes: self.buffer[..kept].to_vec(),
                original_length: length as u32,
            });
        }
    }

    fn device(&mut self, index: u32) -> String {
        self.devices
            .entry(index)
            .or_insert_with(|| {
                // A device that is gone already has lost its name.
                nix::net::if_::if_indextoname(index).map_or_else(
                    |_| format!("if{index}"),
                    |name| name.to_string_lossy().into_owned(),
                )
            })
            .clone()
    }
}

fn during(operation: &'static str) -> impl Fn(io::Error) -> TapError {
    move |source| TapError { operation, source }
}

fn nanoseconds(time: TimeSpec) -> Wall {
    Wall::from_nanos(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::exchange::SendOutcome;
    use crate::exchange::TapPath;
    use crate::exchange::Transmit;
    use crate::exchange::Way;
    use crate::live::send::Sender;
    use crate::live::testbed;

    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn paths(count: u32) -> TapSpec {
        let path = |n| TapPath {
            vip: VIP,
            cip: CIP,
            dip: None,
            rip: Ipv4Addr::from_bits(RIP.to_bits() + n),
            gateway: None,
        };
        TapSpec {
            paths: (0..count).map(path).collect(),
            rewritten: None,
            scripted: None,
        }
    }

    fn frame(ether_type: u16, packet: &[u8]) -> Transmit {
        let mut bytes = vec![0xff; 6];
        bytes.extend(MAC);
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(packet);
        Transmit {
            way: Way::Frame {
                device: "near".to_owned(),
            },
            bytes,
        }
    }

    fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
        packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    fn in_runtime(body: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(body);
    }

    async fn next(tap: &mut Tap) -> Capture {
        timeout(Duration::from_secs(5), tap.receive())
            .await
            .expect("a packet within 5 s")
            .unwrap()
    }

    fn send(sender: &Sender, transmit: &Transmit) {
        let outcome = sender.send(transmit);
        assert!(matches!(outcome, SendOutcome::Sent { .. }), "{outcome:?}");
    }

    /// Both ends of a veth pair in one namespace: each packet is seen leaving `near` and arriving at `far`.
    fn veth(mtu: u32) {
        testbed::ip(&format!(
            "link add near mtu {mtu} type veth peer name far mtu {mtu}\nlink set near up\nlink set far up\n"
        ));
        testbed::wait_until_passing(["near", "far"]);
    }

    #[test]
    fn exactly_the_paths_packets_are_seen_both_ways() {
        testbed::in_namespace(
            concat!(
                module_path!(),
                "::exactly_the_paths_packets_are_seen_both_ways"
            ),
            || {
                in_runtime(async {
                    veth(1500);
                    let sender = Sender::open().unwrap();
                    // Before the tap is open: never seen.
                    send(&sender, &frame(0x0800, &ipv4(CIP, VIP, 17, &[0; 8])));
                    let mut tap = Tap::open(&paths(300)).unwrap();
                    let inner = ipv4(CIP, VIP, 17, &[1; 8]);
                    let arp: Vec<u8> = [
                        &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1][..],
                        &RIP.octets(),
                        &[0; 6],
                        &VIP.octets(),
                    ]
                    .concat();
                    let ours = [
                        (0x0800, ipv4(CIP, VIP, 6, &[2; 20])),
                        (0x0800, ipv4(CIP, RIP, 4, &inner)),
                        (0x0800, ipv4(Ipv4Addr::new(9, 9, 9, 9), RIP, 4, &inner)),
                        (0x0800, ipv4(Ipv4Addr::new(9, 9, 9, 9), CIP, 1, &[11; 36])),
                        (0x0806, arp),
                    ];
                    let strange = [
                        (0x0800, ipv4(Ipv4Addr::new(9, 9, 9, 9), VIP, 6, &[2; 20])),
                        (0x0800, ipv4(CIP, Ipv4Addr::new(9, 9, 9, 9), 4, &[0; 40])),
                        (0x86dd, vec![0x60; 40]),
                    ];
                    let before = clock::wall();
                    for (ether_type, packet) in strange.iter().chain(&ours).chain(&strange) {
                        send(&sender, &frame(*ether_type, packet));
                    }
                    for (ether_type, packet) in &ours {
                        for (device, direction) in
                            [("near", Direction::Out), ("far", Direction::In)]
                        {
                            let seen = next(&mut tap).await;
                            assert!(before <= seen.time && seen.time <= clock::wall());
                            let expected = Capture {
                                time: seen.time,
                                device: device.to_owned(),
                                hardware: 1,
                                direction,
                                protocol: *ether_type,
                                link_source: Some(MAC),
                                bytes: packet.clone(),
                                original_length: packet.len() as u32,
                            };
                            assert_eq!(seen, expected);
                        }
                    }
                    assert_eq!(tap.try_receive().unwrap(), None);
                    let expected = TapStatistics {
                        received: 10,
                        dropped: 0,
                    };
                    assert_eq!(tap.statistics().unwrap(), expected);
                });
            },
        );
    }

    #[test]
    fn what_is_lost_is_counted() {
        testbed::in_namespace(concat!(module_path!(), "::what_is_lost_is_counted"), || {
            in_runtime(async {
                veth(65535);
                let sender = Sender::open().unwrap();
                let mut tap = Tap::open(&paths(1)).unwrap();
                let packet = frame(0x0800, &ipv4(CIP, VIP, 17, &[7; 65000]));
                for _ in 0..600 {
                    send(&sender, &packet);
                }
                let first = tap.statistics().unwrap();
                assert_eq!(first.received, 1200);
                assert!(first.dropped > 0, "{first:?}");
                let mut seen = 0;
                while let Some(capture) = tap.try_receive().unwrap() {
                    assert_eq!(capture.bytes.len(), 65020);
                    seen += 1;
                }
                assert_eq!(seen, first.received - first.dropped);
                send(&sender, &packet);
                next(&mut tap).await;
                next(&mut tap).await;
                let expected = TapStatistics {
                    received: first.received + 2,
                    dropped: first.dropped,
                };
                assert_eq!(tap.statistics().unwrap(), expected);
            });
        });
    }

    #[test]
    fn too_many_paths_are_refused_with_a_way_out() {
        in_runtime(async {
            let error = Tap::open(&paths(2000)).unwrap_err().to_string();
            assert!(
                error.starts_with("attach the packet filter: 2000 paths need")
                    && error.ends_with("prove them in several runs"),
                "{error}"
            );
        });
    }
}
