//! The sockets that listen on a port, as `ss -ltun` lists them: the kernel finds them by itself, whereas `/proc/net`
//! has it walk through all that are connected, too.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::AF_INET;
use netlink_packet_sock_diag::constants::AF_INET6;
use netlink_packet_sock_diag::constants::IPPROTO_TCP;
use netlink_packet_sock_diag::constants::IPPROTO_UDP;
use netlink_packet_sock_diag::inet::ExtensionFlags;
use netlink_packet_sock_diag::inet::InetRequest;
use netlink_packet_sock_diag::inet::InetResponse;
use netlink_packet_sock_diag::inet::SocketId;
use netlink_packet_sock_diag::inet::StateFlags;
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::exchange::Listener;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;
use crate::live::procfs;
use crate::live::procfs::Failure;

/// The TCP sockets that listen on `port` and the UDP sockets bound to it, each once; read from `/proc/net` where the
/// kernel does not answer (`CONFIG_INET_DIAG`, `CONFIG_INET_UDP_DIAG`).
pub(super) fn list(port: u16, failures: &mut Vec<Failure>) -> Vec<Listener> {
    match ask(port) {
        Ok(found) => found,
        Err(_) => procfs::listeners(port, failures),
    }
}

fn ask(port: u16) -> Result<Vec<Listener>, NetlinkError> {
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG)?;
    let mut found = Vec::new();
    // A UDP socket that is bound and not connected is in the state `TCP_CLOSE`.
    for (protocol, states) in [
        (IPPROTO_TCP, StateFlags::LISTEN),
        (IPPROTO_UDP, StateFlags::CLOSE),
    ] {
        for (family, any) in [
            (AF_INET, SocketId::new_v4()),
            (AF_INET6, SocketId::new_v6()),
        ] {
            let answer = netlink.dump(SockDiagMessage::InetRequest(InetRequest {
                family,
                protocol,
                extensions: ExtensionFlags::empty(),
                states: states.clone(),
                socket_id: SocketId {
                    source_port: port,
                    ..any
                },
            }))?;
            if let Some(error) = answer.undecoded.first() {
                return Err(NetlinkError::Unreadable(error.to_string()));
            }
            for message in answer.messages {
                if let SockDiagMessage::InetResponse(socket) = message
                    && let Some(address) = bound_to(&socket)
                    && socket.header.socket_id.source_port == port
                {
                    procfs::add(&mut found, protocol, address, port);
                }
            }
        }
    }
    Ok(found)
}

/// The IPv4 address a socket is bound to; `None` for one that takes no IPv4.
fn bound_to(socket: &InetResponse) -> Option<Ipv4Addr> {
    match socket.header.socket_id.source_address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) if address.is_unspecified() => {
            let is_v6_only = socket.nlas.contains(&Nla::SkV6Only(true));
            (!is_v6_only).then_some(Ipv4Addr::UNSPECIFIED)
        }
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::TcpListener;
    use std::net::UdpSocket;

    use seccompiler::BpfProgram;
    use seccompiler::SeccompAction;
    use seccompiler::SeccompCmpArgLen;
    use seccompiler::SeccompCmpOp;
    use seccompiler::SeccompCondition;
    use seccompiler::SeccompFilter;
    use seccompiler::SeccompRule;

    use super::*;
    use crate::live::testbed;

    /// The calling thread is refused these sockets, as in many a container.
    fn refuse(protocol: isize) {
        let (length, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        let is_it = SeccompCondition::new(2, length, equal, protocol as u64).unwrap();
        let rules = vec![SeccompRule::new(vec![is_it]).unwrap()];
        let filter = SeccompFilter::new(
            BTreeMap::from([(libc::SYS_socket, rules)]),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EPROTONOSUPPORT as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
    }

    #[test]
    fn where_the_kernel_does_not_answer_proc_does() {
        testbed::in_namespace(
            concat!(
                module_path!(),
                "::where_the_kernel_does_not_answer_proc_does"
            ),
            || {
                let _tcp = TcpListener::bind("0.0.0.0:8080").unwrap();
                let _udp = UdpSocket::bind("127.0.0.1:8080").unwrap();
                let answered = ask(8080).unwrap();
                assert_eq!(answered.len(), 2);
                refuse(NETLINK_SOCK_DIAG);
                assert!(ask(8080).is_err());
                let mut failures = Vec::new();
                assert_eq!(list(8080, &mut failures), answered);
                assert!(failures.is_empty());
            },
        );
    }
}
