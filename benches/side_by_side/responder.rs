//! Stands for a whole fleet, its clients and other hosts: answers from `far` whatever asks, as fast as it can.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::fleet;
use crate::process::role;
use crate::process::words;
use crate::site;
use crate::sys;

/// Octets of an Ethernet header, and with it of the headers before a tunnelled probe's own.
const ETHERNET: usize = 14;
const TUNNEL: usize = ETHERNET + 20;

/// What the responder has seen and done since it was last asked: times in nanoseconds of the wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) probes: u64,
    pub(crate) answers: u64,
    pub(crate) dropped: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Answered {
    fn to_line(self) -> String {
        let Answered {
            probes,
            answers,
            dropped,
            first,
            last,
        } = self;
        format!("{probes} {answers} {dropped} {first} {last}")
    }

    pub(crate) fn from_line(line: &str) -> Answered {
        let mut numbers = line
            .split_whitespace()
            .map(|word| word.parse().unwrap_or(0));
        let mut next = || numbers.next().expect("five numbers");
        Answered {
            probes: next(),
            answers: next(),
            dropped: next(),
            first: next(),
            last: next(),
        }
    }

    /// From the first probe's arrival to the last answer's departure.
    pub(crate) fn took(self) -> Duration {
        Duration::from_nanos(self.last.saturating_sub(self.first))
    }
}

/// The process that answers.
pub(crate) struct Responder {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Responder {
    /// Starts it in the namespace of this process, which has `far`.
    pub(crate) fn start(far: &Child) -> Responder {
        let respond = role("respond", &[]);
        let mut command = words(&format!("nsenter --target {} --net", far.id()));
        command.arg(respond.get_program()).args(respond.get_args());
        let mut child = sys::die_with_starter(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let output = child.stdout.take().expect("it is piped");
        let mut responder = Responder {
            child,
            output: BufReader::new(output),
        };
        responder.line();
        responder
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let octets = self
            .output
            .read_line(&mut line)
            .expect("the responder lives");
        assert!(octets > 0, "the responder has ended");
        line
    }

    /// What it answered since it was last asked.
    pub(crate) fn ask(&mut self) -> Answered {
        let input = self.child.stdin.as_mut().expect("it is piped");
        input.write_all(b"\n").expect("the responder lives");
        Answered::from_line(&self.line())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // It may have ended itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers until the process ends; for each line on stdin it says what was answered since the line before.
pub(crate) fn main() {
    let far = site::index("far");
    let mut ring = sys::Ring::open(far, 1).expect("an AF_PACKET ring");
    let sender = sys::packet_socket(far, 0).expect("an AF_PACKET socket");
    let answered = Arc::new(Mutex::new(Answered::default()));
    let counts = Arc::clone(&answered);
    std::thread::spawn(move || {
        let mut line = String::new();
        println!("ready");
        while io::stdin()
            .read_line(&mut line)
            .is_ok_and(|octets| octets > 0)
        {
            let counted = std::mem::take(&mut *counts.lock().expect("nobody panics"));
            println!("{}", counted.to_line());
        }
        std::process::exit(0);
    });
    let mut answers: Vec<Frame> = Vec::new();
    loop {
        let (mut probes, mut first) = (0, 0);
        answers.clear();
        ring.read(100, |frame, time| {
            if let Some(answer) = Frame::answer(frame) {
                answers.push(answer);
                first = if probes == 0 { time } else { first };
                probes += 1;
            }
        });
        let mut rest = &answers[..];
        while !rest.is_empty() {
            match sys::send_many(&sender, rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}"),
            }
        }
        let mut counts = answered.lock().expect("nobody panics");
        counts.dropped += sys::dropped(&ring.socket).expect("PACKET_STATISTICS");
        if probes > 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            counts.first = if counts.probes == 0 {
                first
            } else {
                counts.first
            };
            counts.last = now.expect("after 1970").as_nanos() as u64;
            counts.probes += probes;
            counts.answers += answers.len() as u64;
        }
    }
}

/// An answer, without allocation.
struct Frame {
    octets: [u8; 110],
    length: usize,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

impl Frame {
    /// What a frame that arrives at `far` is answered: one in IPIP as the real server, or the client, does it, any other
    /// as its target does. An RST is answered by nobody.
    pub(crate) fn answer(frame: &[u8]) -> Option<Frame> {
        if frame.len() < TUNNEL || frame[12..14] != [8, 0] {
            return None;
        }
        let asked = match frame[ETHERNET + 9] {
            4 => frame.get(TUNNEL..)?,
            _ => &frame[ETHERNET..],
        };
        if asked.len() < 28 || asked[0] != 0x45 {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([asked[2], asked[3]]));
        let asked = asked.get(..length)?;
        let is_clients = asked[12..16] == [198, 51, 100, 7];
        match (asked[9], asked.get(33)) {
            (17, _) => Some(Frame::port_unreachable(asked)),
            (6, Some(2)) if is_clients => Some(Frame::segment(asked, true)),
            (6, Some(2)) => Some(Frame::segment(asked, false)),
            _ => None,
        }
    }

