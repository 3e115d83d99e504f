//! What the benchmark's own processes do: the bare loops that everything is compared with, and tunproof's parts alone.

use std::io;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use socket2::SockFilter;
use tunproof::craft::FleetCraft;
use tunproof::live::burst::Burst;
use tunproof::live::ring::Ring;

use crate::fleet;
use crate::fleet::Asked;
use crate::many;
use crate::responder;
use crate::site;
use crate::sys;

/// Runs a role by its name.
pub(crate) fn main(arguments: &[String]) {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["respond"] => responder::main(),
        ["send-bare"] => send_bare(),
        ["send-burst"] => send_burst(false),
        ["send-burst", "xdp"] => send_burst(true),
        ["flood"] => flood(),
        ["enter", netns, program, agent] => many::enter(netns, program, agent),
        ["site", servers, path_file] => many::main(servers.parse().expect("a number"), path_file),
        ["sweep-bare", asked] => sweep_bare(Asked::from_name(asked), false),
        ["sweep-bare", asked, "closing"] => sweep_bare(Asked::from_name(asked), true),
        ["receive", how] => receive(how),
        _ => panic!("no such role: {words:?}"),
    }
}

fn send_all<F: AsRef<[u8]>>(socket: &socket2::Socket, frames: &[F]) {
    let mut rest = frames;
    while !rest.is_empty() {
        match sys::send_many(socket, rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => panic!("sendmmsg: {error}"),
        }
    }
}

/// The reference: the same 64 prebuilt frames again and again.
fn send_bare() {
    let frames = fleet::frames(Asked::ClosedLoop, sys::BATCH);
    let socket = sys::packet_socket(site::index("near"), 0).expect("an AF_PACKET socket");
    loop {
        send_all(&socket, &frames);
    }
}

/// Tunproof's crafting and sending without its bookkeeping: every packet another pair's.
fn send_burst(by_xdp: bool) {
    let fleet = Asked::ClosedLoop.fleet();
    let craft = FleetCraft::new(&fleet, fleet::key());
    let mut burst = Burst::open(&fleet, by_xdp).expect("a director");
    let probe = Asked::ClosedLoop.probe();
    let (mut pairs, mut realservers) = (Vec::new(), Vec::new());
    for number in (0..fleet.pairs()).cycle() {
        let pair = fleet.pair(number).expect("there are as many");
        pairs.push(pair);
        realservers.push(pair.rip);
        if pairs.len() == sys::BATCH {
            let craft = |number: usize, room: &mut _| craft.probe_into(room, probe, &pairs[number]);
            burst
                .send(&realservers, craft, |_, errno| panic!("errno {errno}"))
                .expect("a device");
            pairs.clear();
            realservers.clear();
        }
    }
}

/// The client's RSTs, from `far`, as fast as they go; to another hardware address, so that the kernel, once its packet
/// sockets have them, is done with them.
fn flood() {
    let mut frame = responder::sample(Asked::ClosedLoop);
    frame[..6].copy_from_slice(&site::GATEWAY_MAC);
    let frames = vec![frame; sys::BATCH];
    let socket = sys::packet_socket(site::index("far"), 0).expect("an AF_PACKET socket");
    loop {
        send_all(&socket, &frames);
    }
}

/// A whole sweep by bare system calls: prebuilt frames, each another pair's, behind each batch the RSTs that close what it
/// opened, if that is wanted, and a ring that only counts answers. Prints how many came and how many were dropped.
fn sweep_bare(asked: Asked, closes: bool) {
    let frames = fleet::frames(asked, fleet::PAIRS);
    let closings = match closes {
        true => fleet::closings(fleet::PAIRS),
        false => Vec::new(),
    };
    let near = site::index("near");
    let socket = sys::packet_socket(near, 0).expect("an AF_PACKET socket");
    let mut ring = sys::Ring::open(near, 8).expect("an AF_PACKET ring");
    let (answers, dropped) = thread::scope(|scope| {
        let ears = scope.spawn(|| {
            let mut answers = 0;
            let mut heard = Instant::now();
            while answers < fleet::PAIRS && heard.elapsed() < Duration::from_secs(2) {
                if ring.read(100, |_, _| answers += 1) {
                    heard = Instant::now();
                }
            }
            (
                answers,
                sys::dropped(&ring.socket).expect("PACKET_STATISTICS"),
            )
        });
        let mut closings = closings.chunks(sys::BATCH);
        for batch in frames.chunks(sys::BATCH) {
            send_all(&socket, batch);
            send_all(&socket, closings.next().unwrap_or_default());
        }
        ears.join().expect("it does not panic")
    });
    println!("{answers} {dropped}");
}

/// Receives what [`flood`] sends for a second; prints how many came and how many were dropped.
fn receive(how: &str) {
    let near = site::index("near");
    let until = Instant::now() + Duration::from_secs(1);
    let is_over = || Instant::now() > until;
    let mut received = 0u64;
    let dropped = match how {
        "tunproof" => {
            let fleet = Asked::ClosedLoop.fleet();
            let mut ring = Ring::open(&fleet, 10_000_000).expect("a ring");
            while !is_over() {
                let each = |_: &[u8], _| received += 1;
                ring.read(Duration::from_millis(100), each).expect("a ring");
            }
            ring.lost().expect("PACKET_STATISTICS")
        }
        "ring" => {
            let mut ring = sys::Ring::open(near, 8).expect("an AF_PACKET ring");
            while !is_over() {
                ring.read(100, |_, _| received += 1);
            }
            sys::dropped(&ring.socket).expect("PACKET_STATISTICS")
        }
        "recv" | "recvmmsg" => {
            let socket = listening(near).expect("an AF_PACKET socket");
            let mut frames = [[0; 256]; sys::BATCH];
            while !is_over() {
                received += match how {
                    "recv" => io::Read::read(&mut &socket, &mut frames[0]).map(|_| 1),
                    _ => sys::receive_many(&socket, &mut frames).map(|count| count as u64),
                }
                .unwrap_or(0);
            }
            sys::dropped(&socket).expect("PACKET_STATISTICS")
        }
        _ => panic!("no such way: {how}"),
    };
    println!("{received} {dropped}");
}

/// A socket with room for 8 MiB and a filter that keeps TCP.
fn listening(device: u32) -> io::Result<socket2::Socket> {
    let socket = sys::packet_socket(device, libc::ETH_P_IP as u16)?;
    let force = nix::sys::socket::sockopt::RcvBufForce;
    nix::sys::socket::setsockopt(&socket, force, &(8 << 20))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    // ldb [23]; jeq #6, accept, reject
    socket.attach_filter(&[
        SockFilter::new(0x30, 0, 0, 23),
        SockFilter::new(0x15, 0, 1, 6),
        SockFilter::new(0x06, 0, 0, 256),
        SockFilter::new(0x06, 0, 0, 0),
    ])?;
    Ok(socket)
}
