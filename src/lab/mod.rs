//! The path on one machine: topology, faults, stand-ins for ipip and IPVS.
