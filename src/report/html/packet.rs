//! A packet, layer by layer, and its octets with their fields marked.

use crate::report::html::markup::Html;
use crate::report::model::PacketReport;
use crate::wire::DissectedHeader;
use crate::wire::Dissection;
use crate::wire::dissect;
use crate::wire::dissect_frame;

/// How many hues there are for layers.
const HUES: usize = 6;

/// Writes a packet; how many fields it has.
pub(super) fn packet(html: &mut Html, packet: &PacketReport) -> usize {
    let dissection = match packet.ethertype {
        Some(ethertype) => dissect(&packet.octets, ethertype),
        None => dissect_frame(&packet.octets),
    };
    let mut fields = 0;
    html.element("div", &[("class", &"packet")], |html| {
        html.words("p", &[("class", &"line")], &dissection.summary);
        hexdump(html, &packet.octets, &dissection);
        if packet.cut_off > 0 {
            let more = packet.cut_off;
            html.words(
                "p",
                &[],
                format!("{more} more octets were on the wire and not kept."),
            );
        }
        if let Some(error) = &dissection.stopped {
            html.words("p", &[], format!("Incomplete: {error}."));
        }
        html.element("div", &[("class", &"layers")], |html| {
            for (number, header) in dissection.headers.iter().enumerate() {
                layer(html, &packet.octets, (number, header), &mut fields);
            }
        });
    });
    fields
}

fn layer(
    html: &mut Html,
    octets: &[u8],
    (number, header): (usize, &DissectedHeader),
    fields: &mut usize,
) {
    html.element("table", &[("class", &"layer")], |html| {
        let hue = format!("l{}", number % HUES);
        html.element("caption", &[("class", &hue)], |html| {
            html.words("b", &[], format!("{} {}", number + 1, header.header));
            let quoted = if header.is_quoted { ", quoted" } else { "" };
            let last = (header.offset + header.length).saturating_sub(1);
            html.say(format!(", octets {} to {last}{quoted}", header.offset));
        });
        html.columns(&["octets", "hex", "field", "value"]);
        for field in &header.fields {
            let class = format!("f{fields}");
            *fields += 1;
            html.element("tr", &[("class", &class)], |html| {
                let (start, end) = (field.octets.start, field.octets.end);
                let place = match end - start {
                    1 => start.to_string(),
                    _ => format!("{start}–{}", end - 1),
                };
                html.words("td", &[], place);
                let own = octets.get(field.octets.clone()).unwrap_or_default();
                html.element("td", &[], |html| html.words("code", &[], pairs(own)));
                html.words("td", &[], field.name);
                html.words("td", &[], &field.value);
            });
        }
    });
}

fn pairs(octets: &[u8]) -> String {
    let pairs: Vec<_> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    pairs.join(" ")
}

/// What an octet belongs to: a field, by its number in the packet, of a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Field { layer: usize, number: usize },
    Layer(usize),
    Nobody,
}

fn hexdump(html: &mut Html, octets: &[u8], dissection: &Dissection) {
    let owners = owners(octets, dissection);
    let names: Vec<_> = dissection
        .headers
        .iter()
        .flat_map(|header| {
            let fields = header.fields.iter();
            fields.map(|field| format!("{} {}: {}", header.header, field.name, field.value))
        })
        .collect();
    html.element("pre", &[("class", &"hex"), ("tabindex", &0)], |html| {
        for (row, line) in octets.chunks(16).enumerate() {
            let start = row * 16;
            html.words("span", &[("class", &"dim")], format!("{start:04x}  "));
            let mut at = start;
            for of_one in owners[start..start + line.len()].chunk_by(|one, next| one == next) {
                let own = &octets[at..at + of_one.len()];
                match of_one[0] {
                    Owner::Field { layer, number } => {
                        let shade = ["", " alt"][number % 2];
                        let class = format!("l{}{shade} f{number}", layer % HUES);
                        html.words(
                            "i",
                            &[("class", &class), ("title", &names[number])],
                            pairs(own),
                        );
                    }
                    Owner::Layer(layer) => {
                        let class = format!("l{}", layer % HUES);
                        html.words("i", &[("class", &class)], pairs(own));
                    }
                    Owner::Nobody => html.words("i", &[], pairs(own)),
                }
                html.say(" ");
                at += of_one.len();
            }
            html.say("   ".repeat(16 - line.len()));
            let ascii = line.iter().map(|octet| match octet {
                b' '..=b'~' => char::from(*octet),
                _ => '.',
            });
            html.words(
                "span",
                &[("class", &"dim")],
                format!(" {}\n", ascii.collect::<String>()),
            );
        }
    });
}

fn owners(octets: &[u8], dissection: &Dissection) -> Vec<Owner> {
    let mut owners = vec![Owner::Nobody; octets.len()];
    let mut number = 0;
    for (layer, header) in dissection.headers.iter().enumerate() {
        let end = (header.offset + header.length).min(octets.len());
        owners[header.offset.min(end)..end].fill(Owner::Layer(layer));
        for field in &header.fields {
            let end = field.octets.end.min(octets.len());
            for owner in &mut owners[field.octets.start.min(end)..end] {
                // Of two fields that share an octet the first has it.
                if *owner == Owner::Layer(layer) {
                    *owner = Owner::Field { layer, number };
                }
            }
            number += 1;
        }
    }
    owners
}
