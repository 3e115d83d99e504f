//! A site with as many real servers as one likes, each in a network namespace of its own, one router between them all.
//!
//! ```text
//! c ── r ── d
//!      ├── s0
//!      ├── s1 …
//! ```
//!
//! Where the lab stands in for ipip and IPVS, so does this, for many at once and without faults: IPVS takes turns.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;

use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::Ipv4HeaderSlice;
use etherparse::TcpHeaderSlice;
use nix::sched::CloneFlags;
use nix::sched::setns;
use tunproof::live::frames::Packets;
use tunproof::live::netns::Namespace;
use tunproof::live::network::Network;
use tunproof::live::network::NextHop;
use tunproof::live::network::Route;
use tunproof::live::network::Rule;
use tunproof::live::network::VethEnd;

use crate::process::role;
use crate::sys;

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PORT: u16 = 80;
const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENTS_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const DIRECTORS_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A real server's address, and its gateway's, in a network of their own.
fn server(number: u8) -> (Ipv4Addr, Ipv4Addr) {
    let of = |last| Ipv4Addr::new(10, 1, number, last);
    (of(2), of(1))
}

/// The table of what IPVS takes, and the kernel's own of what is local (`src/lab/director.rs`).
const TABLE: u32 = 80;
const LOCAL: u32 = 255;
const IPPROTO_RAW: u8 = 255;
const TUNNEL_MTU: u32 = 1480;

/// A site in a process of its own, which ends with this value.
pub(crate) struct Site {
    process: Child,
    path: PathBuf,
}

