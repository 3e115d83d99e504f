//! Stand-in until the netlink module is merged.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::exchange::Neighbour;

/// The entry of `address` on `device`.
///
/// # Errors
///
/// If it cannot be read.
pub fn find(address: Ipv4Addr, device: &str) -> io::Result<Option<Neighbour>> {
    let text = ip(&["neigh", "show", &address.to_string(), "dev", device])?;
    let words: Vec<_> = text.split_whitespace().collect();
    let mac = words.iter().position(|w| *w == "lladdr").map(|at| {
        let mut octets = [0; 6];
        for (octet, hex) in octets.iter_mut().zip(words[at + 1].split(':')) {
            *octet = u8::from_str_radix(hex, 16).unwrap_or(0);
        }
        octets
    });
    Ok(mac.map(|mac| Neighbour {
        ip: address,
        device: device.to_owned(),
        mac: Some(mac),
        state: match words.contains(&"PERMANENT") {
            true => Neighbour::PERMANENT,
            false => 4,
        },
    }))
}

/// Deletes it.
///
/// # Errors
///
/// If it cannot be deleted.
pub fn forget(address: Ipv4Addr, device: &str) -> io::Result<Option<Neighbour>> {
    let Some(old) = find(address, device)?.filter(|old| old.state != Neighbour::PERMANENT) else {
        return Ok(None);
    };
    ip(&["neigh", "del", &address.to_string(), "dev", device])?;
    Ok(Some(old))
}

/// Puts it back.
///
/// # Errors
///
/// If it cannot be put back.
pub fn restore(old: &Neighbour) -> io::Result<()> {
    if find(old.ip, &old.device)?.is_none()
        && let Some(m) = old.mac
    {
        let mac = m.map(|octet| format!("{octet:02x}")).join(":");
        let address = old.ip.to_string();
        ip(&[
            "neigh",
            "replace",
            &address,
            "lladdr",
            &mac,
            "dev",
            &old.device,
            "nud",
            "stale",
        ])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("ip").args(arguments).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}
