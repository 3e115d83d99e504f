//! How fast packets leave by a veth pair whose far end drops them at once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::fleet::Asked;
use crate::peers;
use crate::process;
use crate::process::TUNPROOF;
use crate::process::role;
use crate::process::words;
use crate::site;
use crate::table::Table;
use crate::table::median;
use crate::table::thousands;

const ROUNDS: usize = 5;
/// From the first packet to where counting begins, and how long it goes on.
const WARM: Duration = Duration::from_millis(150);
const COUNTED: Duration = Duration::from_millis(500);
/// How long a sender may take to its first packet.
const PATIENCE: Duration = Duration::from_secs(5);

struct Sender {
    name: &'static str,
    does: &'static str,
    command: Command,
    rates: Vec<f64>,
}

pub(crate) fn run(folder: &Path) -> String {
    let mut senders: Vec<Sender> = senders(folder);
    site::on_site(|| {
        let far = site::part();
        for round in 0..ROUNDS {
            for sender in &mut senders {
                let rate = rate(&sender.command);
                println!("transmit {round}: {} {}/s", sender.name, thousands(rate));
                sender.rates.push(rate);
            }
        }
        process::end(far);
    });
    to_markdown(&senders)
}

/// Packets a second that left the device.
fn rate(command: &Command) -> f64 {
    let before = site::sent("near");
    let child = process::start(command);
    let begin = Instant::now();
    while site::sent("near") < before + 64 && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(WARM);
    let (first, begin) = (site::sent("near"), Instant::now());
    thread::sleep(COUNTED);
    let (last, end) = (site::sent("near"), Instant::now());
    process::end(child);
    (last - first) as f64 / (end - begin).as_secs_f64()
}

fn to_markdown(senders: &[Sender]) -> String {
    let mut table = Table::new(&[
        "sender",
        "packets/s",
        "ratio",
        "of each round",
        "what it does",
    ]);
    let reference = &senders[0].rates;
    for sender in senders {
        let mut ratios: Vec<_> = sender
            .rates
            .iter()
            .zip(reference)
            .map(|(a, b)| a / b)
            .collect();
        let ratio = median(ratios.clone());
        ratios.sort_by(f64::total_cmp);
        table.row(&[
            sender.name.to_owned(),
            thousands(median(sender.rates.clone())),
            format!("{ratio:.2}"),
            format!("{:.2} to {:.2}", ratios[0], ratios[ratios.len() - 1]),
            sender.does.to_owned(),
        ]);
    }
    format!(
        "One thread each, {ROUNDS} interleaved rounds of {} ms, medians; what the device counted. The ratio is to the \
         reference of the same round.\n\n{}",
        COUNTED.as_millis(),
        table.to_markdown()
    )
}

fn senders(folder: &Path) -> Vec<Sender> {
    let (dip, gateway) = (site::DIP, site::GATEWAY);
    let file = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).expect("the folder can be written to");
        file.display().to_string()
    };
    let many = Asked::ClosedLoop.file_of("[80, 81, 82, 83]", "[\"10.64.0.0/12\"]");
    let fleet = file("many.toml", &many);
    let trafgen = file("trafgen.cfg", TRAFGEN);
    let packet = format!(
        "Ether(src='02:00:00:00:00:01',dst='{gateway}')/IP(src='{dip}',dst='10.64.0.1')/\
         IP(src='198.51.100.7',dst='192.0.2.10')/TCP(sport=50000,dport=80,flags='S')"
    );
    let scapy = |packets: &str| {
        let mut command = Command::new("/usr/bin/python3");
        let script = format!("from scapy.all import *\nsendp({packets},iface='near',verbose=0)");
        command.arg("-c").arg(script);
        command
    };
    let mut senders = Vec::new();
    let mut add = |program: &str, name, does, command| {
        if program.is_empty() || peers::has(program) {
            senders.push(Sender {
                name,
                does,
                command,
                rates: Vec::new(),
            });
        }
    };
    add(
        "",
        "bare sendmmsg, 64 at once",
        "the reference: AF_PACKET, `PACKET_QDISC_BYPASS`, the same 64 prebuilt frames of 78 octets for ever",
        role("send-bare", &[]),
    );
    add(
        "",
        "tunproof, crafting and sending alone",
        "every packet another pair's, with identity and checksums; no schedule, no memory of pairs",
        role("send-burst", &[]),
    );
    add(
        "",
        "`tunproof sweep --rate 10000000`",
        "the whole program: schedule, spacing, identity, states; 4,194,296 pairs, closed loop",
        words(&format!("{TUNPROOF} sweep {fleet} --probe closed-loop")),
    );
    add(
        "",
        "tunproof --xdp, crafting and sending alone",
        "AF_XDP in copy mode",
        role("send-burst", &["xdp"]),
    );
    add(
        "zmap",
        "zmap",
        "SYN to each address of a prefix, one thread, no limit; no tunnel",
        words(&format!(
            "zmap -C /dev/null -b /dev/null -i near -G {gateway} -S {dip} -r 0 -T 1 -p 80 -q -o /dev/null 10.64.0.0/10"
        )),
    );
    add(
        "trafgen",
        "trafgen",
        "UDP with random ports, identification and addresses and their checksums, one process; hears nothing",
        words(&format!("trafgen --dev near --conf {trafgen} --cpus 1")),
    );
    add(
        "masscan",
        "masscan",
        "SYN to each address of a prefix, no limit; no tunnel",
        words(&format!(
            "masscan 10.64.0.0/10 -p80 --rate 10000000 -e near --adapter-ip {dip} --adapter-mac 02:00:00:00:00:01 \
             --router-mac {gateway} --wait 0 -oL /dev/null"
        )),
    );
    add(
        "",
        "`tunproof sweep --xdp --rate 10000000`",
        "the whole program, AF_XDP in copy mode",
        words(&format!(
            "{TUNPROOF} sweep {fleet} --probe closed-loop --xdp"
        )),
    );
    add(
        "hping3",
        "hping3 --flood",
        "UDP to one address; no tunnel, hears nothing",
        words("hping3 --flood -q --udp -p 53 -d 36 -I near 10.64.0.1"),
    );
    add(
        "nping",
        "nping --rate 10000000",
        "UDP to one address; no tunnel",
        words(&format!(
            "nping --udp -p 53 --rate 10000000 -c 100000000 -N -H --quiet --data-length 36 -e near --dest-mac {gateway} \
             --source-mac 02:00:00:00:00:01 --source-ip {dip} 10.64.0.1"
        )),
    );
    add(
        "scapy3",
        "scapy sendp, prebuilt",
        "one frame made to octets once, in IPIP",
        scapy(&format!("[Raw(bytes({packet}))]*1000000")),
    );
    add(
        "scapy3",
        "scapy sendp, layers",
        "in IPIP, made to octets each time",
        scapy(&format!("[{packet}]*1000000")),
    );
    senders
}

const TRAFGEN: &str = "{
  eth(da=02:00:00:00:00:99, sa=02:00:00:00:00:01),
  ipv4(id=drnd(), ttl=64, sa=10.9.0.1, da=drnd()),
  udp(sp=drnd(), dp=drnd()),
  fill(0, 36)
}
";