impl Site {
    /// A site with so many real servers; its path file is in `folder`.
    pub(crate) fn up(servers: u8, folder: &Path) -> Site {
        let path = folder.join(format!("path-{servers}.toml"));
        let name = path.to_str().expect("a name in Unicode");
        let mut command = role("site", &[&servers.to_string(), name]);
        let mut process = sys::die_with_starter(&mut command)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line);
        assert!(read.is_ok_and(|octets| octets > 0), "no site");
        Site { process, path }
    }

    pub(crate) fn path_file(&self) -> &str {
        self.path.to_str().expect("a name in Unicode")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The role: builds the site, writes its path file, says so, and stands in until it is killed.
pub(crate) fn main(servers: u8, path_file: &str) {
    let [client, router, director, backstage] = [(); 4].map(|()| host());
    router.set("net/ipv4/ip_forward", "1").expect("a setting");
    director.set("net/ipv4/ip_forward", "1").expect("a setting");
    join((&client, "eth0", CIP), (&router, "c", CLIENTS_ROUTER), 24);
    join(
        (&director, "eth0", DIP),
        (&router, "d", DIRECTORS_ROUTER),
        29,
    );
    net(&client, |net| {
        net.add_route(&Route::default_via(CLIENTS_ROUTER))
    });
    net(&router, |net| net.add_route(&Route::via(VIP, 32, DIP)));
    net(&director, |net| {
        net.add_address("lo", VIP, 32)?;
        net.add_route(&Route::default_via(DIRECTORS_ROUTER))
    });
    let real: Vec<_> = (0..servers)
        .map(|number| {
            let server = host();
            add_server(&server, &router, &backstage, number);
            server
        })
        .collect();
    let process = std::process::id();
    let own = env::current_exe().expect("the kernel knows it");
    let via = |host: &Namespace| {
        let namespace = format!("/proc/{process}/task/{}/ns/net", host.thread());
        format!("via = \"{} role enter {namespace}\"\n", own.display())
    };
    let mut text = format!(
        "[path]\nvip = \"{VIP}\"\nport = {PORT}\n[director]\nip = \"{DIP}\"\n{}[client]\nip = \"{CIP}\"\n{}",
        via(&director),
        via(&client)
    );
    for (number, host) in (0..).zip(&real) {
        let rip = server(number).0;
        text += &format!(
            "[[realserver]]\nname = \"s{number}\"\nip = \"{rip}\"\n{}",
            via(host)
        );
    }
    std::fs::write(path_file, text).expect("a folder to write to");
    add_ipvs(&director, &backstage, servers);
    println!("ready");
    loop {
        thread::park();
    }
}

/// The role: what `via` is, where `ssh` would be in life. Starts the agent in a namespace.
pub(crate) fn enter(namespace: &str, program: &str, agent: &str) -> ! {
    let namespace = File::open(namespace).expect("a site");
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("root, to enter a network namespace");
    let error = Command::new(program).arg(agent).exec();
    panic!("{program}: {error}");
}

fn host() -> Namespace {
    let host = Namespace::new().expect("root, for a network namespace");
    for name in ["all", "default"] {
        let settings = [("rp_filter", "0"), ("send_redirects", "0")];
        for (setting, value) in settings {
            let name = format!("net/ipv4/conf/{name}/{setting}");
            host.set(&name, value).expect("a setting");
        }
    }
    // A kernel without IPv6 has no such setting.
    let _ = host.set("net/ipv6/conf/default/disable_ipv6", "1");
    net(&host, |net| net.set_up("lo", true));
    host
}

fn net<T: Send + 'static, E: std::fmt::Debug + Send + 'static>(
    host: &Namespace,
    job: impl FnOnce(&mut Network) -> Result<T, E> + Send + 'static,
) -> T {
    host.run(|| job(&mut Network::open().expect("netlink")))
        .expect("the kernel's consent")
}

/// A link between two hosts, each end with a name and an address.
fn join(one: (&Namespace, &str, Ipv4Addr), other: (&Namespace, &str, Ipv4Addr), prefix: u8) {
    veth((one.0, one.1), (other.0, other.1));
    for (host, name, ip) in [one, other] {
        let name = name.to_owned();
        net(host, move |net| {
            net.add_address(&name, ip, prefix)?;
            net.set_up(&name, true)
        });
    }
    wait(one.0, one.1);
    wait(other.0, other.1);
}

/// A pair of devices that look like a tunnel's.
fn tunnel_like(host: &Namespace, name: &str, backstage: &Namespace, far_name: &str) {
    veth((host, name), (backstage, far_name));
    for (host, name) in [(host, name), (backstage, far_name)] {
        let name = name.to_owned();
        net(host, move |net| {
            net.set_tunnel_like(&name, TUNNEL_MTU)?;
            net.set_up(&name, true)
        });
    }
    wait(host, name);
    wait(backstage, far_name);
}

fn veth(one: (&Namespace, &str), other: (&Namespace, &str)) {
    static NEXT: AtomicU32 = AtomicU32::new(100);
    let index = NEXT.fetch_add(2, Ordering::Relaxed);
    let [here, there] = [one.0, other.0].map(|host| host.file().expect("proc is mounted"));
    let end = |name, index, namespace| VethEnd {
        name,
        index,
        namespace,
    };
    Network::open()
        .expect("netlink")
        .add_veth(&end(one.1, index, &here), &end(other.1, index + 1, &there))
        .expect("a pair of devices");
}

fn wait(host: &Namespace, name: &str) {
    let name = name.to_owned();
    net(host, move |net| net.wait_until_passing(&name));
}

fn index(host: &Namespace, name: &str) -> (u32, [u8; 6]) {
    let name = name.to_owned();
    let link = net(host, move |net| net.link(&name)).expect("the device is there");
    (link.index, link.mac.unwrap_or_default())
}

/// A real server with a service, and a thread that takes packets out of its tunnel.
fn add_server(host: &Namespace, router: &Namespace, backstage: &Namespace, number: u8) {
    let (rip, gateway) = server(number);
    let name = format!("s{number}");
    join((host, "eth0", rip), (router, &name, gateway), 30);
    net(host, move |net| net.add_route(&Route::default_via(gateway)));
    tunnel_like(host, "tunl0", backstage, &name);
    net(host, |net| net.add_address("tunl0", VIP, 32));
    let listener = host.run(|| TcpListener::bind(SocketAddrV4::new(VIP, PORT)));
    let listener = listener.expect("a free port");
    thread::spawn(move || listener.incoming().for_each(drop));
    let arriving = host.run(|| Packets::of_protocol(IpNumber::IPV4.0, None));
    let frames = backstage.run(Packets::frames);
    let (mut arriving, frames) = (arriving.expect("a socket"), frames.expect("a socket"));
    let (far, (_, mac)) = (index(backstage, &name).0, index(host, "tunl0"));
    thread::spawn(move || {
        while let Ok(packet) = arriving.receive() {
            if let Ok(outer) = Ipv4HeaderSlice::from_slice(packet) {
                // What is too long for the tunnel is lost, as anywhere.
                let _ = frames.send_frame(&packet[outer.slice().len()..], far, mac);
            }
        }
    });
}

/// What stands in for the director's IPVS: policy routing takes the service's packets to a device of ours.
fn add_ipvs(director: &Namespace, backstage: &Namespace, servers: u8) {
    tunnel_like(director, "ipvs0", backstage, "ipvs0");
    net(director, |net| {
        net.add_route(&Route {
            table: TABLE,
            ..Route::new(Ipv4Addr::UNSPECIFIED, 0, NextHop::Device("ipvs0"))
        })?;
        net.add_rule(&Rule::lookup(100, LOCAL))?;
        net.delete_rule(&Rule::lookup(0, LOCAL))?;
        let take = |priority, iif, protocol, port| Rule {
            to: Some(VIP),
            iif: Some(iif),
            protocol: Some(protocol),
            port,
            ..Rule::lookup(priority, TABLE)
        };
        net.add_rule(&take(10, "eth0", IpNumber::TCP.0, Some(PORT)))?;
        net.add_rule(&take(11, "lo", IpNumber::TCP.0, Some(PORT)))?;
        net.add_rule(&take(12, "lo", IPPROTO_RAW, None))
    });
    let (far, _) = index(backstage, "ipvs0");
    let arriving = backstage.run(move || Packets::of_device(far));
    let tunnel = director.run(|| Packets::of_protocol(IPPROTO_RAW, None));
    let (mut arriving, tunnel) = (arriving.expect("a socket"), tunnel.expect("a socket"));
    thread::spawn(move || {
        let mut known: HashMap<(Ipv4Addr, u16), u8> = HashMap::new();
        let mut next = 0;
        while let Ok(packet) = arriving.receive() {
            let Some((client, flags, inner)) = request(packet) else {
                continue;
            };
            let chosen = match known.get(&client) {
                Some(chosen) => *chosen,
                None if flags.is_syn => {
                    next = (next + 1) % servers;
                    next
                }
                None => continue,
            };
            // A client that has reset its connection is given a real server anew (`conn_reuse_mode`).
            match flags.is_rst {
                true => known.remove(&client),
                false => known.insert(client, chosen),
            };
            let rip = server(chosen).0;
            // A packet that cannot go on is lost, as anywhere.
            let _ = tunnel.send(&tunnelled(&inner, rip), rip);
        }
    });
}

/// Whether a segment begins a connection, or ends it.
struct Flags {
    is_syn: bool,
    is_rst: bool,
}

/// Of a segment to the service: its client, its flags, and the packet, its checksum complete.
fn request(packet: &[u8]) -> Option<((Ipv4Addr, u16), Flags, Vec<u8>)> {
    let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let start = ip.slice().len();
    let tcp = TcpHeaderSlice::from_slice(&packet[start..]).ok()?;
    if ip.protocol() != IpNumber::TCP || tcp.destination_port() != PORT {
        return None;
    }
    let payload = &packet[start + tcp.slice().len()..];
    let sum = tcp.calc_checksum_ipv4(&ip, payload).ok()?;
    let mut whole = packet.to_vec();
    // RFC 9293 §3.1: octets 16 and 17 of the header. The sender left it to a device.
    whole[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    let client = (Ipv4Addr::from(ip.source()), tcp.source_port());
    let flags = Flags {
        is_syn: tcp.syn() && !tcp.ack(),
        is_rst: tcp.rst(),
    };
    Some((client, flags, whole))
}

fn tunnelled(inner: &[u8], rip: Ipv4Addr) -> Vec<u8> {
    let (length, from, to) = (inner.len() as u16, DIP.octets(), rip.octets());
    let outer = Ipv4Header::new(length, 64, IpNumber::IPV4, from, to);
    let mut outer = outer.expect("no packet is that long");
    outer.dont_fragment = false;
    [&outer.to_bytes()[..], inner].concat()
}
