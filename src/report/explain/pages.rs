//! What the pages say. VIP, DIP, RIP, CIP, GW and PORT stand for the path's own.

use crate::plan::Hop;
use crate::verdict::Code;

/// A page.
pub(super) struct Page {
    /// The hop that breaks by it.
    pub(super) hop: Hop,
    /// The HOWTO's question.
    pub(super) question: &'static str,
    /// What is the matter; its first sentence stands alone.
    pub(super) meaning: &'static str,
    /// By what evidence it is known.
    pub(super) shown: &'static str,
    /// What to type.
    pub(super) mend: &'static [&'static str],
}

const Q1: &str = "Q.1 The director must use unique address when talking to the real server";
const Q2: &str = "Q.2 The real server's routing drops the decapsulated packets?";
const Q3: &str = "Q.3 The real server's gateway passes the packets to the client?";
const Q4: &str = "Q.4 Other trivial reasons";
const BEYOND: &str = "none: it goes beyond the HOWTO";

/// The page of a code.
pub(super) fn of(code: Code) -> Page {
    let page = |hop, question, meaning, shown, mend| Page {
        hop,
        question,
        meaning,
        shown,
        mend,
    };
    match code {
        Code::ClientPacketsLost => page(
            Hop::ClientToDirector,
            Q4,
            "What the client sends to the VIP leaves the client and does not reach the director. A router \
             has no route to the VIP or sends it elsewhere, or a firewall between drops it.",
            "A probe from the client is seen at client.out, several times, and never at director.in, \
             whose tap was open and lost nothing.",
            &[
                "client# traceroute -n -T -p PORT VIP",
                "director# tcpdump -ln -i INDEV host CIP",
            ],
        ),
        Code::VipNotOnDirector => page(
            Hop::DirectorForward,
            Q4,
            "The VIP is no local address of the director, so its kernel forwards or drops what arrives for \
             it before IPVS sees it. A service by firewall mark needs no local VIP, but a route that \
             delivers it.",
            "The director's own route lookup for the VIP is not of type `local`, and probes to it are not \
             forwarded.",
            &[
                "director# ip route get VIP",
                "director# ip addr add VIP/32 dev lo",
            ],
        ),
        Code::IpvsServiceMissing => page(
            Hop::DirectorForward,
            Q4,
            "IPVS has no virtual service for this address, port and protocol. The director answers itself, \
             mostly with an RST or ICMP port unreachable, or not at all.",
            "The list of services, read over netlink, has no entry that takes VIP:PORT, and a probe to it \
             does not leave as IPIP.",
            &[
                "director# ipvsadm -Ln",
                "director# ipvsadm -A -t VIP:PORT -s wlc",
                "director# ipvsadm -a -t VIP:PORT -r RIP -i",
            ],
        ),
        Code::IpvsDestinationMissing => page(
            Hop::DirectorForward,
            Q4,
            "The virtual service is there and lists other real servers, but not this one. Nothing is \
             scheduled to it.",
            "The service's destinations, read over netlink, lack the RIP; no probe is tunnelled to it.",
            &["director# ipvsadm -a -t VIP:PORT -r RIP -i"],
        ),
        Code::IpvsNotTunnel => page(
            Hop::DirectorForward,
            Q4,
            "The real server is listed with another forwarding method than Tunnel. With Masq the \
             destination is rewritten and the answer must come back through the director; with Route the \
             packet keeps its addresses and only its link address changes, which works on one link only.",
            "The destination's method, read over netlink, is not Tunnel; what leaves for the RIP is no \
             IPIP.",
            &["director# ipvsadm -e -t VIP:PORT -r RIP -i"],
        ),
        Code::IpvsWeightZero => page(
            Hop::DirectorForward,
            Q4,
            "The real server's weight is 0: it keeps its connections and takes no new ones. A health check \
             may have set it, or somebody who drains the server.",
            "The destination's weight, read over netlink, is 0, and no probe is scheduled to it.",
            &["director# ipvsadm -e -t VIP:PORT -r RIP -i -w 1"],
        ),
        Code::ServiceBoundElsewhere => page(
            Hop::Service,
            Q4,
            "The service listens on the port, but on another address of the real server, most often the RIP or \
             the loopback. Behind LVS-TUN packets arrive for the VIP.",
            "A probe to VIP:PORT is refused by the real server, whose only listening sockets on that port are \
             bound elsewhere.",
            &["rs# ss -tulnp"],
        ),
        Code::NextHopUnreachable => page(
            Hop::DirectorToRealserver,
            Q4,
            "The router, or the real server itself where it is on-link, to which the director hands the IPIP \
             packets does not answer ARP, or the director's neighbour table has no room for it (the kernel's reason \
             for the drop is NEIGH_CREATEFAIL), so that none leaves.",
            "Tunnelled probes were handed to the kernel and none is seen at director.out; the neighbour \
             entry of the next hop is FAILED or INCOMPLETE, or the kernel says that there could be none.",
            &[
                "director# ip neigh show",
                "director# sysctl net.ipv4.neigh.default.gc_thresh3",
                "director# arping -c 3 -I OUTDEV NEXT_HOP",
                "director# ip route get RIP",
            ],
        ),
        Code::DirectorFirewallIngress => page(
            Hop::DirectorForward,
            Q4,
            "A firewall on the director drops the client's packets before IPVS takes them, in PREROUTING or \
             INPUT.",
            "The client's probes are seen at director.in and none leaves tunnelled, while the same packets \
             do when the director itself sends them through its IPVS.",
            &[
                "director# nft list ruleset",
                "director# iptables-save -c",
                "director# iptables -I INPUT -d VIP -p tcp --dport PORT -j ACCEPT",
            ],
        ),
        Code::IpvsTunnelTypeMismatch => page(
            Hop::DirectorForward,
            BEYOND,
            "IPVS encapsulates for this real server by GUE or GRE, and the path is IPIP. The packets leave, in \
             UDP or as protocol 47, and the real server's ipip device never sees them.",
            "IPVS's own table (netlink, what `ipvsadm -Ln` prints) gives the destination another tunnel type than \
             ipip, and no IPIP packet leaves the director for what it schedules, while those that tunproof \
             encapsulates itself do.",
            &[
                "director# ipvsadm -Ln --tun-info",
                "director# ipvsadm -e -t VIP:PORT -r RIP -i --tun-type ipip",
            ],
        ),
        Code::DirectorNotForwarding => page(
            Hop::DirectorForward,
            Q4,
            "The client's packets reach the director and none leaves for the real server, though the \
             service, the destination, its method and its weight are right. Most often a firewall drops \
             them before IPVS, in PREROUTING or INPUT.",
            "Probes are seen at director.in or were sent through the director's own stack, and no \
             tunnelled one at director.out, whose tap lost nothing.",
            &[
                "director# nft list ruleset",
                "director# iptables-save -c",
                "director# ipvsadm -Ln --stats",
                "director# sysctl net.ipv4.vs",
            ],
        ),
        Code::SourceIsVip => page(
            Hop::DirectorSource,
            Q1,
            "The director's IPIP packets have the VIP as their outer source. The real server has the VIP \
             too, so its kernel takes them for packets that it sent itself and drops them.",
            "The outer source of a packet that the director's kernel encapsulated, or, without one, the \
             preferred source of the director's route to the RIP.",
            &[
                "director# ip route get RIP",
                "director# ip route replace RIP via GATEWAY dev OUTDEV src DIP",
                "director# ip addr add VIP/32 dev lo    # as the VIP's only place, with /32",
            ],
        ),
        Code::SourceOnRealserver => page(
            Hop::DirectorSource,
            Q1,
            "The director's IPIP packets have an outer source that the real server has, too. Its input \
             validation drops them as packets that it sent itself.",
            "The outer source of a tunnelled packet is among the addresses that the real server lists.",
            &[
                "director# ip route get RIP",
                "director# ip route replace RIP via GATEWAY dev OUTDEV src DIP",
                "rs# ip addr    # which device has the director's address, and why?",
            ],
        ),
        Code::SourceNotOwned => page(
            Hop::DirectorSource,
            Q1,
            "The outer source of the director's IPIP packets is no address of the director. A route still prefers \
             an address that is gone, or a source NAT rule rewrites the tunnel header; networks drop sources that \
             are not theirs, and a real server that takes tunnels from the DIP only drops them, too. An error only \
             if packets died of it: behind a 1:1 translation such an address is right. As a note it says that the \
             path file's DIP is none of the director's addresses.",
            "A packet that the director's kernel encapsulated is seen at director.out with that source, it is lost \
             where packets from the DIP pass, and neither a device nor a local route of the director has it.",
            &[
                "director# ip route get RIP",
                "director# ip route replace RIP via GATEWAY src DIP",
                "director# nft list ruleset; iptables-save -t nat -c",
            ],
        ),
        Code::NoRouteToRealserver => page(
            Hop::DirectorSource,
            Q1,
            "The director has no route to the RIP, so it cannot send the tunnel packets at all.",
            "The director's route lookup for the RIP fails, and its kernel refuses to send probes there.",
            &[
                "director# ip route get RIP",
                "director# ip route add RIP via GATEWAY",
            ],
        ),
        Code::DirectorFirewallEgress => page(
            Hop::DirectorToRealserver,
            Q4,
            "The IPIP packets do not leave the director: something drops them on their way out, in OUTPUT \
             or POSTROUTING. Rules for TCP and UDP do not cover protocol 4.",
            "The kernel refuses the probe (EPERM is a firewall's drop), or it takes it and the tap, which \
             sees packets after the firewall, does not see it leave.",
            &[
                "director# nft list ruleset",
                "director# iptables-save -c",
                "director# iptables -I OUTPUT -p 4 -d RIP -j ACCEPT",
            ],
        ),
        Code::TunnelLostInTransit => page(
            Hop::DirectorToRealserver,
            Q4,
            "The IPIP packets leave the director and do not reach the real server. A firewall between the \
             two passes TCP and UDP but not IP protocol 4, or the real server cannot be reached at all.",
            "Several probes are seen at director.out and none at realserver.in, whose tap was open and lost \
             nothing; no router said why. Protocol 4 and UDP are then sent with an outer time to live of 1, \
             2, 3, …: the last router that answers each shows where it dies, and whether UDP passes. From \
             the director alone the same sweeps are a note: a router may answer for UDP and not for \
             protocol 4.",
            &[
                "director# traceroute -n -P 4 RIP",
                "rs# tcpdump -ln -i IN_ETH ip proto 4",
                "ask the network between to pass IP protocol 4 from DIP to RIP",
                "if UDP passes, GUE does (kernel 5.3, ipvsadm 1.31):",
                "rs# modprobe fou && ip fou add port 6080 gue",
                "director# ipvsadm -e -t VIP:PORT -r RIP -i --tun-type gue --tun-port 6080",
            ],
        ),
        Code::TunnelRejected => page(
            Hop::DirectorToRealserver,
            Q4,
            "A router or firewall on the way refuses the IPIP packets and says so with an ICMP error: \
             prohibited, no route, or too long.",
            "The ICMP error, which quotes the probe in its tunnel and whose source is the host that \
             refuses.",
            &[
                "director# tcpdump -lnv -i OUTDEV icmp",
                "ask whoever runs the host that sent the error to pass protocol 4 from DIP to RIP",
            ],
        ),
        Code::TunnelMtuLow => page(
            Hop::DirectorToRealserver,
            BEYOND,
            "A router on the way passes shorter packets than the director's own route says, and tells it by \
             ICMP. The tunnel adds 20 octets to what clients send. IPVS relays such an error to the client, \
             which then sends less: it works, as long as every firewall between passes these errors, and \
             each time at the price of the packets that were too long.",
            "A tunnelled probe of the size of the director's route, with DF on both headers, is answered with \
             \"fragmentation needed\" by a router, which names the MTU of its next link. A note if the \
             segment size in the SYN-ACK keeps clients below it anyway. The probe itself leaves nothing behind: \
             the kernel notes the error only where IPVS, or an ipip device that is up, knows the packet.",
            &[
                "director# ip route replace RIP/32 via GATEWAY dev OUTDEV mtu MTU",
                "rs# iptables -t mangle -A OUTPUT -s VIP -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss MTU-60",
            ],
        ),
        Code::TunnelMtuBlackHole => page(
            Hop::DirectorToRealserver,
            BEYOND,
            "Long IPIP packets die on the way to the real server, and no router says that they are too long. \
             Connections open and short requests work; whoever sends much hangs (what the real server \
             sends does not pass the tunnel). A link on the way is narrower than the director's, and the \
             ICMP error about it is filtered or never sent.",
            "Tunnelled probes with DF: small ones arrive, those of a size and more never, too often for \
             chance, and no \"fragmentation needed\" comes back. The size between is searched for. It is an \
             error if the SYN-ACK lets clients send such packets (its segment size and 60 octets more), a \
             note if it does not, and a warning where no SYN-ACK was seen.",
            &[
                "director# ip route replace RIP/32 via GATEWAY dev OUTDEV mtu SIZE",
                "rs# iptables -t mangle -A OUTPUT -s VIP -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss SIZE-60",
                "ask the network between to let ICMP type 3 code 4 pass",
            ],
        ),
        Code::QuotesTooShort => page(
            Hop::DirectorToRealserver,
            BEYOND,
            "A router tells the director that IPIP packets are too long, but quotes so little of them that \
             IPVS cannot know whose they were: it needs both IP headers and 8 octets, 48 in all, where RFC \
             792 asks for 28. The client never learns that it should send less, and its long packets are \
             lost.",
            "The router's \"fragmentation needed\", and how many octets of the probe it quotes.",
            &[
                "director# ip route replace RIP/32 via GATEWAY dev OUTDEV mtu MTU",
                "rs# iptables -t mangle -A OUTPUT -s VIP -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss MTU-60",
            ],
        ),
        Code::IpipNotSupported => page(
            Hop::Decapsulation,
            Q2,
            "The real server's kernel does not know IP protocol 4: the module `ipip` is not loaded.",
            "ICMP protocol unreachable (type 3 code 2) from the RIP, quoting the probe in its tunnel.",
            &[
                "rs# modprobe ipip",
                "rs# ip link set tunl0 up",
                "rs# ip addr add VIP/32 dev tunl0",
            ],
        ),
        Code::TunnelMissing => page(
            Hop::Decapsulation,
            Q2,
            "The real server has no tunnel device that could take the director's packets.",
            "No device of kind `ipip` is listed; or ICMP port unreachable from the RIP that quotes \
             protocol 4, with which the kernel says that ipip is there and no device took the packet.",
            &[
                "rs# modprobe ipip    # makes tunl0",
                "rs# ip link set tunl0 up",
                "rs# ip addr add VIP/32 dev tunl0",
            ],
        ),
        Code::TunnelDown => page(
            Hop::Decapsulation,
            Q2,
            "The tunnel device is there and not up. The kernel takes nothing out of a tunnel that is down.",
            "The device's flags lack UP, and probes seen at realserver.in do not show up at \
             realserver.tunnel.",
            &["rs# ip link set tunl0 up"],
        ),
        Code::TunnelEndpointMismatch => page(
            Hop::Decapsulation,
            Q2,
            "The tunnel device has fixed endpoints, and they are not the RIP and the DIP. It takes packets \
             from its own remote end only; `tunl0`, whose ends are any, takes the rest if it is up.",
            "The device's local or remote end, read over netlink, differs from the outer addresses of \
             probes seen at realserver.in.",
            &[
                "rs# ip -d link show type ipip",
                "rs# ip tunnel change TUNNEL remote DIP local RIP",
                "rs# ip link set tunl0 up",
            ],
        ),
        Code::RealserverFirewallIpip => page(
            Hop::Decapsulation,
            Q4,
            "The IPIP packets reach the real server and are dropped before its tunnel takes them, by a \
             firewall in PREROUTING or INPUT. Rules for TCP and UDP do not cover protocol 4.",
            "Probes are seen at realserver.in, which is before the firewall, and none at \
             realserver.tunnel, though the device is up and its endpoints fit; a kernel without ipip \
             would have said so.",
            &[
                "rs# nft list ruleset",
                "rs# iptables-save -c",
                "rs# iptables -I INPUT -p 4 -s DIP -d RIP -j ACCEPT",
            ],
        ),
        Code::TunnelOpenToAnyone => page(
            Hop::Decapsulation,
            Q2,
            "The real server takes tunnelled packets from hosts that are not its director. Anyone who knows its \
             address can put packets into it past every firewall between. A warning: the path works.",
            "An IPIP packet that the client itself addressed to the real server came out of the tunnel and was \
             answered from the VIP, as seen at realserver.out or client.in. That it is not answered proves nothing, \
             and nothing is said of it.",
            &[
                "realserver# nft add table ip tunnel",
                "realserver# nft 'add chain ip tunnel input { type filter hook input priority 0; }'",
                "realserver# nft add rule ip tunnel input ip protocol 4 ip saddr != DIP drop",
            ],
        ),
        Code::SpoofProtectionMissing => page(
            Hop::Decapsulation,
            Q2,
            "What comes out of the tunnel may claim any source. LVS-TUN needs rp_filter 0 on the tunnel device, so \
             that reverse path filtering cannot detect spoofed packets there, and no firewall rule does it instead: \
             a stranger's packets look as if they came from whomever he likes, and the real server answers those. \
             A warning: the path works.",
            "An IPIP packet of the client's, with the director's address as its inner source, came out of the \
             tunnel, and its answer left for the director, as seen at realserver.out or director.in.",
            &[
                "realserver# nft add table ip tunnel",
                "realserver# nft 'add chain ip tunnel input { type filter hook input priority 0; }'",
                "realserver# nft add rule ip tunnel input ip protocol 4 ip saddr != DIP drop",
            ],
        ),
        Code::RpFilterDrops => page(
            Hop::RealserverAccept,
            Q2,
            "The reverse path filter drops the packets that come out of the tunnel. The route back to the \
             client leaves by another device than the tunnel, so a strict filter takes them for forged; a \
             loose one (2) does so too where the tunnel device has no IPv4 address. The larger of `all` \
             and the device's own value is in force. With the filter off, let the firewall take protocol 4 \
             from the DIP only.",
            "Probes are seen at realserver.tunnel and not answered; `ip route get from CIP to VIP iif \
             tunl0` gives an error; rp_filter in force is not 0; the counter IPReversePathFilter rises.",
            &[
                "rs# sysctl -w net.ipv4.conf.all.rp_filter=0",
                "rs# sysctl -w net.ipv4.conf.tunl0.rp_filter=0",
                "rs# nstat -az TcpExtIPReversePathFilter",
                "rs# iptables -A INPUT -p 4 ! -s DIP -j DROP",
            ],
        ),
        Code::VipNotLocal => page(
            Hop::RealserverAccept,
            Q2,
            "The VIP is no local address of the real server, so what comes out of the tunnel is forwarded \
             or dropped instead of being delivered. With forwarding on, it may even go back to the \
             director.",
            "The real server's route lookup for the VIP is not of type `local`; or a probe comes back with \
             a lower time to live.",
            &[
                "rs# ip addr add VIP/32 dev tunl0",
                "rs# sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
            ],
        ),
        Code::RouteRejects => page(
            Hop::RealserverAccept,
            Q2,
            "The real server's routing refuses the packets that come out of the tunnel, and rp_filter is \
             not the reason: a policy rule, or a blackhole, prohibit or unreachable route does it.",
            "Probes are seen at realserver.tunnel and not answered; the route lookup as received, from CIP \
             to VIP on the tunnel device, gives an error while rp_filter in force is 0.",
            &[
                "rs# ip route get VIP from CIP iif tunl0",
                "rs# ip rule; ip route show table all",
            ],
        ),
        Code::ClientAddressIsLocal => page(
            Hop::RealserverAccept,
            Q2,
            "The client's address is one of the real server's own. Its kernel takes packets that arrive with such a \
             source for forged (martians) and drops them even with rp_filter 0; answers would go to itself. A typing \
             error in the path file, a test address that was never removed, or a client that shares an address with \
             the real server (a NAT, a container network).",
            "Probes from the client's address come out of the tunnel and nothing leaves, and the address is on a \
             device of the real server, or its route back to it is of type `local`.",
            &[
                "realserver# ip route get CIP from VIP",
                "realserver# ip addr del CIP dev DEVICE",
            ],
        ),
        Code::RealserverFirewallDecapsulated => page(
            Hop::RealserverAccept,
            Q4,
            "What comes out of the tunnel is dropped before it reaches a socket, and neither rp_filter nor \
             routing is the reason: a firewall on the real server.",
            "Probes are seen at realserver.tunnel, which is before the firewall, and nothing answers them, \
             though the route lookup as received is of type `local`.",
            &[
                "rs# nft list ruleset",
                "rs# iptables-save -c",
                "rs# iptables -I INPUT -i tunl0 -d VIP -j ACCEPT",
            ],
        ),
        Code::ChecksumErrors => page(
            Hop::RealserverAccept,
            BEYOND,
            "What comes out of the tunnel has wrong checksums, so the real server's kernel drops it. Usually \
             checksum offload: a card on the director's side was to fill in the checksum of a packet and cannot \
             see it inside the tunnel; or something on the way rewrites addresses or ports and not the checksum.",
            "Probes come out of the tunnel and die, and TcpInCsumErrors and UdpInCsumErrors of the real server \
             rise by as many; or the kernel's drop monitor gives UDP_CSUM or TCP_CSUM as the reason.",
            &[
                "director# ethtool -K OUTDEV tx off",
                "rs# nstat -az TcpInCsumErrors UdpInCsumErrors",
                "rs# tcpdump -lnvv -i tunl0 host CIP",
            ],
        ),
        Code::ServiceNotListening => page(
            Hop::Service,
            Q4,
            "Nothing listens on VIP:PORT of the real server. The service is not running, or is bound to \
             the RIP only; it must be bound to the VIP or to any address.",
            "The real server answers a SYN with RST/ACK from the VIP; or its sockets, as it lists them, \
             have none for this address and port.",
            &[
                "rs# ss -Htuln sport = :PORT",
                "let the service listen on VIP:PORT or 0.0.0.0:PORT, and start it",
            ],
        ),
        Code::ServiceSilent => page(
            Hop::Service,
            Q4,
            "The service listens and takes no more connections. Its accept queue is full, because the \
             program hangs or is too slow, and the kernel drops new connections without a word.",
            "Probes to a closed port of the VIP are answered, those to the service are not; the counter of \
             dropped connection requests (ListenDrops) rises by as much.",
            &[
                "rs# ss -Htln sport = :PORT    # Recv-Q above Send-Q: the queue is full",
                "rs# nstat -az TcpExtListenDrops TcpExtListenOverflows",
                "restart the service, or give it a longer queue",
            ],
        ),
        Code::NoRouteToClient => page(
            Hop::RealserverEgress,
            Q4,
            "The real server has no route to the client, so its answers cannot leave.",
            "The real server's route lookup for the CIP from the VIP fails, and no answer is seen at \
             realserver.out.",
            &[
                "rs# ip route get CIP from VIP",
                "rs# ip route add default via GW",
            ],
        ),
        Code::RealserverFirewallEgress => page(
            Hop::RealserverEgress,
            Q4,
            "The answers do not leave the real server although the service and the route are there: a \
             firewall drops them in OUTPUT or POSTROUTING.",
            "The kernel refuses packets from the VIP (EPERM is a firewall's drop), or probes are delivered \
             and no answer is seen at realserver.out, where the tap sees packets after the firewall.",
            &[
                "rs# nft list ruleset",
                "rs# iptables-save -c",
                "rs# iptables -I OUTPUT -s VIP -d CIP -j ACCEPT",
            ],
        ),
        Code::EgressSourceRewritten => page(
            Hop::RealserverEgress,
            Q4,
            "The answers leave the real server with another source than the VIP. Masquerading on the real \
             server rewrites them, and the client, which asked the VIP, refuses them.",
            "An answer to a probe is seen at realserver.out with another source address than the VIP.",
            &[
                "rs# nft list ruleset | grep -B5 -E 'masquerade|snat'",
                "rs# iptables -t nat -I POSTROUTING -s VIP -j ACCEPT",
            ],
        ),
        Code::VipAdvertised => page(
            Hop::GatewayArp,
            Q4,
            "The real server advertises the VIP by ARP: it asks in its name, or answers for it. Where the \
             VIP is on the same link for anybody, he may send the client's packets to this real server and \
             not to the director.",
            "An ARP request from the real server's kernel whose sender address is the VIP, or an ARP reply \
             for the VIP; or the settings that allow it.",
            &[
                "rs# sysctl -w net.ipv4.conf.all.arp_announce=2",
                "rs# sysctl -w net.ipv4.conf.all.arp_ignore=1",
                "rs# sysctl -w net.ipv4.conf.all.hidden=1 net.ipv4.conf.tunl0.hidden=1    # where it exists",
            ],
        ),
        Code::DuplicateVip => page(
            Hop::GatewayArp,
            Q4,
            "Another host claims the VIP by ARP where the VIP is on-link. Routers and neighbours send the VIP's \
             packets to whoever answered last: the path works now and then, or not at all. A backup director that \
             kept the VIP, a real server of another path that does not hide it, an address given twice. A warning; \
             an error only if the client's packets for the VIP are lost before the director.",
            "Asked `who-has VIP` on its own link, a hardware address answers that is none of the director's (nor of \
             a real server that tunproof runs on: that is vip-advertised). The question is told to the asking \
             host's own address, never to the VIP.",
            &[
                "director# arping -c 3 -I INDEV VIP",
                "director# ip neigh; bridge fdb show",
                "other# ip addr del VIP/32 dev DEVICE",
                "other# sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
            ],
        ),
        Code::GatewayUnreachable => page(
            Hop::GatewayArp,
            Q4,
            "The gateway does not answer ARP at all, so no answer can leave the link. It is down, on \
             another link, or its address is wrong.",
            "Requests for the gateway with several sender addresses, the RIP among them, stay unanswered; \
             the neighbour entry is FAILED or INCOMPLETE.",
            &[
                "rs# ip route get CIP from VIP",
                "rs# arping -c 3 -I OUT_DEV GW",
                "rs# ip neigh show GW",
            ],
        ),
        Code::GatewayDropsVipArp => page(
            Hop::GatewayArp,
            Q4,
            "The gateway answers ARP requests that name the RIP as their sender, and drops `who-has GW tell \
             VIP`. The real server's kernel asks in the VIP's name, so its answers wait for a neighbour \
             that never answers. Do not advertise the VIP: let the kernel ask in the RIP's name.",
            "The kernel's own request, after the neighbour entry was deleted, names the VIP and stays \
             unanswered, while a request that names the RIP is answered.",
            &[
                "rs# sysctl -w net.ipv4.conf.all.arp_announce=2",
                "rs# ip neigh flush to GW",
                "rs# tcpdump -lne -i OUT_DEV arp host GW",
            ],
        ),
        Code::SpoofedSourceFiltered => page(
            Hop::SpoofedSourceTransit,
            Q3,
            "A network between real server and client drops packets whose source is the VIP. The VIP does \
             not belong to the network the real server is in, so its gateway or provider takes them for \
             spoofed (BCP 38). The path cannot work until that network makes an exception.",
            "Probes from the VIP leave the real server and do not arrive, while the same probes from the RIP \
             do; a traceroute from both names the last router that passes the VIP. Routers are compared by \
             distance, not by address.",
            &[
                "rs# traceroute -n -s VIP CIP    # its answers arrive on the director",
                "rs# traceroute -n -s RIP CIP",
                "gateway# sysctl net.ipv4.conf.all.rp_filter    # if the gateway is yours and runs Linux",
                "ask the provider to accept VIP/32 as a source from your port (uRPF, BCP 38 exception)",
                "or send answers through a tunnel to a network that owns the VIP",
            ],
        ),
        Code::SpoofedSourcePartlyFiltered => page(
            Hop::SpoofedSourceTransit,
            Q3,
            "A network between the real server and the client filters the VIP as a source, but not on every \
             path: routers spread flows over several equal paths (ECMP), and one of them drops what comes from \
             the VIP. Some connections work, others hang, and the same one always does the same.",
            "Eight flows from the VIP, each asked six times: some never reach the client, the others always \
             do, and the same ports from the real server's own address (without a client vantage, also from \
             the director) get through. Loss would hit every flow.",
            &[
                "rs# traceroute -n -T -O syn,ack -s VIP --sport=PORT -p SILENT_PORT CIP",
                "rs# traceroute -n -T -O syn,ack -s VIP --sport=PORT -p PASSING_PORT CIP",
            ],
        ),
        Code::SourceRewrittenInTransit => page(
            Hop::SpoofedSourceTransit,
            Q3,
            "A router between the real server and the client translates the source of what comes from the VIP \
             (SNAT, masquerading). The client gets answers from an address that it never asked and refuses \
             them.",
            "Packets are seen to leave the real server from the VIP and to come to the client from another \
             address; none of the service's protocol comes from the VIP.",
            &[
                "rs# traceroute -n -s VIP CIP",
                "gw# nft list ruleset | grep -nE 'masquerade|snat'",
                "gw# iptables-save -t nat | grep -E 'MASQUERADE|SNAT'",
            ],
        ),
        Code::ClientUnreachable => page(
            Hop::SpoofedSourceTransit,
            Q3,
            "The client cannot be reached from the real server, whichever source the packets have. This is \
             no source filter: a route is missing or the client is down.",
            "Probes from the VIP do not arrive, and the same probes from the RIP do not either; both sweeps \
             end at the same distance.",
            &["rs# traceroute -n -s RIP CIP", "rs# ping -I RIP CIP"],
        ),
        Code::ClientSilent => page(
            Hop::ReturnToDirector,
            Q3,
            "Packets arrive at the client and it answers none. Its firewall drops unasked-for packets \
             without a word, so the way back to the director cannot be tested with them; real connections \
             may work all the same.",
            "Probes are seen at client.in and neither an RST nor an ICMP port unreachable at client.out.",
            &[
                "client# nft list ruleset",
                "client# iptables -I INPUT -p tcp --sport PORT -s VIP -j REJECT --reject-with tcp-reset",
                "or prove with another client",
            ],
        ),
        Code::ReturnPathBroken => page(
            Hop::ReturnToDirector,
            Q3,
            "What the client answers to the VIP leaves the client and does not reach the director. A \
             firewall on the way drops packets of connections that it has not seen begin, or routes the VIP \
             elsewhere.",
            "Answers are seen at client.out and none at director.in; a probe that the director itself \
             sends to the client from the VIP is not answered to it either.",
            &[
                "client# traceroute -n VIP",
                "director# tcpdump -ln -i INDEV host CIP",
            ],
        ),
        Code::OwnFlowsRewritten => page(
            Hop::RealserverEgress,
            Q4,
            "The real server rewrites the source of flows that it starts itself, but not of its answers. \
             Stateful address translation leaves answers alone, so the service works; a traceroute from the \
             VIP on this host, however, would test another address.",
            "A probe that the real server sends from the VIP is seen leaving with another source, while its \
             answers to tunnelled probes keep the VIP.",
            &[
                "rs# nft list ruleset | grep -B5 -E 'masquerade|snat'",
                "rs# iptables -t nat -I POSTROUTING -s VIP -j ACCEPT",
            ],
        ),
        Code::IcmpLimited => page(
            Hop::RealserverAccept,
            BEYOND,
            "A host withholds ICMP errors because one of its limits is reached, so probes that only an ICMP error \
             could answer stay unanswered. Nothing is broken by it; TCP is not concerned.",
            "Datagrams for closed ports come out of the tunnel and are not answered, and IcmpOutRateLimitGlobal or \
             IcmpOutRateLimitHost (since Linux 6.3) rise by as many.",
            &[
                "rs# nstat -az IcmpOutRateLimitGlobal IcmpOutRateLimitHost",
                "rs# sysctl -w net.ipv4.icmp_msgs_per_sec=1000 net.ipv4.icmp_msgs_burst=50",
            ],
        ),
        Code::Loss => page(
            Hop::DirectorToRealserver,
            BEYOND,
            "Some packets are lost on the way and get through when repeated. This is no filter, which would \
             drop every one; the hop counts as proven.",
            "Of several probes of the same kind some are seen at the next station and some are not.",
            &["director# mtr -n RIP", "rs# mtr -n CIP"],
        ),
        Code::Duplication => page(
            Hop::SpoofedSourceTransit,
            BEYOND,
            "A packet that was sent once arrives twice. TCP drops the copy; a UDP service does what it is asked \
             twice. A switch that floods, a mirror port or a link-layer repeat does it.",
            "The same octets come to one device of one host more often than they left the station before; \
             several devices of one host that show one packet, and what a kernel sends again by itself, do not \
             count.",
            &[
                "director# tcpdump -elni INDEV host CIP",
                "rs# tcpdump -elni IN_ETH host DIP",
            ],
        ),
        Code::Reordering => page(
            Hop::SpoofedSourceTransit,
            BEYOND,
            "Packets overtake each other on the way. Connections work, somewhat slower if it is often. Packets \
             of one flow that take several links, or a link that repeats what was lost, do it.",
            "Probes arrive at a station in another order than that in which they left the station before, \
             though they left at least a millisecond apart.",
            &["director# mtr -n RIP", "rs# mtr -n CIP"],
        ),
    }
}
