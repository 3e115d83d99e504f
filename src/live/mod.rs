//! Every system call: raw sockets, taps, netlink facts, namespaces, clocks.