    fn new(length: usize, protocol: u8, from: &[u8], to: &[u8]) -> Frame {
        let mut octets = [0; 110];
        octets[..6].copy_from_slice(&site::NEAR_MAC);
        octets[6..12].copy_from_slice(&site::GATEWAY_MAC);
        octets[12..14].copy_from_slice(&[8, 0]);
        octets[14..18].copy_from_slice(&[0x45, 0, 0, length as u8]);
        octets[22..24].copy_from_slice(&[62, protocol]);
        octets[26..30].copy_from_slice(from);
        octets[30..34].copy_from_slice(to);
        let checksum = checksum(&octets[14..34], 0);
        octets[24..26].copy_from_slice(&checksum);
        Frame {
            octets,
            length: ETHERNET + length,
        }
    }

    fn port_unreachable(asked: &[u8]) -> Frame {
        let quoted = &asked[..asked.len().min(60)];
        let mut frame = Frame::new(28 + quoted.len(), 1, &asked[16..20], &asked[12..16]);
        let icmp = &mut frame.octets[34..42 + quoted.len()];
        icmp[..2].copy_from_slice(&[3, 3]);
        icmp[8..].copy_from_slice(quoted);
        let checksum = checksum(icmp, 0);
        icmp[2..4].copy_from_slice(&checksum);
        frame
    }

    /// The client's RST to the VIP for the SYN-ACK that it never asked for, or the service's SYN-ACK.
    fn segment(asked: &[u8], is_reset: bool) -> Frame {
        let (from, to) = (&asked[12..16], &asked[16..20]);
        let number = u32::from_be_bytes([asked[24], asked[25], asked[26], asked[27]]);
        let next = number.wrapping_add(1).to_be_bytes();
        let mut frame = match is_reset {
            true => Frame::new(40, 6, from, to),
            false => Frame::new(40, 6, to, from),
        };
        let addresses: u32 = asked[12..20].chunks(2).map(half).sum();
        let tcp = &mut frame.octets[34..54];
        match is_reset {
            true => {
                tcp[..4].copy_from_slice(&asked[20..24]);
                tcp[4..8].copy_from_slice(&next);
                tcp[12..14].copy_from_slice(&[0x50, 0x04]);
            }
            false => {
                tcp[..2].copy_from_slice(&asked[22..24]);
                tcp[2..4].copy_from_slice(&asked[20..22]);
                tcp[4..8].copy_from_slice(&[0, 0, 0, 7]);
                tcp[8..12].copy_from_slice(&next);
                tcp[12..16].copy_from_slice(&[0x50, 0x12, 0xfa, 0xf0]);
            }
        }
        let checksum = checksum(tcp, addresses + 6 + 20);
        tcp[16..18].copy_from_slice(&checksum);
        frame
    }
}

fn half(pair: &[u8]) -> u32 {
    u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
}

fn checksum(octets: &[u8], more: u32) -> [u8; 2] {
    let sum = more + octets.chunks(2).map(half).sum::<u32>();
    let once = (sum & 0xffff) + (sum >> 16);
    (!((once & 0xffff) + (once >> 16)) as u16).to_be_bytes()
}

/// One answer as a frame, for those who want to receive many.
pub(crate) fn sample(asked: fleet::Asked) -> Vec<u8> {
    let probe = &fleet::frames(asked, 1)[0];
    Frame::answer(probe)
        .expect("a probe is answered")
        .as_ref()
        .to_vec()
}
