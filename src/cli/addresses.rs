//! Addresses that are typed, or asked of this host's routes.

use std::net::Ipv4Addr;

use crate::cli::failure::Failure;
use crate::exchange::FactQuery;
use crate::exchange::HostFacts;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteQuery;
use crate::live::facts;
use crate::live::ipvs;
use crate::suite;

/// An argument that is a host's address.
pub(super) fn address(text: &str) -> Result<Ipv4Addr, String> {
    suite::address(text).map_err(|(message, expected)| format!("{message}: {expected}"))
}

/// Arguments that must not be the same address.
pub(super) fn distinct(named: &[(&'static str, Ipv4Addr)]) -> Result<(), Failure> {
    for (number, (name, address)) in named.iter().enumerate() {
        let earlier = named[..number].iter().find(|(_, other)| other == address);
        if let Some((other, address)) = earlier {
            return Err(Failure::SameAddress {
                one: other,
                other: name,
                address: *address,
            });
        }
    }
    Ok(())
}

/// The preferred source of this host's route to each address, as `ip route get` shows it, and this host's facts.
pub(super) fn sources(
    destinations: &[Ipv4Addr],
) -> Result<(Vec<Result<Ipv4Addr, Failure>>, HostFacts), Failure> {
    let routes = destinations.iter().map(|to| RouteQuery {
        to: *to,
        from: None,
        iif: None,
    });
    let query = FactQuery {
        routes: routes.collect(),
        ..FactQuery::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let facts = runtime.block_on(facts::gather(&query, ipvs::read));
    let found = destinations.iter().map(|to| {
        let answers = facts.routes.iter();
        let answer = answers.filter(|(query, _)| query.to == *to);
        match answer.map(|(_, answer)| answer).next() {
            Some(RouteAnswer::Route(route)) => route.source.ok_or(Failure::NoSource { to: *to }),
            Some(RouteAnswer::Error { error, .. }) => Err(Failure::NoRoute {
                to: *to,
                error: error.clone(),
            }),
            None => Err(Failure::NoSource { to: *to }),
        }
    });
    Ok((found.collect(), facts))
}
