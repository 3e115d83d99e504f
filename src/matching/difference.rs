//! In what a packet differs from what was sent.

use std::fmt;

use crate::matching::Alteration;
use crate::plan::Flow;

/// Fields that differ.
#[derive(Debug, Default)]
pub(super) struct Differences(pub(super) Vec<Alteration>);

impl Differences {
    pub(super) fn flow(&mut self, sent: &Flow, seen: &Flow) {
        self.text("source address", sent.source, seen.source);
        self.text("destination address", sent.destination, seen.destination);
        self.text("source port", sent.source_port, seen.source_port);
        self.text(
            "destination port",
            sent.destination_port,
            seen.destination_port,
        );
    }

    pub(super) fn text<T: PartialEq + fmt::Display>(&mut self, field: &str, sent: T, seen: T) {
        if sent != seen {
            self.0.push(Alteration {
                field: field.to_owned(),
                sent: sent.to_string(),
                seen: seen.to_string(),
            });
        }
    }

    pub(super) fn hex16(&mut self, field: &str, sent: u16, seen: u16) {
        if sent != seen {
            self.text(field, format!("{sent:#06x}"), format!("{seen:#06x}"));
        }
    }

    pub(super) fn hex8(&mut self, field: &str, sent: u8, seen: u8) {
        if sent != seen {
            self.text(field, format!("{sent:#04x}"), format!("{seen:#04x}"));
        }
    }
}
